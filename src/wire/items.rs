//! Many items in one payload: arguments on their way to a worker, results on their way back.
//!
//! ```text
//! arguments: Chunk, then each: length | bytes
//! results:   items u32 | nanoseconds u64 (little endian), then each: length | 0 | value, or length | 1 | Reply
//! length:    one byte below 255, or 255 and a u64 (little endian)
//! ```

use crate::wire::codec;
use crate::wire::encoded::Short;
use crate::wire::message::Reply;

/// How many results follow, and how long they took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) items: u32,
    pub(crate) nanos: u64,
}

/// Appends a piece with its length before it.
#[inline]
pub(crate) fn push_piece(piece: &[u8], output: &mut Vec<u8>) {
    output.reserve(1 + LENGTH + piece.len());
    match u8::try_from(piece.len()) {
        Ok(short) if short < LONG => output.push(short),
        _ => {
            output.push(LONG);
            output.extend_from_slice(&(piece.len() as u64).to_le_bytes());
        }
    }
    output.extend_from_slice(piece);
}

/// [`push_piece`] for the first `len` of these bytes.
#[inline]
pub(crate) fn push_short_piece(len: u8, bytes: Short, output: &mut Vec<u8>) {
    let short = usize::from(len);
    if short > WORD {
        return push_piece(&bytes.0[..short], output);
    }
    // One word is copied faster than a part of it. Not all of them in one: they were written as words, and whoever reads more at
    // once waits until they are in memory.
    let end = output.len() + 1 + short;
    output.reserve(1 + WORD);
    output.push(len);
    output.extend_from_slice(&bytes.0[..WORD]);
    output.truncate(end);
}

/// Takes the next piece from the front of `input`.
#[inline]
pub(crate) fn next_piece<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], String> {
    let (piece, rest) = match short_piece(input) {
        Some(found) => found,
        None => long_piece(input)?,
    };
    *input = rest;
    Ok(piece)
}

/// A piece whose length is one byte, and what follows it. By value, so that neither has to be in memory.
#[inline]
fn short_piece(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&len, rest) = input.split_first()?;
    match len < LONG {
        true => rest.split_at_checked(usize::from(len)),
        false => None,
    }
}

#[inline(never)]
fn long_piece(input: &[u8]) -> Result<(&[u8], &[u8]), String> {
    let cut = || "the last item is cut off".to_owned();
    let rest = input.strip_prefix(&[LONG]).ok_or_else(cut)?;
    let (len, rest) = rest.split_first_chunk::<LENGTH>().ok_or_else(cut)?;
    let len = usize::try_from(u64::from_le_bytes(*len)).map_err(|_| cut())?;
    rest.split_at_checked(len).ok_or_else(cut)
}

/// Makes room for what stands before a result. The encoded value is appended next; [`end_result`] needs to know where it began.
#[inline]
pub(crate) fn begin_result(output: &mut Vec<u8>) -> usize {
    let start = output.len();
    // The length of a short one, and that it is a value.
    output.extend_from_slice(&[0, 0]);
    start
}

/// Ends a result that began at `start`.
#[inline]
pub(crate) fn end_result(start: usize, output: &mut Vec<u8>) {
    let len = output.len() - start - 1;
    match u8::try_from(len) {
        Ok(short) if short < LONG => output[start] = short,
        _ => {
            output[start] = LONG;
            let long = (len as u64).to_le_bytes();
            output.splice(start + 1..start + 1, long);
        }
    }
}

/// Ends a result that began at `start` with why there is none, in the place of what was appended.
pub(crate) fn end_failure(start: usize, failure: &Reply, output: &mut Vec<u8>) {
    output.truncate(start + 1);
    output.push(1);
    // What cannot be told is told without its details.
    output.extend(codec::encode(failure).unwrap_or_default());
    end_result(start, output);
}

/// A short value at the front of `input`, which most results are, and what follows it. `None`: [`next_result`] tells.
#[inline]
pub(crate) fn short_value(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (piece, rest) = short_piece(input)?;
    match piece.split_first()? {
        (0, value) => Some((value, rest)),
        _ => None,
    }
}

/// Takes the next result: an encoded value, or why there is none.
pub(crate) fn next_result<'a>(input: &mut &'a [u8]) -> Result<Result<&'a [u8], Reply>, String> {
    let piece = next_piece(input)?;
    match piece.split_first() {
        Some((0, value)) => Ok(Ok(value)),
        Some((1, failure)) => next_failure(failure).map(Err),
        _ => Err("a result of an unknown kind".into()),
    }
}

#[cold]
fn next_failure(failure: &[u8]) -> Result<Reply, String> {
    codec::decode(failure)
}

/// Room for the head of a batch of results.
pub(crate) fn begin_batch() -> Vec<u8> {
    vec![0; BATCH_HEAD]
}

/// Fills in the head of what began with [`begin_batch`].
pub(crate) fn end_batch(batch: Batch, bytes: &mut [u8]) {
    let (items, nanos) = (batch.items.to_le_bytes(), batch.nanos.to_le_bytes());
    for (to, from) in bytes.iter_mut().zip(items.into_iter().chain(nanos)) {
        *to = from;
    }
}

/// Takes the head of a batch from the front of `input`.
pub(crate) fn batch(input: &mut &[u8]) -> Result<Batch, String> {
    let cut = || "the head of a batch is cut off".to_owned();
    let (items, rest) = input.split_first_chunk::<4>().ok_or_else(cut)?;
    let (nanos, rest) = rest.split_first_chunk::<8>().ok_or_else(cut)?;
    *input = rest;
    Ok(Batch {
        items: u32::from_le_bytes(*items),
        nanos: u64::from_le_bytes(*nanos),
    })
}

/// Stands before a length of so many bytes.
const LONG: u8 = 255;
const LENGTH: usize = 8;
const WORD: usize = 8;
const BATCH_HEAD: usize = 12;
