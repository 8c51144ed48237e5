use inparallel::task;

#[task]
struct Thing;

#[task]
impl Thing {
    fn area(&self) {}
}

#[task]
trait Shape {
    fn area(&self);
}

trait Solid {
    #[task]
    fn volume(&self);
}

#[task]
const ANSWER: u32 = 42;

fn main() {
    let _ = Thing;
}
