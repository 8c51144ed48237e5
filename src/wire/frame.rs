//! Frames: a message and its payload, each with a length, over a stream of bytes.
//!
//! ```text
//! magic u32 | message length u32 | payload length u64 | message | payload        (little endian)
//! ```

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::wire::codec;

/// One message with its payload.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<M> {
    pub(crate) message: M,
    pub(crate) payload: Vec<u8>,
}

/// The bytes are no frame, or a larger one than we take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FrameError {
    /// What arrived is not ours.
    Garbage(String),
    /// The payload would be longer than the limit.
    TooLarge { len: u64, limit: u64 },
}

/// The bytes in front of a payload of `payload` bytes.
pub(crate) fn head<M: Serialize>(message: &M, payload: usize) -> Result<Vec<u8>, String> {
    let body = codec::encode(message)?;
    let len = u32::try_from(body.len())
        .ok()
        .filter(|len| *len <= LONGEST_MESSAGE);
    let Some(len) = len else {
        return Err(format!(
            "a message of {} bytes is longer than {LONGEST_MESSAGE}",
            body.len()
        ));
    };
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend_from_slice(&FRAME_MAGIC.to_le_bytes());
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes.extend_from_slice(&(payload as u64).to_le_bytes());
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

/// Puts frames together from whatever pieces arrive.
///
/// It takes memory only in proportion to the bytes that did arrive, whatever lengths they claim.
#[derive(Debug)]
pub(crate) struct Assembler {
    limit: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Header {
        bytes: [u8; HEADER],
        filled: usize,
    },
    Message {
        bytes: Vec<u8>,
        len: usize,
        payload: usize,
    },
    Payload {
        message: Vec<u8>,
        bytes: Vec<u8>,
        len: usize,
    },
}

impl Assembler {
    /// `limit`: the longest payload that is taken, in bytes.
    pub(crate) fn new(limit: u64) -> Self {
        Assembler {
            limit,
            state: State::START,
        }
    }

    pub(crate) fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// Whether the stream may end here.
    pub(crate) fn is_at_start(&self) -> bool {
        matches!(self.state, State::Header { filled: 0, .. })
    }

    /// Takes bytes from the front of `input` until a frame is complete or the input is used up.
    pub(crate) fn feed<M: DeserializeOwned>(
        &mut self,
        input: &mut &[u8],
    ) -> Result<Option<Frame<M>>, FrameError> {
        loop {
            match &mut self.state {
                State::Header { bytes, filled } => {
                    let part = take(input, HEADER - *filled);
                    bytes[*filled..*filled + part.len()].copy_from_slice(part);
                    *filled += part.len();
                    if *filled < HEADER {
                        return Ok(None);
                    }
                    let header = *bytes;
                    let (len, payload) = self.check(&header)?;
                    self.state = State::Message {
                        bytes: Vec::new(),
                        len,
                        payload,
                    };
                }
                State::Message { bytes, len, payload } => {
                    bytes.extend_from_slice(take(input, *len - bytes.len()));
                    if bytes.len() < *len {
                        return Ok(None);
                    }
                    self.state = State::Payload {
                        message: std::mem::take(bytes),
                        bytes: Vec::new(),
                        len: *payload,
                    };
                }
                State::Payload { message, bytes, len } => {
                    let part = take(input, *len - bytes.len());
                    // Doubling, but never beyond the length that is wanted.
                    if bytes.capacity() - bytes.len() < part.len() {
                        let wanted = (bytes.capacity() * 2).max(bytes.len() + part.len()).min(*len);
                        bytes.reserve_exact(wanted - bytes.len());
                    }
                    bytes.extend_from_slice(part);
                    if bytes.len() < *len {
                        return Ok(None);
                    }
                    let message = codec::decode(message).map_err(FrameError::Garbage)?;
                    let payload = std::mem::take(bytes);
                    self.state = State::START;
                    return Ok(Some(Frame { message, payload }));
                }
            }
        }
    }

    /// Where the rest of a long payload belongs: whoever puts it there saves its way through [`feed`](Assembler::feed),
    /// which is called with whatever was read behind that, or with nothing.
    pub(crate) fn gap(&mut self) -> Option<Gap<'_>> {
        let State::Payload { bytes, len, .. } = &mut self.state else {
            return None;
        };
        let missing = *len - bytes.len();
        if missing < WORTH_A_GAP {
            return None;
        }
        let is_new = bytes.capacity() - bytes.len() < missing.min(WORTH_A_GAP);
        if is_new {
            // Room that nobody has written to is a claim on addresses, not on memory; even so it is bounded.
            let room = bytes.len().max(CLAIMED_AT_ONCE).min(missing);
            bytes.try_reserve_exact(room).ok()?;
        }
        Some(Gap {
            bytes,
            missing,
            is_new,
        })
    }

    /// How long the payload is that is arriving, if it is a large one and there is no memory yet but for its beginning.
    pub(crate) fn wants_room(&self) -> Option<usize> {
        match &self.state {
            State::Payload { bytes, len, .. } if *len >= WORTH_A_GAP && bytes.capacity() <= *len / 8 => {
                Some(*len)
            }
            _ => None,
        }
    }

    /// Memory for it; nothing of what is in there is looked at.
    pub(crate) fn take_room(&mut self, mut room: Vec<u8>) {
        if let State::Payload { bytes, len, .. } = &mut self.state
            && room.capacity() >= *len
        {
            room.clear();
            room.extend_from_slice(bytes);
            *bytes = room;
        }
    }

    fn check(&self, header: &[u8; HEADER]) -> Result<(usize, usize), FrameError> {
        let [a, b, c, d, e, f, g, h, payload @ ..] = *header;
        let magic = u32::from_le_bytes([a, b, c, d]);
        if magic != FRAME_MAGIC {
            return Err(FrameError::Garbage(format!("a frame begins with {magic:#010x}")));
        }
        let len = u32::from_le_bytes([e, f, g, h]);
        if len > LONGEST_MESSAGE {
            return Err(FrameError::Garbage(format!("a message claims {len} bytes")));
        }
        let payload = u64::from_le_bytes(payload);
        if payload > self.limit {
            return Err(FrameError::TooLarge {
                len: payload,
                limit: self.limit,
            });
        }
        let too_large = FrameError::TooLarge {
            len: payload,
            limit: self.limit,
        };
        Ok((len as usize, usize::try_from(payload).map_err(|_| too_large)?))
    }
}

/// A payload that is not complete, with room for more of it.
#[derive(Debug)]
pub(crate) struct Gap<'a> {
    pub(crate) bytes: &'a mut Vec<u8>,
    /// How many bytes more belong there; perhaps more than there is room for.
    pub(crate) missing: usize,
    /// The room was made just now.
    pub(crate) is_new: bool,
}

impl State {
    const START: State = State::Header {
        bytes: [0; HEADER],
        filled: 0,
    };
}

/// Up to `most` bytes from the front of `input`.
fn take<'a>(input: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (part, rest) = input.split_at(most.min(input.len()));
    *input = rest;
    part
}

/// Less than this is copied sooner than it is read on its own.
const WORTH_A_GAP: usize = 64 << 10;
const CLAIMED_AT_ONCE: usize = 256 << 20;

const HEADER: usize = 16;
const FRAME_MAGIC: u32 = 0x4c52_5049;

/// A message is small; what may be large is the payload. An environment is the largest message there is.
const LONGEST_MESSAGE: u32 = 8 << 20;
