//! What travels between a program and its workers: messages, their encoding, and frames. Pure: no I/O.
//!
//! `docs/wire-protocol.md` has the tables; a change here changes them in the same commit.

mod message;
mod codec;
mod encoded;
mod frame;
mod items;
#[cfg(test)]
mod tests;

pub(crate) use codec::{
    decode, decode_argument, decode_bytes, decode_next, encode, encode_argument, encode_bytes, encode_into,
    is_err_value, is_of_argument, type_name_of,
};
pub(crate) use encoded::{Encoded, SHORT, Short, Written};
pub(crate) use frame::{Assembler, Frame, FrameError, head as frame_head};
pub(crate) use items::{
    Batch, batch, begin_batch, begin_result, end_batch, end_failure, end_result, next_piece, next_result,
    push_piece, push_short_piece, short_value,
};
pub(crate) use message::{
    Answer, Attached, Board, Call, Chunk, FromServer, Hello, Location, MAGIC, Panic, Reply, Report, Role,
    Setup, ToServer, ToWorker, VERSION,
};
