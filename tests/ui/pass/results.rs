//! What becomes of results: handed to a function, or discarded in the worker.
#![forbid(unsafe_code)]
#![deny(warnings, missing_docs, unused_results)]

use std::rc::Rc;
use std::sync::{Condvar, Mutex};

use inparallel::{Call, Options, TaskFuture, task};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());
static CHANGED: Condvar = Condvar::new();

fn tell(text: String) {
    TOLD.lock().unwrap().push(text);
    CHANGED.notify_all();
}

/// Waits until that many results are told, and takes them.
fn told(count: usize) -> Vec<String> {
    let told = CHANGED.wait_while(TOLD.lock().unwrap(), |told| told.len() < count);
    let mut told = std::mem::take(&mut *told.unwrap());
    told.sort();
    told
}

fn number(result: &inparallel::Result<u8>) {
    tell(format!("{:?}", result.as_ref().ok()));
}

mod inner {
    pub(crate) fn any<T: std::fmt::Debug>(result: &inparallel::Result<T>) {
        super::tell(format!("{:?}", result.as_ref().ok()));
    }
}

/// Its result is told.
#[task(callback = number)]
pub fn heard(future: u8) -> u8 {
    future
}

/// By a path, to a generic function.
#[task(callback = crate::inner::any, timeout = "1min")]
pub fn heard_generic<T: Serialize + DeserializeOwned + std::fmt::Debug + 'static>(value: T) -> T {
    value
}

/// Nothing is told but that it ended.
#[task(callback = inner::any::<()>)]
pub fn heard_nothing() {}

/// Cannot travel, and need not.
#[task(discard)]
pub fn discarded(n: u8) -> Rc<u8> {
    Rc::new(n)
}

/// Must be looked at, here and now.
#[task(discard, pool = "discarding")]
#[must_use = "it is needed"]
pub fn discarded_result(n: u8) -> Result<u8, std::io::Error> {
    Ok(n)
}

/// Without a name, and borrowed.
#[task(discard)]
pub fn discarded_iterator<'a>(text: &'a str) -> impl Iterator<Item = char> + 'a {
    text.chars()
}

/// Nothing anyway.
#[task(discard)]
pub fn discarded_nothing(_: u8) {}

/// A thing.
#[derive(Serialize, Deserialize)]
pub struct Thing(u8);

impl Thing {
    /// A method.
    #[task(callback = Self::tell)]
    pub fn value(&self) -> u8 {
        self.0
    }

    /// No receiver, and `Self` in the attribute only.
    #[task(callback = Self::tell)]
    pub fn one() -> u8 {
        1
    }

    /// A method.
    #[task(discard)]
    pub fn discarded(self) -> Rc<u8> {
        Rc::new(self.0)
    }

    fn tell(result: &inparallel::Result<u8>) {
        number(result);
    }
}

fn main() {
    assert_eq!(heard(1).wait().unwrap(), 1);
    assert_eq!(heard::with().call(2).wait().unwrap(), 2);
    assert_eq!(heard_generic("a".to_owned()).wait().unwrap(), "a");
    heard_nothing().wait().unwrap();
    assert_eq!(Thing(3).value().wait().unwrap() + Thing::one().wait().unwrap(), 4);
    assert_eq!(Thing(4).value_with(Options::new()).wait().unwrap(), 4);
    let expected = ["Some(\"a\")", "Some(())", "Some(1)", "Some(1)", "Some(2)", "Some(3)", "Some(4)"];
    assert_eq!(told(7), expected);

    let future: TaskFuture<()> = discarded(1);
    future.wait().unwrap();
    let call: Call<()> = discarded::later(1);
    call.start().wait().unwrap();
    assert_eq!(*discarded::inline(1), 1);
    discarded_result(1).wait().unwrap();
    assert_eq!(discarded_result::inline(1).unwrap(), 1);
    discarded_iterator("ab").wait().unwrap();
    assert_eq!(discarded_iterator::inline("ab").count(), 2);
    discarded_nothing(1).wait().unwrap();
    Thing(1).discarded().wait().unwrap();
    assert_eq!(*Thing(1).discarded_inline(), 1);
}
