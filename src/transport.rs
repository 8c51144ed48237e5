//! Frames over descriptors: blocking in a worker, a piece at a time in the supervisor.

use std::collections::VecDeque;
use std::io;
use std::sync::LazyLock;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::payload::Payload;
use crate::sys::{self, Fd, Incoming};
use crate::wire::{self, Assembler, Attached, Call, Frame, FrameError, ToWorker};

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

    /// Whether something comes within that time, if only the end.
    pub(crate) fn is_there_within(&self, limit: Duration) -> bool {
        !self.unused.is_empty() || self.fd.has_input_within(limit)
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
            let gap = read_into_gap(self.fd, &mut self.assembler);
            let is_in_place = gap.is_some();
            match gap.unwrap_or_else(|| self.fd.read(&mut self.buffer))? {
                Incoming::Bytes(_) if is_in_place => {}
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
    if payload.len() < LARGE {
        return fd.write_all(&head, payload);
    }
    fd.widen();
    if payload.len() < WORTH_LENDING {
        return fd.write_all(&head, payload);
    }
    fd.write_all(&head, &[])?;
    let lent = fd.lend_pages(payload);
    fd.write_all(&payload[lent..], &[])
}

/// Reads once into a long payload that is arriving, if one is.
fn read_into_gap(fd: &Fd, assembler: &mut Assembler) -> Option<io::Result<Incoming>> {
    let gap = assembler.gap()?;
    if gap.is_new {
        sys::prefer_large_pages(gap.bytes);
    }
    Some(fd.read_more(gap.bytes, gap.missing.min(MOST_AT_ONCE)))
}

/// Frames on their way to a worker.
#[derive(Debug)]
pub(crate) struct Outgoing {
    fd: Fd,
    frames: VecDeque<OutgoingFrame>,
    /// Of the first frame.
    written: usize,
    /// Of the last frame that was begun.
    last: usize,
    /// The worker has said that it cannot open what is attached to a call.
    by_bytes: bool,
    /// The last call that has something attached which the worker opens, until it has answered.
    held: Option<(Call, Payload)>,
}

#[derive(Debug)]
struct OutgoingFrame {
    head: Vec<u8>,
    payload: Payload,
    /// Which of what is attached goes behind it.
    behind: Vec<usize>,
}

impl OutgoingFrame {
    /// What is to be written after so many bytes of the frame. Empty: nothing.
    fn rest(&self, mut written: usize) -> &[u8] {
        let attached = self.payload.attached();
        let behind = self.behind.iter().map(|index| &*attached[*index]);
        for piece in [&self.head, &*self.payload].into_iter().chain(behind) {
            match written.checked_sub(piece.len()) {
                None => return &piece[written..],
                Some(more) => written = more,
            }
        }
        &[]
    }
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
            by_bytes: false,
            held: None,
        }
    }

    pub(crate) fn fd(&self) -> &Fd {
        &self.fd
    }

    /// Adds a call. [`step`](Outgoing::step) writes it.
    pub(crate) fn push(&mut self, mut call: Call, payload: &Payload) -> Result<(), String> {
        call.attached = payload.describe(self.by_bytes);
        let mut behind = Vec::new();
        let mut len = payload.len();
        for (index, one) in call.attached.iter().enumerate() {
            if matches!(one, Attached::Behind { .. }) {
                behind.push(index);
                len += payload.attached()[index].len();
            }
        }
        let is_held = behind.len() < call.attached.len();
        let call = ToWorker::Call(call);
        let head = wire::frame_head(&call, len)?;
        self.push_all(head, payload.clone(), behind, len);
        if is_held && let ToWorker::Call(call) = call {
            payload.lend();
            self.held = Some((call, payload.clone()));
        }
        Ok(())
    }

    /// Adds a frame that has nothing attached.
    pub(crate) fn push_frame(&mut self, head: Vec<u8>, payload: Payload) {
        let len = payload.len();
        self.push_all(head, payload, Vec::new(), len);
    }

    fn push_all(&mut self, head: Vec<u8>, payload: Payload, behind: Vec<usize>, len: usize) {
        if len >= LARGE {
            self.fd.widen();
        }
        self.frames.push_back(OutgoingFrame {
            head,
            payload,
            behind,
        });
        self.last = 0;
    }

    /// Adds the last call once more, with the bytes that the worker cannot open. False: it was asked to open none.
    pub(crate) fn push_bytes(&mut self) -> bool {
        let Some((mut call, payload)) = self.held.take() else {
            return false;
        };
        self.by_bytes = true;
        // One that stood on the board has its turn now, and is known.
        call.is_posted = false;
        call.remember = None;
        self.push(call, &payload).is_ok()
    }

    /// Memory of an argument of the call that is held, with room for a result of this length.
    pub(crate) fn take_emptied(&self, len: usize) -> Option<Vec<u8>> {
        self.held
            .as_ref()
            .and_then(|(_, payload)| payload.take_emptied(len))
    }

    /// Whether a call is held that its worker opens, or has opened.
    pub(crate) fn is_holding(&self) -> bool {
        self.held.is_some()
    }

    /// The worker has answered the last call. `has_let_go`: it cannot have kept anything of what it opened; asked if that
    /// matters.
    pub(crate) fn answered(&mut self, has_let_go: impl FnOnce() -> bool) {
        if let Some((_, payload)) = self.held.take()
            && payload.is_used_again()
            && has_let_go()
        {
            payload.take_back();
        }
    }

    /// Writes as much as fits.
    pub(crate) fn step(&mut self) -> Written {
        while let Some(frame) = self.frames.front() {
            let rest = frame.rest(self.written);
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

    /// Has the worker look at its board, if nothing lies in the pipe that has it do so.
    pub(crate) fn ring(&self) {
        static BELL: LazyLock<Vec<u8>> =
            LazyLock::new(|| wire::frame_head(&ToWorker::Bell, 0).unwrap_or_default());
        if self.frames.is_empty() {
            // Whole or not at all, as it is short. A full pipe rings too, and a closed one has no worker.
            let _ = self.fd.write(&BELL);
        }
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

    /// Whether nothing of the next frame has come.
    pub(crate) fn is_at_start(&self) -> bool {
        self.assembler.is_at_start()
    }

    /// For the frames that follow.
    pub(crate) fn set_limit(&mut self, limit: u64) {
        self.assembler.set_limit(limit);
    }

    /// How long the payload is that is arriving, if it is a large one and there is no memory yet but for its beginning.
    pub(crate) fn wants_room(&self) -> Option<usize> {
        self.assembler.wants_room()
    }

    /// Memory for it.
    pub(crate) fn take_room(&mut self, room: Vec<u8>) {
        self.assembler.take_room(room);
    }

    /// Reads once into `buffer` and hands every complete frame to `each`. `limit` is asked, after the read, how long payloads
    /// may be from here on.
    pub(crate) fn step<M: DeserializeOwned>(
        &mut self,
        buffer: &mut [u8],
        limit: impl FnOnce() -> Option<u64>,
        mut each: impl FnMut(Read<M>),
    ) {
        let gap = read_into_gap(&self.fd, &mut self.assembler);
        let is_in_place = gap.is_some();
        match gap.unwrap_or_else(|| self.fd.read(buffer)) {
            Ok(Incoming::Bytes(count)) => {
                if let Some(limit) = limit() {
                    self.assembler.set_limit(limit);
                }
                let mut input = if is_in_place { &[][..] } else { &buffer[..count] };
                loop {
                    match self.assembler.feed(&mut input) {
                        Ok(Some(frame)) => each(Read::Frame(frame)),
                        Ok(None) => {
                            return each(Read::Part {
                                more: count >= buffer.len(),
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

/// A payload of which the pages are sent, not copies: several times what a pipe holds.
const WORTH_LENDING: usize = 4 << 20;

/// One step of the supervisor reads no more than this, whatever a pipe holds.
const MOST_AT_ONCE: usize = 512 << 10;
