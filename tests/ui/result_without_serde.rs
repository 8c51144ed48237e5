use inparallel::task;

struct Plain;

#[task]
fn plain() -> Plain {
    Plain
}

#[task]
fn error(number: u8) -> Result<u8, std::io::Error> {
    Ok(number)
}

#[task]
fn thread_bound() -> std::rc::Rc<u8> {
    std::rc::Rc::new(1)
}

fn main() {}
