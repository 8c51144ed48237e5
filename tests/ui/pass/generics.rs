//! Type and const parameters, where clauses, tasks inside function bodies.
#![forbid(unsafe_code)]
#![deny(warnings, missing_docs)]

use std::fmt::Display;

use inparallel::task;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Adds up.
#[task]
pub fn sum<T: Copy + Serialize + DeserializeOwned + Send + 'static + std::iter::Sum>(all: Vec<T>) -> T {
    all.iter().copied().sum()
}

/// Makes one.
#[task]
pub fn make<T>() -> T
where
    T: Default + Serialize + DeserializeOwned + Send + 'static,
{
    T::default()
}

/// Repeats.
#[task]
pub fn repeat<T, const N: usize, const UP: bool>(value: &T) -> Vec<String>
where
    T: Display + Serialize + DeserializeOwned,
{
    let text = if UP { value.to_string().to_uppercase() } else { value.to_string() };
    vec![text; N]
}

/// A parameter that is only there as a type, and may be unsized.
#[task]
pub fn size<T: ?Sized + 'static, U>(_: u8) -> usize {
    size_of::<&T>() + size_of::<U>()
}

/// By reference, from a slice.
#[task]
pub fn longest<'a, T: 'a + AsRef<str> + Serialize + DeserializeOwned>(all: &'a [T], least: &'a T) -> usize {
    all.iter().chain([least]).map(|one| one.as_ref().len()).max().unwrap_or(0)
}

fn local(n: u64) -> u64 {
    const OFFSET: u64 = 10;

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Local(u64);

    #[task]
    fn nested(n: Local) -> u64 {
        n.0 + OFFSET
    }

    #[task]
    fn nested_generic<T: Into<u64> + Serialize + DeserializeOwned>(n: T) -> u64 {
        struct Unrelated;
        impl Unrelated {
            const ONE: Self = Unrelated;
        }
        let _ = Unrelated::ONE;
        n.into() + OFFSET
    }

    nested(Local(n)).wait().unwrap() + nested::inline(Local(n)) + nested_generic(1_u8).wait().unwrap()
}

fn main() {
    assert_eq!(sum(vec![1, 2, 3]).wait().unwrap(), 6);
    assert_eq!(sum::inline(vec![1.5, 2.5]), 4.0);
    assert_eq!(sum::with().call(vec![1_u8]).wait().unwrap(), 1);
    assert_eq!(make::<String>().wait().unwrap(), "");
    assert_eq!(make::<u8>::with().clone().call().wait().unwrap(), 0);
    assert_eq!(repeat::<_, 2, true>(&'a').wait().unwrap(), ["A", "A"]);
    assert_eq!(repeat::<char, 1, false>::inline(&'a'), ["a"]);
    assert_eq!(size::<str, u64>(0).wait().unwrap(), size_of::<&str>() + 8);
    assert_eq!(longest(&["a".to_owned()], &"bc".to_owned()).wait().unwrap(), 2);
    assert_eq!(format!("{:?}", make::<u8>::with()).split(' ').next(), Some("make"));
    assert_eq!(local(1), 33);
}
