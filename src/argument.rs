//! What can travel: the bounds on arguments and results, and arguments to bytes and back, one by one.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::sys;
use crate::wire;

/// An argument of a task, as the worker owns it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot travel to a worker process",
    label = "not serializable",
    note = "arguments of tasks implement serde's `Serialize` and `Deserialize`; derive both for each type that `{Self}` is made of"
)]
pub trait Argument: Serialize + DeserializeOwned {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned> Argument for T {}

/// What a task returns.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot travel back from a worker process",
    label = "not serializable",
    note = "results of tasks implement serde's `Serialize` and `Deserialize`; derive both for each type that `{Self}` is made of",
    note = "an error without them can be returned as a text: `.map_err(|error| error.to_string())`"
)]
pub trait Output: Serialize + DeserializeOwned {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned> Output for T {}

/// Why an argument did not get into bytes, or out of them.
#[derive(Debug)]
pub struct Refused {
    pub(crate) type_name: String,
    pub(crate) reason: String,
}

impl Refused {
    fn of<T: ?Sized>(reason: String) -> Self {
        Refused {
            type_name: wire::type_name_of::<T>(),
            reason,
        }
    }
}

/// Writes an argument behind those before it.
///
/// Arguments go one by one, not as a tuple, so that the compiler complains once about a type that cannot travel, and at
/// that type. The bytes are those of the tuple.
pub fn encode<T: Argument>(value: &T, output: &mut Vec<u8>) -> Result<(), Refused> {
    encode_value(value, output).map_err(Refused::of::<T>)
}

/// [`encode`] for a slice. What arrives is a `Vec`.
pub fn encode_slice<T: Argument>(value: &[T], output: &mut Vec<u8>) -> Result<(), Refused> {
    match sys::as_same_slice(value) {
        Some(bytes) => {
            wire::encode_bytes(bytes, output);
            Ok(())
        }
        None => encode_borrowed(value, output),
    }
}

/// [`encode`] for what arrives as another type, such as a `str` as a `String`.
pub fn encode_borrowed<T: Serialize + ?Sized>(value: &T, output: &mut Vec<u8>) -> Result<(), Refused> {
    wire::encode_into(value, output).map_err(Refused::of::<T>)
}

/// Reads the next argument.
pub fn decode<T: Argument>(input: &mut &[u8]) -> Result<T, Refused> {
    decode_next(input).map_err(Refused::of::<T>)
}

/// [`decode`] for a slice.
pub fn decode_slice<T: Argument>(input: &mut &[u8]) -> Result<Vec<T>, Refused> {
    decode_next(input).map_err(Refused::of::<Vec<T>>)
}

/// Appends a value, bytes in one piece.
pub(crate) fn encode_value<T: Serialize>(value: &T, output: &mut Vec<u8>) -> Result<(), String> {
    match sys::as_same::<T, Vec<u8>>(value) {
        Some(bytes) => {
            wire::encode_bytes(bytes, output);
            Ok(())
        }
        None => wire::encode_into(value, output),
    }
}

/// Decodes a value that must fill `bytes` to the end.
pub(crate) fn decode_value<T: DeserializeOwned>(mut bytes: &[u8]) -> Result<T, String> {
    let value = decode_next(&mut bytes)?;
    match bytes {
        [] => Ok(value),
        more => Err(format!("{} bytes are left over after the value", more.len())),
    }
}

fn decode_next<T: DeserializeOwned>(input: &mut &[u8]) -> Result<T, String> {
    if sys::is_same::<T, Vec<u8>>()
        && let Some(bytes) = sys::into_same(wire::decode_bytes(input)?)
    {
        return Ok(bytes);
    }
    wire::decode_next(input)
}
