//! Pipes, processes and the fork server, none of which can be made.

use std::ffi::{OsStr, OsString};
use std::io;

use super::unsupported;
use crate::sys::ExitStatus;

/// A type without values.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Never {}

/// One end of a pipe.
#[derive(Debug)]
pub(crate) struct Fd(Never);

/// What reading gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(dead_code, reason = "nothing can be read")]
pub(crate) enum Incoming {
    Bytes(usize),
    NothingYet,
    End,
}

/// The identity of an open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId;

pub(crate) fn pipe() -> io::Result<(Fd, Fd)> {
    Err(unsupported())
}

impl Fd {
    pub(super) fn never(&self) -> ! {
        match self.0 {}
    }

    pub(crate) fn read(&self, _: &mut [u8]) -> io::Result<Incoming> {
        self.never()
    }

    pub(crate) fn read_more(&self, _: &mut Vec<u8>, _: usize) -> io::Result<Incoming> {
        self.never()
    }

    pub(crate) fn lend_pages(&self, _: &[u8]) -> usize {
        self.never()
    }

    pub(crate) fn write(&self, _: &[u8]) -> io::Result<Option<usize>> {
        self.never()
    }

    pub(crate) fn widen(&self) {
        self.never()
    }

    pub(crate) fn unread(&self) -> usize {
        self.never()
    }

    pub(crate) fn write_all(&self, _: &[u8], _: &[u8]) -> io::Result<()> {
        self.never()
    }

    pub(crate) fn set_nonblocking(&self) -> io::Result<()> {
        self.never()
    }

    pub(crate) fn set_blocking(&self, _: bool) -> io::Result<()> {
        self.never()
    }

    pub(crate) fn file_id(&self) -> io::Result<FileId> {
        self.never()
    }

    pub(crate) fn has_input(&self) -> bool {
        self.never()
    }

    pub(crate) fn has_input_within(&self, _: std::time::Duration) -> bool {
        self.never()
    }
}

/// A process that we made.
#[derive(Debug)]
pub(crate) struct Child(Never);

impl Child {
    pub(crate) fn pid(&self) -> u32 {
        match self.0 {}
    }

    pub(crate) fn exit(&self) -> &Fd {
        match self.0 {}
    }

    pub(crate) fn signal(&self, _: bool) {
        match self.0 {}
    }

    pub(crate) fn end(&self) {
        match self.0 {}
    }

    pub(crate) fn try_reap(&self) -> Option<ExitStatus> {
        match self.0 {}
    }
}

/// Where a new process writes its stderr.
#[derive(Debug, Clone, Copy)]
#[expect(dead_code, reason = "nothing is executed")]
pub(crate) enum SpawnStderr<'a> {
    Pipe(&'a Fd),
    Inherit,
    Null,
}

/// What a forked copy is connected to.
#[expect(dead_code, reason = "nothing is forked")]
pub(crate) struct Forked<'a> {
    pub(crate) replies: &'a Fd,
    pub(crate) lifeline: &'a Fd,
    pub(crate) stderr: SpawnStderr<'a>,
}

pub(crate) fn fork_worker(_: &Forked<'_>, _: impl FnOnce(Fd, io::Result<()>)) -> io::Result<Child> {
    Err(unsupported())
}

/// What a re-executed program gets to begin with.
#[expect(dead_code, reason = "nothing is executed")]
pub(crate) enum Boot<'a> {
    Worker {
        cookie: u128,
        calls: &'a Fd,
        replies: &'a Fd,
        lifeline: &'a Fd,
    },
    Server {
        cookie: u128,
        control: &'a Fd,
    },
}

/// How to execute a program as a worker or server.
#[expect(dead_code, reason = "nothing is executed")]
pub(crate) struct Spawn<'a> {
    pub(crate) program: &'a OsStr,
    pub(crate) title: &'a str,
    pub(crate) boot: &'a Boot<'a>,
    pub(crate) environment: &'a [(OsString, OsString)],
    pub(crate) stderr: SpawnStderr<'a>,
}

