use inparallel::task;

struct Plain;

#[derive(serde::Serialize)]
struct OneWay;

#[task]
fn by_value(plain: Plain) {
    drop(plain);
}

#[task]
fn inside(all: &[Plain], number: u8) -> usize {
    all.len() + usize::from(number)
}

#[task]
fn one_way(one_way: &OneWay) {
    let _ = one_way;
}

#[task]
fn generic<T: Copy>(value: T) {
    let _ = value;
}

fn main() {}
