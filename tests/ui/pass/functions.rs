//! Plain functions: no arguments, unit and `Result` results, many arguments, awkward names, recursion, defaults.
#![forbid(unsafe_code)]
#![deny(warnings, missing_docs)]

use std::time::Duration;

use inparallel::{StartMethod, task};

/// Answers.
#[task]
pub fn nothing_in() -> u32 {
    42
}

/// Does nothing.
#[task]
pub fn nothing_out(_: u32) {}

/// Fails for zero.
#[task]
pub fn halve(n: u32) -> Result<u32, String> {
    if n == 0 {
        return Err("zero".to_owned());
    }
    Ok(n / 2)
}

/// Starts nested tasks: its own name means the task in its body, too.
#[task]
fn factorial(n: u64) -> u64 {
    if n < 2 { 1 } else { n * factorial(n - 1).wait().unwrap() }
}

#[task]
#[allow(clippy::too_many_arguments)]
fn awkward(
    options: u8,
    self_: u8,
    this: u8,
    name: u8,
    timeout: u8,
    priority: u8,
    args: u8,
    value: u8,
    marker: u8,
    start: u8,
    formatter: u8,
    module: u8,
) -> u32 {
    [options, self_, this, name, timeout, priority, args, value, marker, start, formatter, module]
        .map(u32::from)
        .iter()
        .sum()
}

#[task]
fn call(call: u8) -> u8 {
    call
}

#[task]
fn with(with: u8) -> u8 {
    with
}

#[task]
fn inline(inline: u8) -> u8 {
    inline
}

#[task]
fn r#type(r#match: u8) -> u8 {
    r#match
}

#[task]
fn sixteen(a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8, h: u8, i: u8, j: u8, k: u8, l: u8, m: u8, n: u8, o: u8, p: u8) -> u8 {
    a + b + c + d + e + f + g + h + i + j + k + l + m + n + o + p
}

#[task(timeout = "1min", start = "thread", name = "the one with defaults")]
fn with_defaults(n: u8) -> u8 {
    n
}

#[task(timeout = 2.5,)]
fn with_seconds() {}

#[task(crate = "inparallel")]
fn with_path(n: u8) -> u8 {
    n
}

#[task(crate = "::inparallel", timeout = "1.5h", start = "spawn")]
fn with_everything(n: u8) -> u8 {
    n
}

mod inner {
    use inparallel::task;

    #[task]
    pub(super) fn restricted(n: u8) -> u8 {
        n
    }

    #[task]
    pub(in crate::inner) fn more_restricted(n: u8) -> u8 {
        n
    }

    pub(super) fn both(n: u8) -> u8 {
        more_restricted(restricted(n).wait().unwrap()).wait().unwrap()
    }
}

fn main() {
    assert_eq!(nothing_in().wait().unwrap(), 42);
    assert_eq!(nothing_in::inline(), 42);
    nothing_out(1).wait().unwrap();
    nothing_out::inline(1);
    assert_eq!(halve(0).wait().unwrap(), Err("zero".to_owned()));
    assert_eq!(halve::inline(8), Ok(4));
    assert_eq!(factorial(3).wait().unwrap(), 6);
    assert_eq!(awkward(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1).wait().unwrap(), 12);
    assert_eq!(call(1).wait().unwrap() + with(1).wait().unwrap() + inline(1).wait().unwrap(), 3);
    assert_eq!(call::with().call(1).wait().unwrap() + with::inline(1), 2);
    assert_eq!(r#type(1).wait().unwrap() + r#type::inline(1), 2);
    assert_eq!(sixteen(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1).wait().unwrap(), 16);
    assert_eq!(with_defaults(1).wait().unwrap(), 1);
    with_seconds().wait().unwrap();
    assert_eq!(with_path(1).wait().unwrap(), 1);
    assert_eq!(with_everything(1).wait().unwrap(), 1);
    assert_eq!(inner::both(1), 1);
    assert_eq!(inner::restricted::inline(1), 1);

    let halver = halve::with().timeout(Duration::from_secs(60)).start(StartMethod::Thread);
    assert!(format!("{halver:?}").starts_with("halve { options"));
    assert_eq!(halver.clone().call(8).wait().unwrap(), Ok(4));
    assert_eq!(halver.call(6).wait().unwrap(), Ok(3));
}
