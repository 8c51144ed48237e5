//! What can travel: the bounds on arguments and results, and arguments to bytes and back, one by one.

use serde::Serialize;
use serde::de::DeserializeOwned;

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
    encode_borrowed(value, output)
}

/// [`encode`] for a slice. What arrives is a `Vec`.
pub fn encode_slice<T: Argument>(value: &[T], output: &mut Vec<u8>) -> Result<(), Refused> {
    encode_borrowed(value, output)
}

/// [`encode`] for what arrives as another type, such as a `str` as a `String`.
pub fn encode_borrowed<T: Serialize + ?Sized>(value: &T, output: &mut Vec<u8>) -> Result<(), Refused> {
    let bytes = wire::encode(value).map_err(Refused::of::<T>)?;
    if output.is_empty() {
        *output = bytes;
    } else {
        output.extend(bytes);
    }
    Ok(())
}

/// Reads the next argument.
pub fn decode<T: Argument>(input: &mut &[u8]) -> Result<T, Refused> {
    wire::decode_next(input).map_err(Refused::of::<T>)
}

/// [`decode`] for a slice.
pub fn decode_slice<T: Argument>(input: &mut &[u8]) -> Result<Vec<T>, Refused> {
    wire::decode_next(input).map_err(Refused::of::<Vec<T>>)
}
