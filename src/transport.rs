//! Frames over descriptors: blocking in a worker, a piece at a time in the supervisor.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::sys::{Fd, Incoming};
use crate::wire::{self, Assembler, Frame, FrameError};

/// Reads frames to the end, blocking. For the worker's side.
#[derive(Debug)]
pub(crate) struct FrameReader<'a> {
    fd: &'a Fd,
    assembler: Assembler,
    buffer: Vec<u8>,
    /// The part of `buffer` that is read and not used.
    unused: std::ops::Range<usize>,
}

impl<'a> FrameReader<'a> {
    /// The program is trusted: its frames have no limit.
    pub(crate) fn new(fd: &'a Fd) -> Self {
        FrameReader {
            fd,
            assembler: Assembler::new(u64::MAX),
            buffer: vec![0; FIRST_READ],
            unused: 0..0,
        }
    }

    /// The next frame; `None`: the stream ended between frames.
    pub(crate) fn next<M: DeserializeOwned>(&mut self) -> io::Result<Option<Frame<M>>> {
        loop {
            let mut input = &self.buffer[self.unused.clone()];
            let frame = self.assembler.feed(&mut input).map_err(broken)?;
            self.unused = self.unused.end - input.len()..self.unused.end;
            if let Some(frame) = frame {
                return Ok(Some(frame));
            }
            match self.fd.read(&mut self.buffer)? {
                Incoming::Bytes(count) => {
                    self.unused = 0..count;
                    if count == self.buffer.len() {
                        self.buffer.resize(READ_SIZE, 0);
                    }
                }
                Incoming::End if self.assembler.is_at_start() => return Ok(None),
                Incoming::End => return Err(io::ErrorKind::UnexpectedEof.into()),
                Incoming::NothingYet => return Err(io::ErrorKind::WouldBlock.into()),
            }
        }
    }
}

/// Writes one frame, blocking. For the worker's side.
pub(crate) fn write_frame<M: Serialize>(fd: &Fd, message: &M, payload: &[u8]) -> io::Result<()> {
    let head = wire::frame_head(message, payload.len()).map_err(io::Error::other)?;
    if payload.len() >= LARGE {
        fd.widen();
    }
    fd.write_all(&head, payload)
}

/// Frames on their way to a worker.
#[derive(Debug)]
pub(crate) struct Outgoing {
    fd: Fd,
    frames: VecDeque<(Vec<u8>, Arc<Vec<u8>>)>,
    /// Of the first frame.
    written: usize,
    /// Of the last frame that was begun.
    last: usize,
}

/// How far a step of writing came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    All,
    /// The pipe is full: go on when it is writable.
    Some,
    /// Nobody reads any more. What became of the worker is for others to find out.
    Closed,
}

impl Outgoing {
    pub(crate) fn new(fd: Fd) -> Self {
        Outgoing {
            fd,
            frames: VecDeque::new(),
            written: 0,
            last: 0,
        }
    }

    pub(crate) fn fd(&self) -> &Fd {
        &self.fd
    }

    /// Adds a frame. [`step`](Outgoing::step) writes it.
    pub(crate) fn push(&mut self, head: Vec<u8>, payload: Arc<Vec<u8>>) {
        if payload.len() >= LARGE {
            self.fd.widen();
        }
        self.frames.push_back((head, payload));
        self.last = 0;
    }

    /// Writes as much as fits.
    pub(crate) fn step(&mut self) -> Written {
        while let Some((head, payload)) = self.frames.front() {
            let rest = match self.written.checked_sub(head.len()) {
                None => &head[self.written..],
                Some(written) => &payload[written..],
            };
            if rest.is_empty() {
                self.written = 0;
                self.frames.pop_front();
                continue;
            }
            match self.fd.write(rest) {
                Ok(Some(count)) => {
                    self.written += count;
                    self.last = self.written;
                }
                Ok(None) => return Written::Some,
                Err(_) => return Written::Closed,
            }
        }
        Written::All
    }

    /// Whether there is more to write.
    pub(crate) fn is_pending(&self) -> bool {
        !self.frames.is_empty()
    }

    /// Whether nobody has read a byte of the last frame, as far as the system tells.
    pub(crate) fn is_unread(&self) -> bool {
        self.fd.unread() >= self.last
    }
}

/// Frames from a worker, a bounded piece at a time.
#[derive(Debug)]
pub(crate) struct Arriving {
    fd: Fd,
    assembler: Assembler,
}

/// What a step of reading gave.
#[derive(Debug)]
pub(crate) enum Read<M> {
    Frame(Frame<M>),
    /// Nothing complete yet; `more`: there may be more to read at once.
    Part {
        more: bool,
    },
    End,
    Broken(FrameError),
}

impl Arriving {
    /// `limit`: the longest payload that is taken.
    pub(crate) fn new(fd: Fd, limit: u64) -> Self {
        Arriving {
            fd,
            assembler: Assembler::new(limit),
        }
    }

    pub(crate) fn fd(&self) -> &Fd {
        &self.fd
    }

    /// For the frames that follow.
    pub(crate) fn set_limit(&mut self, limit: u64) {
        self.assembler.set_limit(limit);
    }

    /// Reads once into `buffer` and hands every complete frame to `each`.
    pub(crate) fn step<M: DeserializeOwned>(&mut self, buffer: &mut [u8], mut each: impl FnMut(Read<M>)) {
        match self.fd.read(buffer) {
            Ok(Incoming::Bytes(count)) => {
                let mut input = &buffer[..count];
                loop {
                    match self.assembler.feed(&mut input) {
                        Ok(Some(frame)) => each(Read::Frame(frame)),
                        Ok(None) => {
                            return each(Read::Part {
                                more: count == buffer.len(),
                            });
                        }
                        Err(error) => return each(Read::Broken(error)),
                    }
                }
            }
            Ok(Incoming::NothingYet) => each(Read::Part { more: false }),
            // A worker's end in the middle of a frame is told by how the worker ended.
            Ok(Incoming::End) | Err(_) => each(Read::End),
        }
    }
}

fn broken(error: FrameError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{error:?}"))
}

/// Most calls are small, and each page that a fresh worker touches costs as much as a system call.
const FIRST_READ: usize = 4 << 10;
const READ_SIZE: usize = 256 << 10;

/// A payload that is worth a wider pipe.
const LARGE: usize = 256 << 10;
