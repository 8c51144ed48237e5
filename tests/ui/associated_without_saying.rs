use inparallel::task;

struct Shape;

impl Shape {
    #[task]
    fn unit() -> f64 {
        1.0
    }
}

fn main() {}
