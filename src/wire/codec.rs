//! Values to bytes and back: the only place that names bincode.
//!
//! Bytes from a worker are hostile. bincode without a limit aborts the process on a forged length, and its limit counts
//! the width of decoded values, not of wire bytes. No wire byte stands for more than 16 decoded ones, so a limit of 16
//! times the input never rejects what an encoder wrote, and bounds what a forged length can take.

use serde::de::DeserializeOwned;
use serde::ser::{Impossible, Serialize, Serializer};

use crate::sys;
use crate::wire::encoded::Encoded;

/// Encodes a value.
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, String> {
    bincode::serde::encode_to_vec(value, CONFIG).map_err(|error| say_encode(&error))
}

/// Appends an encoded value. After a failure `output` holds a part of one.
pub(crate) fn encode_into<T: Serialize + ?Sized>(value: &T, output: &mut Vec<u8>) -> Result<(), String> {
    bincode::serde::encode_into_std_write(value, output, CONFIG)
        .map(drop)
        .map_err(|error| say_encode(&error))
}

/// Appends an argument of a call, by a serializer that [`is_of_argument`] knows.
#[inline]
pub(crate) fn encode_argument<T: Serialize + ?Sized>(value: &T, output: &mut Encoded) -> Result<(), String> {
    bincode::serde::encode_into_writer(value, Sink(output), CONFIG).map_err(|error| say_encode(&error))
}

/// Where arguments are written, and read. The types are there for their names.
struct Sink<'a>(&'a mut Encoded);
struct Source<'a>(&'a [u8]);

impl bincode::enc::write::Writer for Sink<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
        self.0.push(bytes);
        Ok(())
    }
}

impl bincode::de::read::Reader for Source<'_> {
    #[inline]
    fn read(&mut self, bytes: &mut [u8]) -> Result<(), bincode::error::DecodeError> {
        match self.0.split_at_checked(bytes.len()) {
            Some((part, rest)) => {
                bytes.copy_from_slice(part);
                self.0 = rest;
                Ok(())
            }
            None => Err(bincode::error::DecodeError::UnexpectedEnd {
                additional: bytes.len() - self.0.len(),
            }),
        }
    }

    #[inline]
    fn peek_read(&mut self, len: usize) -> Option<&[u8]> {
        self.0.get(..len)
    }

    #[inline]
    fn consume(&mut self, len: usize) {
        self.0 = self.0.get(len..).unwrap_or_default();
    }
}

/// Whether a serializer or a deserializer is one for the arguments of a call, and not any other that a type's own code
/// makes use of. Should the names of types ever be other than they are, what travels is the long form.
pub(crate) fn is_of_argument<S>() -> bool {
    let name = std::any::type_name::<S>();
    name.contains(concat!(module_path!(), "::Sink")) || name.contains(concat!(module_path!(), "::Source"))
}

/// [`encode_argument`] for a `Vec<u8>` or a `[u8]`, in one piece: serde takes them byte by byte.
pub(crate) fn encode_bytes(bytes: &[u8], output: &mut Encoded) {
    output.reserve(LENGTH + bytes.len());
    output.push(&(bytes.len() as u64).to_le_bytes());
    output.push(bytes);
}

/// [`decode_next`] for a `Vec<u8>`, in one piece.
pub(crate) fn decode_bytes(bytes: &mut &[u8]) -> Result<Vec<u8>, String> {
    let cut = || "the bytes are cut off".to_owned();
    let (len, rest) = bytes.split_first_chunk::<LENGTH>().ok_or_else(cut)?;
    let len = usize::try_from(u64::from_le_bytes(*len)).map_err(|_| cut())?;
    let (value, rest) = rest.split_at_checked(len).ok_or_else(cut)?;
    *bytes = rest;
    Ok(value.to_vec())
}