pub(crate) fn spawn(_: &Spawn<'_>) -> io::Result<Child> {
    Err(unsupported())
}

/// One datagram with what came along.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) bytes: Vec<u8>,
    pub(crate) fds: Vec<Fd>,
}

/// One end of the channel between a program and its fork server.
#[derive(Debug)]
pub(crate) struct Control(Never);

pub(crate) fn control_pair() -> io::Result<(Control, Fd)> {
    Err(unsupported())
}

impl Control {
    pub(crate) fn new(fd: Fd) -> Control {
        fd.never()
    }

    pub(crate) fn fd(&self) -> &Fd {
        match self.0 {}
    }

    pub(crate) fn duplicate(&self) -> io::Result<Fd> {
        match self.0 {}
    }

    pub(crate) fn close(&self) {
        match self.0 {}
    }

    pub(crate) fn holds_back(&self) -> io::Result<bool> {
        match self.0 {}
    }

    pub(crate) fn send(&self, _: &[u8], _: &[Never]) -> io::Result<bool> {
        match self.0 {}
    }

    pub(crate) fn send_launch(&self, _: &[u8], _: &Fd, _: &Fd, _: SpawnStderr<'_>) -> io::Result<bool> {
        match self.0 {}
    }

    pub(crate) fn send_prepare(&self, _: &[u8], _: [&Fd; 4], _: Option<&Fd>) -> io::Result<bool> {
        match self.0 {}
    }

    pub(crate) fn receive(&self) -> io::Result<Option<Request>> {
        match self.0 {}
    }
}

/// What the fork server's one wait gave.
#[expect(dead_code, reason = "there is no fork server")]
pub(crate) enum ServerEvent {
    Request(Request),
    Ended { pid: i32, status: i32 },
    ParentGone,
}

/// The fork server's side of the operating system.
pub(crate) struct ForkServer(Never);

impl ForkServer {
    pub(crate) fn new(control: Control) -> io::Result<ForkServer> {
        match control.0 {}
    }

    pub(crate) fn settle(&mut self) -> io::Result<()> {
        match self.0 {}
    }

    pub(crate) fn next(&mut self) -> io::Result<ServerEvent> {
        match self.0 {}
    }

    pub(crate) fn send(&self, _: &[u8]) -> io::Result<()> {
        match self.0 {}
    }

    pub(crate) fn fork(&self, _: Vec<Fd>, _: impl FnOnce(&Fd, Fd, io::Result<()>)) -> io::Result<i32> {
        match self.0 {}
    }

    pub(crate) fn fork_ready(
        &self,
        _: Vec<Fd>,
        _: bool,
        _: impl FnOnce(&Fd, Fd, Fd, Option<Fd>, io::Result<()>),
    ) -> io::Result<i32> {
        match self.0 {}
    }

    pub(crate) fn signal(&self, _: i32, _: bool) {
        match self.0 {}
    }
}

pub(crate) fn call_pair() -> io::Result<(Fd, Fd)> {
    Err(unsupported())
}

pub(crate) fn send_call(calls: &Fd, _: &[u8]) -> io::Result<()> {
    calls.never()
}

pub(crate) fn touch_code(_: usize) {}

/// What a worker waits at that is ready before its call.
#[derive(Debug)]
pub(crate) struct Gate(Never);

impl Gate {
    pub(crate) fn pair() -> io::Result<(Gate, Fd)> {
        Err(unsupported())
    }

    pub(crate) fn open(&self, _: &[u8], _: Option<SpawnStderr<'_>>) -> io::Result<()> {
        match self.0 {}
    }

    pub(crate) fn is_untouched(&self) -> bool {
        match self.0 {}
    }

    pub(crate) fn pass(far: Fd) -> io::Result<Passed> {
        far.never()
    }
}

pub(crate) struct Passed {
    pub(crate) words: Vec<u8>,
}
