//! Tasks that take their context, which their callers do not give.
#![forbid(unsafe_code)]
#![deny(warnings, missing_docs)]

use inparallel::{Options, TaskContext, task};
use serde::{Deserialize, Serialize};

/// First.
#[task]
pub fn first(context: &TaskContext, n: u8) -> u8 {
    n + u8::from(context.is_cancelled())
}

/// In between, by its path.
#[task]
pub fn between(a: u8, context: &inparallel::TaskContext, text: &str) -> usize {
    usize::from(a) + text.len() + usize::from(context.is_cancelled())
}

/// Alone, with a lifetime.
#[task]
pub fn alone<'a>(context: &'a TaskContext) -> bool {
    let context: &'a TaskContext = context;
    context.is_cancelled()
}

/// Unused, in parentheses, beside sixteen arguments.
#[task]
#[allow(unused_parens, clippy::too_many_arguments)]
#[rustfmt::skip]
pub fn many(a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8, h: u8, _: (&TaskContext), i: u8, j: u8, k: u8, l: u8, m: u8, n: u8, o: u8, p: u8) -> u8 {
    a + b + c + d + e + f + g + h + i + j + k + l + m + n + o + p
}

/// Hands it on, here and now.
#[task]
pub fn hands_on(context: &TaskContext) -> u8 {
    first::inline(context, 1)
}

/// Generic.
#[task]
pub fn generic<T: Copy + Serialize + serde::de::DeserializeOwned>(value: &T, context: &TaskContext) -> Option<T> {
    (!context.is_cancelled()).then_some(*value)
}

/// A thing.
#[derive(Serialize, Deserialize)]
pub struct Thing(u8);

impl Thing {
    /// A method.
    #[task]
    pub fn method(&self, context: &TaskContext, more: u8) -> u8 {
        self.0 + more + u8::from(context.is_cancelled())
    }

    /// Last.
    #[task]
    pub fn last(self, more: u8, context: &TaskContext) -> u8 {
        self.method_inline(context, more)
    }

    /// No receiver.
    #[task]
    pub fn new(context: &TaskContext) -> Self {
        Thing(u8::from(context.is_cancelled()))
    }
}

fn main() {
    assert_eq!(first(1).wait().unwrap(), 1);
    assert_eq!(first::with().call(1).wait().unwrap(), 1);
    assert_eq!(first::later(1).start().wait().unwrap(), 1);
    assert_eq!(between(1, "ab").wait().unwrap(), 3);
    assert!(!alone().wait().unwrap());
    assert_eq!(many(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1).wait().unwrap(), 16);
    assert_eq!(hands_on().wait().unwrap(), 1);
    assert_eq!(generic(&'a').wait().unwrap(), Some('a'));
    assert_eq!(Thing(1).method(1).wait().unwrap(), 2);
    assert_eq!(Thing(1).method_with(Options::new(), 1).wait().unwrap(), 2);
    assert_eq!(Thing(1).method_later(1).start().wait().unwrap(), 2);
    assert_eq!(Thing(1).last(1).wait().unwrap(), 2);
    assert_eq!(Thing::new().wait().unwrap().0, 0);

    // Here and now the context is an argument like others; only a task has one to give.
    let _: fn(&TaskContext, u8) -> u8 = first::inline;
}
