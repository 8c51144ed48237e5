//! Where no memory is shared with workers: calls and answers go through the pipes.
//!
//! The types have no values. Their functions are there for the layers above, and are never run.

use std::convert::Infallible;
use std::io;
use std::ops::Deref;
use std::time::{Duration, Instant};

use super::{Board, Fd, Word};
use crate::ids::BoardName;

#[derive(Debug)]
pub(crate) struct SharedBoard(Infallible);

impl SharedBoard {
    pub(crate) fn new() -> io::Result<(SharedBoard, Fd, BoardName)> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn with_fd() -> io::Result<(SharedBoard, Fd)> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn of_fd(_: &Fd) -> io::Result<SharedBoard> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn open(_: &BoardName) -> io::Result<SharedBoard> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Deref for SharedBoard {
    type Target = Board;

    fn deref(&self) -> &Board {
        match self.0 {}
    }
}

#[derive(Debug)]
pub(crate) struct ForkMark(Infallible);

impl ForkMark {
    pub(crate) fn new() -> io::Result<ForkMark> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn is_copy(&self) -> bool {
        match self.0 {}
    }
}

pub(crate) fn sleep_on_words(_: (&Word, u32), _: (&Word, u32), _: Option<Instant>) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn sleep_on_shared(_: &Word, _: u32, _: Option<Duration>) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn core() -> u32 {
    0
}

pub(crate) fn wake_shared(_: &Word) {}

pub(crate) fn wake_own(_: &Word) {}
