//! Calls that are made now and started later: of functions, generic ones, methods, and as paths.
#![forbid(unsafe_code)]
#![deny(warnings, missing_docs, unused_results)]

use inparallel::{Call, StartMethod, task};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Multiplies.
#[task]
pub fn product(a: u32, b: u32) -> u32 {
    a * b
}

/// Borrows.
#[task]
pub fn length(text: &str) -> usize {
    text.len()
}

/// Takes and returns nothing.
#[task]
pub fn nothing() {}

/// Its arguments have the names of what is generated.
#[task]
pub fn later(call_later: u8, later: u8) -> u8 {
    call_later + later
}

/// Generic.
#[task]
pub fn doubled<'a, T: Copy + Serialize + DeserializeOwned + 'a, const N: usize>(value: &'a [T]) -> Vec<T> {
    let both = value.iter().chain(value).copied();
    both.take(N).collect()
}

#[task]
fn used_later_only(n: u8) -> u8 {
    n
}

/// A shape.
#[derive(Serialize, Deserialize)]
pub struct Shape {
    side: f64,
}

impl Shape {
    /// A method.
    #[task]
    pub fn area(&self, k: f64) -> f64 {
        self.side * self.side * k
    }

    /// By value.
    #[task]
    pub fn scaled(mut self, later: f64) -> Self {
        self.side *= later;
        self
    }

    /// No receiver.
    #[task(associated, timeout = "1min")]
    pub fn unit() -> f64 {
        1.0
    }

    /// Generic.
    #[task]
    pub fn longest<T: AsRef<str> + Serialize + DeserializeOwned>(&self, all: &[T]) -> usize {
        all.iter().map(|one| one.as_ref().len()).max().unwrap_or(0)
    }

    #[task]
    fn used_later_only(&self) {}
}

/// A trait with a task.
pub trait Solid: Serialize + DeserializeOwned {
    /// Has a body.
    #[task]
    fn height(&self) -> f64 {
        2.0
    }
}

impl Solid for Shape {}

/// As a pool does with what it is given.
fn each<T, R>(make: impl Fn(T) -> Call<R>, all: impl IntoIterator<Item = T>) -> Vec<Call<R>> {
    all.into_iter().map(make).collect()
}

fn main() {
    let call: Call<u32> = product::later(2, 8);
    assert_eq!(call.start().wait().unwrap(), 16);
    let borrowed = length::later(&String::from("four"));
    assert_eq!(borrowed.start().wait().unwrap(), 4);
    nothing::later().start().wait().unwrap();
    assert_eq!(later::later(1, 2).start().wait().unwrap(), 3);

    let call = product::with().start(StartMethod::Spawn).call_later(2, 4);
    assert_eq!(call.start().wait().unwrap(), 8);

    assert_eq!(doubled::<u8, 3>::later(&[1, 2]).start().wait().unwrap(), [1, 2, 1]);
    assert_eq!(doubled::<_, 1>::with().call_later(&['a']).start().wait().unwrap(), ['a']);
    assert_eq!(used_later_only::later(1).start().wait().unwrap(), 1);

    let calls = each(length::later, ["a", "bc"]);
    let lengths = calls.into_iter().map(|call| call.start().wait().unwrap());
    assert_eq!(lengths.collect::<Vec<_>>(), [1, 2]);
    let calls = each(|(a, b)| product::later(a, b), [(1, 2), (3, 4)]);
    assert_eq!(calls.len(), 2);
    let calls = each(doubled::<u8, 2>::later, [[1].as_slice()]);
    assert_eq!(calls.len(), 1);

    let shape = Shape { side: 2.0 };
    assert_eq!(shape.area_later(0.5).start().wait().unwrap(), 2.0);
    assert_eq!(shape.longest_later(&["a".to_owned()]).start().wait().unwrap(), 1);
    assert_eq!(shape.height_later().start().wait().unwrap(), 2.0);
    shape.used_later_only_later().start().wait().unwrap();
    assert_eq!(shape.scaled_later(2.0).start().wait().unwrap().side, 4.0);
    assert_eq!(Shape::unit_later().start().wait().unwrap(), 1.0);
}
