use inparallel::task;

#[task]
fn argument(text: impl AsRef<str>) -> usize {
    text.as_ref().len()
}

#[task]
fn nested_argument(texts: &[impl AsRef<str>]) -> usize {
    texts.len()
}

#[task]
fn result() -> impl Iterator<Item = u32> {
    0..3
}

fn main() {}