/// Decodes a value that must fill `bytes` to the end.
#[inline]
pub(crate) fn decode<T: DeserializeOwned>(mut bytes: &[u8]) -> Result<T, String> {
    let value = decode_next(&mut bytes)?;
    if !bytes.is_empty() {
        return Err(format!("{} bytes are left over after the value", bytes.len()));
    }
    Ok(value)
}

/// The limit is a type parameter: the first tier that is wide enough.
macro_rules! with_limit {
    ($len:expr, |$config:ident| $decode:expr) => {{
        match $len.saturating_mul(MOST_DECODED_PER_BYTE) {
            0..=0x1_0000 => {
                let $config = CONFIG.with_limit::<0x1_0000>();
                $decode
            }
            0x1_0001..=0x10_0000 => {
                let $config = CONFIG.with_limit::<0x10_0000>();
                $decode
            }
            0x10_0001..=0x100_0000 => {
                let $config = CONFIG.with_limit::<0x100_0000>();
                $decode
            }
            0x100_0001..=0x1000_0000 => {
                let $config = CONFIG.with_limit::<0x1000_0000>();
                $decode
            }
            0x1000_0001..=0x1_0000_0000 => {
                let $config = CONFIG.with_limit::<0x1_0000_0000>();
                $decode
            }
            _ => {
                let $config = CONFIG.with_limit::<0x100_0000_0000>();
                $decode
            }
        }
    }};
}

/// Decodes a value, and leaves what stands behind it.
#[inline]
pub(crate) fn decode_next<T: DeserializeOwned>(bytes: &mut &[u8]) -> Result<T, String> {
    let decoded = if is_number::<T>() {
        bincode::serde::decode_from_slice(bytes, CONFIG)
    } else if bytes.len() <= FEW {
        bincode::serde::decode_from_slice(bytes, CONFIG.with_limit::<0x1_0000>())
    } else {
        decode_many(bytes)
    };
    match decoded {
        Ok((value, used)) => {
            *bytes = bytes.get(used..).unwrap_or_default();
            Ok(value)
        }
        Err(error) => Err(say_decode(&error)),
    }
}

/// Whether it is a number. No forged length can stand in one, so there is nothing to be limited, nor counted for it.
#[inline]
fn is_number<T>() -> bool {
    macro_rules! any_of {
        ($($number:ty)*) => { $(sys::is_same::<T, $number>())||* };
    }
    any_of!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize f32 f64)
}

#[inline(never)]
fn decode_many<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, usize), bincode::error::DecodeError> {
    with_limit!(bytes.len(), |config| bincode::serde::decode_from_slice(
        bytes, config
    ))
}

/// [`decode_next`] for what [`encode_argument`] wrote.
#[inline]
pub(crate) fn decode_argument<T: DeserializeOwned>(bytes: &mut &[u8]) -> Result<T, String> {
    let mut source = Source(bytes);
    let decoded = if is_number::<T>() {
        bincode::serde::decode_from_reader(&mut source, CONFIG)
    } else if bytes.len() <= FEW {
        bincode::serde::decode_from_reader(&mut source, CONFIG.with_limit::<0x1_0000>())
    } else {
        decode_many_arguments(&mut source)
    };
    *bytes = source.0;
    match decoded {
        Ok(value) => Ok(value),
        Err(error) => Err(say_decode(&error)),
    }
}

#[inline(never)]
fn decode_many_arguments<T: DeserializeOwned>(
    source: &mut Source<'_>,
) -> Result<T, bincode::error::DecodeError> {
    with_limit!(source.0.len(), |config| bincode::serde::decode_from_reader(
        source, config
    ))
}

/// Whether the value is the `Err` of a `Result`, whatever alias it goes by: serde tells by the first call it makes.
pub(crate) fn is_err_value<T: Serialize + ?Sized>(value: &T) -> bool {
    // The type's name comes first: serde's own impl for `Result` is the only one that is asked.
    std::any::type_name::<T>().starts_with("core::result::Result<")
        && matches!(value.serialize(Probe), Err(Found { err: true }))
}

