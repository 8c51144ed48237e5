//! What can travel: the bounds on arguments and results, and arguments to bytes and back, one by one.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::buffers;
use crate::payload::Payload;
use crate::shared::{self, SharedBytes};
use crate::sys;
use crate::wire::{self, Encoded};

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
#[derive(Debug, Clone)]
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
#[inline]
pub fn encode<T: Argument>(value: &T, output: &mut Encoded) -> Result<(), Refused> {
    encode_value(value, output).map_err(Refused::of::<T>)
}

/// [`encode`] for a value that nobody needs any more: the memory of a large `Vec<u8>` awaits the result.
#[inline]
pub fn encode_moved<T: Argument>(value: T, output: &mut Encoded) -> Result<(), Refused> {
    match sys::known_as::<T, Vec<u8>>(value) {
        Ok(bytes) => {
            if encode_bytes(&bytes, output) {
                shared::keep_emptied(bytes);
            }
            Ok(())
        }
        Err(value) => encode_borrowed(&value, output),
    }
}

/// [`encode`] for a slice. What arrives is a [`Slice`].
pub fn encode_slice<T: Argument>(value: &[T], output: &mut Encoded) -> Result<(), Refused> {
    match sys::as_same_slice(value) {
        Some(bytes) => {
            encode_bytes(bytes, output);
            Ok(())
        }
        None => encode_borrowed(value, output),
    }
}

/// [`encode`] for what arrives as another type, such as a `str` as a `String`.
#[inline]
pub fn encode_borrowed<T: Serialize + ?Sized>(value: &T, output: &mut Encoded) -> Result<(), Refused> {
    wire::encode_argument(value, output).map_err(Refused::of::<T>)
}

/// Reads the next argument.
#[inline]
pub fn decode<T: Argument>(input: &mut &[u8]) -> Result<T, Refused> {
    decode_next(input).map_err(Refused::of::<T>)
}

/// [`decode`] for a slice.
pub fn decode_slice<T: Argument>(input: &mut &[u8]) -> Result<Slice<T>, Refused> {
    if !sys::is_same::<T, u8>() {
        let items = wire::decode_argument(input);
        return items
            .map(|items| Slice(Items::Own(items)))
            .map_err(Refused::of::<Vec<T>>);
    }
    let items = decode_bytes(input).map(|bytes| match bytes {
        Found::Here(bytes) => Items::Own(sys::into_same(bytes).unwrap_or_default()),
        Found::Attached(bytes) => Items::Shared(bytes),
    });
    items.map(Slice).map_err(Refused::of::<Vec<T>>)
}

/// What a worker has for an argument that is a slice: bytes of a large one are read where they are.
#[derive(Debug)]
pub struct Slice<T>(Items<T>);

#[derive(Debug)]
enum Items<T> {
    Own(Vec<T>),
    /// `T` is `u8`.
    Shared(SharedBytes),
}

impl<T> std::ops::Deref for Slice<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.0 {
            Items::Own(items) => items,
            Items::Shared(bytes) => sys::slice_known_as(bytes).unwrap_or_default(),
        }
    }
}

/// Appends a result. Bytes are written as they are: where a result ends is known without them.
#[inline]
pub(crate) fn encode_output<T: Serialize>(value: T, output: &mut Vec<u8>) -> Result<(), String> {
    match sys::known_as::<T, Vec<u8>>(value) {
        Ok(bytes) => {
            match output.is_empty() && bytes.len() >= WORTH_KEEPING {
                true => *output = bytes,
                false => output.extend_from_slice(&bytes),
            }
            Ok(())
        }
        Err(value) => wire::encode_into(&value, output),
    }
}

/// Decodes a result that must fill `bytes` to the end.
#[inline]
pub(crate) fn decode_output<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    if !sys::is_same::<T, Vec<u8>>() {
        return wire::decode(bytes);
    }
    let mut own = Vec::with_capacity(bytes.len());
    sys::prefer_large_pages(&mut own);
    own.extend_from_slice(bytes);
    sys::into_same(own).ok_or_else(|| unreachable!("the types are the same"))
}

/// As [`decode_output`], of bytes that perhaps nobody else needs: those are not copied.
pub(crate) fn decode_last_output<T: DeserializeOwned>(payload: Payload) -> Result<T, String> {
    let bytes = match payload {
        Payload::Long(bytes) if sys::is_same::<T, Vec<u8>>() => bytes,
        payload => return decode_output(&payload),
    };
    match Arc::try_unwrap(bytes) {
        Ok(bytes) => sys::into_same(bytes).ok_or_else(|| unreachable!("the types are the same")),
        Err(bytes) => decode_output(&bytes),
    }
}

/// Appends a value, bytes in one piece.
#[inline]
fn encode_value<T: Serialize>(value: &T, output: &mut Encoded) -> Result<(), String> {
    match sys::as_same::<T, Vec<u8>>(value) {
        Some(bytes) => {
            encode_bytes(bytes, output);
            Ok(())
        }
        None => wire::encode_argument(value, output),
    }
}

#[inline]
fn decode_next<T: DeserializeOwned>(input: &mut &[u8]) -> Result<T, String> {
    if !sys::is_same::<T, Vec<u8>>() {
        return wire::decode_argument(input);
    }
    let bytes = match decode_bytes(input)? {
        Found::Here(bytes) => bytes,
        Found::Attached(shared) => {
            let mut bytes = buffers::take(shared.len());
            bytes.extend_from_slice(&shared);
            bytes
        }
    };
    sys::into_same(bytes).ok_or_else(|| unreachable!("the types are the same"))
}

/// Many bytes are attached: then a length that no bytes have stands in the place of theirs, and their index follows. Whether
/// they are.
fn encode_bytes(bytes: &[u8], output: &mut Encoded) -> bool {
    let index = (bytes.len() >= shared::WORTH_ATTACHING)
        .then(|| shared::attach_copy(bytes))
        .flatten();
    match index {
        Some(index) => {
            output.push(&ATTACHED);
            output.push(&index.to_le_bytes());
        }
        None => wire::encode_bytes(bytes, output),
    }
    index.is_some()
}

enum Found {
    Here(Vec<u8>),
    Attached(SharedBytes),
}

fn decode_bytes(input: &mut &[u8]) -> Result<Found, String> {
    let attached = input
        .strip_prefix(&ATTACHED)
        .and_then(|rest| rest.split_first_chunk());
    match attached {
        Some((index, rest)) => {
            *input = rest;
            shared::attached(u32::from_le_bytes(*index)).map(Found::Attached)
        }
        None => wire::decode_bytes(input).map(Found::Here),
    }
}

const LENGTH: usize = 8;
const ATTACHED: [u8; LENGTH] = u64::MAX.to_le_bytes();

/// A result that is larger than this is not copied for being sent.
const WORTH_KEEPING: usize = 64 << 10;
