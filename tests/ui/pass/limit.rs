//! Functions with a permit around their body.
#![forbid(unsafe_code)]
#![deny(warnings, missing_docs, unused_results, clippy::pedantic)]
#![allow(clippy::must_use_candidate, clippy::missing_errors_doc)]

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use inparallel::{Limiter, limit};

static ONE: Limiter = Limiter::new(1);

static INSIDE: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

/// At most two are in here.
#[limit(2)]
fn two_at_a_time() {
    let inside = INSIDE.fetch_add(1, Ordering::SeqCst) + 1;
    let _ = MOST.fetch_max(inside, Ordering::SeqCst);
    std::thread::yield_now();
    let _ = INSIDE.fetch_sub(1, Ordering::SeqCst);
}

/// Leaves early, and shares its one permit.
#[limit(ONE)]
pub fn early(text: &str) -> Result<u32, std::num::ParseIntError> {
    const NOTHING: u32 = 0;
    if text.is_empty() {
        return Ok(NOTHING);
    }
    let number: u32 = text.parse()?;
    Ok(number)
}

/// A value without a name.
#[limit(crate::ONE, crate = "inparallel")]
pub fn letters(text: &str) -> impl Iterator<Item = char> {
    text.chars()
}

/// Generic, and with attributes of its own.
#[limit(1, crate = "::inparallel",)]
#[must_use]
#[inline]
#[allow(clippy::used_underscore_binding)]
pub(crate) fn generic<T, const N: usize>(_permit: &T) -> [T; N]
where
    T: Clone,
{
    #![allow(unused_mut)]
    let mut value = _permit.clone();
    std::array::from_fn(|_| value.clone())
}

/// With items, whose names are those of what is generated.
#[limit(1)]
pub fn items() -> u8 {
    const LIMITER: u8 = 1;
    LIMITER
}

/// Never returns.
#[limit(1)]
pub fn never() -> ! {
    loop {
        std::thread::park();
    }
}

#[limit(1)]
#[cfg(any())]
fn absent() -> NoSuchType {}

#[limit(1)]
#[allow(dead_code)]
extern "C" fn foreign() {}

#[limit(1)]
#[expect(dead_code)]
fn unused() {}

macro_rules! make {
    ($name:ident, $permits:expr) => {
        #[limit($permits)]
        fn $name() -> u8 {
            1
        }
    };
}

make!(from_macro, 1);
make!(from_macro_too, ONE);

struct Thing(u8);

impl Thing {
    #[limit(1)]
    fn method(&mut self, (a, b): (u8, u8)) -> &u8 {
        self.0 = a + b;
        &self.0
    }

    #[limit(ONE)]
    fn value(self) -> u8 {
        self.0
    }
}

trait Solid {
    #[limit(1)]
    fn height(&self) -> u8 {
        2
    }
}

impl Solid for Thing {
    #[limit(1)]
    fn height(&self) -> u8 {
        self.0
    }
}

fn main() {
    let _: fn() -> ! = never;

    let barrier = Barrier::new(8);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let _ = scope.spawn(|| {
                let _ = barrier.wait();
                for _ in 0..100 {
                    two_at_a_time();
                }
            });
        }
    });
    assert!(MOST.load(Ordering::SeqCst) <= 2);

    // Each of them gives its one permit back, in whatever way it leaves.
    for _ in 0..2 {
        assert_eq!(early(""), Ok(0));
        assert_eq!(early("1"), Ok(1));
        assert!(early("a").is_err());
        assert_eq!(letters("ab").count(), 2);
        assert_eq!(generic::<_, 2>(&'a'), ['a', 'a']);
        assert_eq!(items() + from_macro() + from_macro_too(), 3);
        assert_eq!(*Thing(0).method((1, 2)) + Thing(1).value() + Solid::height(&Thing(1)), 5);
    }
}
