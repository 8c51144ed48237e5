//! Methods and associated functions, in generic types too.
#![forbid(unsafe_code)]
#![deny(warnings, missing_docs)]

use inparallel::{Options, task};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    side: f64,
}

impl Shape {
    const UNIT: f64 = 1.0;

    /// By reference.
    #[task]
    pub fn area(&self, k: f64) -> f64 {
        self.side * self.side * k
    }

    /// By value.
    #[task]
    pub fn scaled(mut self, options: f64, this: &str) -> Self {
        self.side *= options + this.len() as f64;
        self
    }

    /// With types written out.
    #[task]
    #[allow(clippy::needless_arbitrary_self_type)]
    pub fn typed(self: &Self, other: &Self) -> bool {
        self == other
    }

    /// With types written out.
    #[task]
    #[allow(clippy::needless_arbitrary_self_type)]
    pub fn typed_value(self: Self) -> f64 {
        self.side
    }

    /// `Self` occurs in the signature.
    #[task]
    pub fn new(side: f64) -> Self {
        Shape { side }
    }

    /// `Self` occurs in the body.
    #[task]
    pub fn unit() -> f64 {
        Self::UNIT
    }

    /// `Self` does not occur.
    #[task(associated, timeout = "1min")]
    pub fn double((k, _): (f64, u8)) -> f64 {
        k * 2.0
    }

    /// Generic.
    #[task]
    pub fn count<'a, T: Serialize + DeserializeOwned + 'a, const N: usize>(&'a self, all: &'a [T]) -> usize {
        all.len() + N
    }

    #[task]
    fn recursive(&self, depth: u8) -> f64 {
        if depth == 0 { self.side } else { self.recursive(depth - 1).wait().unwrap() }
    }
}

/// Another type with methods of the same names.
#[derive(Serialize, Deserialize)]
pub struct Pair<T, const N: usize> {
    all: Vec<T>,
}

impl<T: Serialize + DeserializeOwned + Clone + Send + 'static, const N: usize> Pair<T, N> {
    /// By reference.
    #[task]
    pub fn area(&self, k: f64) -> f64 {
        (self.all.len() * N) as f64 * k
    }

    /// The parameter of the type.
    #[task]
    pub fn first(&self) -> Option<T> {
        self.all.first().cloned()
    }

    /// And of the method.
    #[task]
    pub fn with_more<U>(self, more: &[T], _: U) -> Vec<T>
    where
        U: Serialize + DeserializeOwned,
    {
        let mut all = self.all;
        all.extend_from_slice(more);
        all
    }
}

/// A trait with a task.
pub trait Solid: Serialize + DeserializeOwned {
    /// Needs no body.
    fn base(&self) -> f64;

    /// Has one.
    #[task]
    fn volume(&self, height: f64) -> f64 {
        self.base() * height
    }
}

impl Solid for Shape {
    fn base(&self) -> f64 {
        self.side * self.side
    }
}

fn main() {
    let shape = Shape { side: 2.0 };
    assert_eq!(shape.area(2.0).wait().unwrap(), 8.0);
    assert_eq!(shape.area_inline(2.0), 8.0);
    assert_eq!(shape.area_with(Options::new(), 2.0).wait().unwrap(), 8.0);
    assert_eq!(shape.clone().scaled(1.0, "a").wait().unwrap().side, 4.0);
    assert_eq!(shape.clone().scaled_inline(1.0, "a").side, 4.0);
    assert!(shape.typed(&shape).wait().unwrap());
    assert_eq!(shape.clone().typed_value().wait().unwrap(), 2.0);
    assert_eq!(Shape::new(2.0).wait().unwrap(), shape);
    assert_eq!(Shape::unit().wait().unwrap() + Shape::unit_inline(), 2.0);
    assert_eq!(Shape::double((2.0, 0)).wait().unwrap(), 4.0);
    assert_eq!(Shape::double_with(Options::new(), (2.0, 0)).wait().unwrap(), 4.0);
    assert_eq!(shape.count::<u8, 1>(&[1, 2]).wait().unwrap(), 3);
    assert_eq!(shape.recursive(1).wait().unwrap(), 2.0);
    assert_eq!(shape.volume(0.5).wait().unwrap() + shape.volume_inline(0.5), 4.0);

    let pair = Pair::<u8, 2> { all: vec![1, 2] };
    assert_eq!(pair.area(1.0).wait().unwrap(), 4.0);
    assert_eq!(pair.first().wait().unwrap(), Some(1));
    assert_eq!(pair.with_more(&[3], "text".to_owned()).wait().unwrap(), [1, 2, 3]);
}