/// The name of a type, shortened so that a deeply generic one does not fill an error message.
pub(crate) fn type_name_of<T: ?Sized>() -> String {
    let name = std::any::type_name::<T>();
    match name.char_indices().nth(LONGEST_TYPE_NAME) {
        Some((end, _)) => format!("{}..", &name[..end]),
        None => name.to_owned(),
    }
}

#[cold]
fn say_encode(error: &bincode::error::EncodeError) -> String {
    match error {
        bincode::error::EncodeError::OtherString(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cold]
fn say_decode(error: &bincode::error::DecodeError) -> String {
    match error {
        bincode::error::DecodeError::OtherString(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A serializer that looks at the first call only.
struct Probe;

#[derive(Debug)]
struct Found {
    err: bool,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("probe")
    }
}

impl std::error::Error for Found {}

impl serde::ser::Error for Found {
    fn custom<T: std::fmt::Display>(_: T) -> Self {
        OTHER
    }
}

macro_rules! other {
    ($($method:ident($($arg:ty),*) -> $ok:ty;)*) => {
        $(fn $method(self, $(_: $arg),*) -> Result<$ok, Found> { Err(OTHER) })*
    };
}

impl Serializer for Probe {
    type Ok = ();
    type Error = Found;
    type SerializeSeq = Impossible<(), Found>;
    type SerializeTuple = Impossible<(), Found>;
    type SerializeTupleStruct = Impossible<(), Found>;
    type SerializeTupleVariant = Impossible<(), Found>;
    type SerializeMap = Impossible<(), Found>;
    type SerializeStruct = Impossible<(), Found>;
    type SerializeStructVariant = Impossible<(), Found>;

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
        _: &T,
    ) -> Result<(), Found> {
        Err(Found {
            err: name == "Result" && variant == "Err",
        })
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<(), Found> {
        Err(OTHER)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, _: &T) -> Result<(), Found> {
        Err(OTHER)
    }

    fn collect_str<T: std::fmt::Display + ?Sized>(self, _: &T) -> Result<(), Found> {
        Err(OTHER)
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    other! {
        serialize_bool(bool) -> ();
        serialize_i8(i8) -> ();
        serialize_i16(i16) -> ();
        serialize_i32(i32) -> ();
        serialize_i64(i64) -> ();
        serialize_i128(i128) -> ();
        serialize_u8(u8) -> ();
        serialize_u16(u16) -> ();
        serialize_u32(u32) -> ();
        serialize_u64(u64) -> ();
        serialize_u128(u128) -> ();
        serialize_f32(f32) -> ();
        serialize_f64(f64) -> ();
        serialize_char(char) -> ();
        serialize_str(&str) -> ();
        serialize_bytes(&[u8]) -> ();
        serialize_none() -> ();
        serialize_unit() -> ();
        serialize_unit_struct(&'static str) -> ();
        serialize_unit_variant(&'static str, u32, &'static str) -> ();
        serialize_seq(Option<usize>) -> Self::SerializeSeq;
        serialize_tuple(usize) -> Self::SerializeTuple;
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Self::SerializeTupleVariant;
        serialize_map(Option<usize>) -> Self::SerializeMap;
        serialize_struct(&'static str, usize) -> Self::SerializeStruct;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Self::SerializeStructVariant;
    }
}

const OTHER: Found = Found { err: false };

/// Fixed width: faster than variable width in both directions, and both ends are on one machine.
const CONFIG: bincode::config::Configuration<bincode::config::LittleEndian, bincode::config::Fixint> =
    bincode::config::standard().with_fixed_int_encoding();

const MOST_DECODED_PER_BYTE: usize = 16;

/// So many bytes are in the first tier, and decoded where that is asked for.
const FEW: usize = 0x1_0000 / MOST_DECODED_PER_BYTE;

const LONGEST_TYPE_NAME: usize = 200;

/// What stands before a sequence.
const LENGTH: usize = 8;
