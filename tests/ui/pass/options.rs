//! Options in the attribute: pools, queues, retries, limits.
#![forbid(unsafe_code)]
#![deny(warnings, missing_docs, unused_results)]

use inparallel::{Limiter, Options, processed, task};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Shared by several tasks.
pub static FEW: Limiter = Limiter::new(2);

mod limits {
    use inparallel::Limiter;

    pub(crate) static ONE: Limiter = Limiter::new(1);
}

/// In a pool of its own.
#[task(pool)]
pub fn own_pool(n: u8) -> u8 {
    n
}

/// In a pool with a name.
#[task(pool = "some", workers = 2, priority = -3)]
pub fn named_pool(n: u8) -> u8 {
    n
}

/// In the same.
#[task(pool = "some", workers = 2, priority = 2147483647, timeout = "1min", start = "spawn")]
pub fn same_pool(n: u8) -> u8 {
    n
}

/// In one worker that stays.
#[task(daemon, priority = -2147483648)]
pub fn daemon(n: u8) -> u8 {
    n
}

/// Tried again.
#[task(retries = 2, start = "forkserver")]
pub fn stubborn(n: u8) -> u8 {
    n
}

/// Not tried again.
#[task(retries = 0)]
pub fn timid(n: u8) -> u8 {
    n
}

/// Three at a time.
#[task(limit = 3)]
pub fn few(n: u8) -> u8 {
    n
}

/// Two at a time, with the next.
#[task(limit = FEW)]
pub fn few_shared(n: u8) -> u8 {
    n
}

/// Generic.
#[task(limit = crate::FEW, pool = "some", workers = 2)]
pub fn few_generic<T: Serialize + DeserializeOwned>(value: T) -> T {
    value
}

/// With the names of what is generated.
#[task(pool = "names", limit = limits::ONE)]
#[allow(non_snake_case)]
pub fn names(limiter: u8, name: u8, workers: u8) -> u8 {
    limiter + name + workers
}

/// Under the other name of the attribute.
#[processed(pool = "some", workers = 2)]
pub fn as_processed(n: u8) -> u8 {
    n
}

macro_rules! make {
    ($name:ident, $workers:literal, $priority:expr, $limit:expr) => {
        #[task(pool = "made", workers = $workers, priority = $priority, limit = $limit)]
        fn $name() {}
    };
}

make!(from_macro, 1, -1, 1);
make!(from_macro_too, 1, 1, crate::FEW);

/// A thing.
#[derive(Serialize, Deserialize)]
pub struct Thing<T>(T);

impl<T: Copy + Serialize + DeserializeOwned> Thing<T> {
    /// A method in a pool.
    #[task(pool, workers = 1, limit = 1, retries = 1)]
    pub fn value(&self) -> T {
        self.0
    }

    /// Generic.
    #[task(daemon, limit = FEW)]
    pub fn other<U: Serialize + DeserializeOwned>(&self, other: U) -> U {
        other
    }

    /// No receiver.
    #[task(associated, limit = 2)]
    pub fn one() -> u8 {
        1
    }
}

/// A trait with a task.
pub trait Solid: Serialize + DeserializeOwned {
    /// Has a body.
    #[task(limit = 2)]
    fn height(&self) -> f64 {
        2.0
    }
}

impl Solid for Thing<u8> {}

fn main() {
    assert_eq!(own_pool(1).wait().unwrap(), 1);
    assert_eq!(own_pool::later(1).start().wait().unwrap(), 1);
    assert_eq!(named_pool(1).wait().unwrap() + same_pool(1).wait().unwrap(), 2);
    assert_eq!(daemon(1).wait().unwrap(), 1);
    assert_eq!(stubborn(1).wait().unwrap() + timid(1).wait().unwrap(), 2);
    assert_eq!(few(1).wait().unwrap() + few_shared(1).wait().unwrap(), 2);
    assert_eq!(few_generic('a').wait().unwrap(), 'a');
    assert_eq!(names(1, 1, 1).wait().unwrap(), 3);
    assert_eq!(as_processed(1).wait().unwrap(), 1);
    assert_eq!(as_processed::with().priority(1).retries(1).call(1).wait().unwrap(), 1);
    from_macro().wait().unwrap();
    from_macro_too().wait().unwrap();

    let thing = Thing(1_u8);
    assert_eq!(thing.value().wait().unwrap() + thing.value_inline(), 2);
    assert_eq!(thing.value_with(Options::new()).wait().unwrap(), 1);
    assert_eq!(thing.value_later().start().wait().unwrap(), 1);
    assert_eq!(thing.other('a').wait().unwrap(), 'a');
    assert_eq!(Thing::<u8>::one().wait().unwrap(), 1);
    assert_eq!(thing.height().wait().unwrap(), 2.0);
}
