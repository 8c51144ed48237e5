use std::borrow::Cow;

use inparallel::task;

#[task]
fn elided(text: &str) -> &str {
    text
}

#[task]
fn named<'a>(text: &'a str) -> Option<&'a str> {
    Some(text)
}

#[task]
fn anonymous(text: &str) -> Cow<'_, str> {
    text.into()
}

#[task]
fn constant() -> &'static str {
    "text"
}

fn main() {}
