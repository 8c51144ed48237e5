//! Attributes of the function go where they belong, and generated code raises no lint of its own.
#![forbid(unsafe_code)]
#![deny(warnings, missing_docs, missing_debug_implementations, unreachable_pub, unused_results, unused_qualifications)]
#![deny(unnameable_types, single_use_lifetimes, unused_lifetimes, non_camel_case_types, non_snake_case)]

use inparallel::{Options, task};
use serde::{Deserialize, Serialize};

#[task]
#[cfg(any())]
fn absent(_: NoSuchType) -> NoSuchType {}

#[task]
#[cfg_attr(all(), cfg(any()))]
fn absent_too(_: NoSuchType) -> NoSuchType {}

#[task]
#[cfg(not(any()))]
#[cfg_attr(all(), allow(unused_variables), inline)]
fn present(unused: u8) -> u8 {
    1
}

#[deprecated(note = "use another")]
#[task]
fn old(n: u8) -> u8 {
    n
}

#[task]
#[must_use]
fn needed(n: u8) -> u8 {
    n
}

#[task]
#[must_use = "it is needed"]
#[track_caller]
#[inline(never)]
fn needed_too(n: u8) -> u8 {
    n
}

#[task]
#[allow(non_snake_case)]
fn Shouting(Argument: u8) -> u8 {
    Argument
}

#[task]
#[expect(unused_mut, reason = "on purpose")]
fn expecting(mut n: u8) -> u8 {
    n
}

#[task]
#[expect(dead_code)]
fn never_used(n: u8) -> u8 {
    n
}

#[task]
#[allow(dead_code)]
fn never_used_either(n: u8) -> u8 {
    n
}

#[task]
fn used_with_options_only(n: u8) -> u8 {
    n
}

#[task]
fn used_inline_only(n: u8) -> u8 {
    n
}

#[task]
fn inner_attribute(n: u8) -> u8 {
    #![allow(unused_mut)]
    let mut m = n;
    m
}

#[task]
#[doc(hidden)]
#[doc(alias = "another")]
fn hidden(n: u8) -> u8 {
    n
}

#[derive(Serialize, Deserialize)]
struct Thing;

impl Thing {
    #[task]
    fn with_only(&self, n: u8) -> u8 {
        n
    }

    #[task]
    fn inline_only(self, n: u8) -> u8 {
        n
    }

    #[task]
    #[cfg(any())]
    fn absent(&self, _: NoSuchType) -> NoSuchType {}

    #[task]
    #[deprecated]
    #[allow(dead_code)]
    fn old(&self) {}

    #[task]
    #[expect(dead_code)]
    fn unused(&self) {}
}

fn main() {
    assert_eq!(present(0).wait().unwrap(), 1);
    #[allow(deprecated)]
    let result = old(1).wait();
    assert_eq!(result.unwrap(), 1);
    assert_eq!(needed(1).wait().unwrap() + needed_too(1).wait().unwrap(), 2);
    assert_eq!(Shouting(1).wait().unwrap(), 1);
    assert_eq!(expecting(1).wait().unwrap(), 1);
    assert_eq!(used_with_options_only::with().call(1).wait().unwrap(), 1);
    assert_eq!(used_inline_only::inline(1) + Thing.inline_only_inline(1), 2);
    assert_eq!(inner_attribute(1).wait().unwrap(), 1);
    assert_eq!(hidden(1).wait().unwrap(), 1);
    assert_eq!(Thing.with_only_with(Options::new(), 1).wait().unwrap(), 1);
}
