use inparallel::task;

struct Shape {
    side: f64,
}

impl Shape {
    #[task]
    fn area(&self) -> f64 {
        self.side * self.side
    }

    #[task]
    fn consume(self) -> f64 {
        self.side
    }
}

fn main() {}
