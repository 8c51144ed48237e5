use inparallel::{TaskContext, task};

#[task]
fn by_value(context: TaskContext) {
    drop(context);
}

#[task]
fn mutable(context: &mut TaskContext, _: u8) {
    let _ = context;
}

#[task]
fn twice(first: &TaskContext, _: u8, second: &inparallel::TaskContext) {
    let _ = (first, second);
}

#[task]
fn for_ever(context: &'static TaskContext) {
    let _ = context;
}

#[task]
fn conditional(#[cfg(any())] context: &TaskContext) {}

#[task]
fn nested(context: Option<&TaskContext>) {
    let _ = context;
}

mod other {
    pub(crate) struct TaskContext;
}

#[task]
fn another_type(context: &other::TaskContext) {
    let _ = context;
}

fn main() {}
