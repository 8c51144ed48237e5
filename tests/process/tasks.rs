//! Tasks that several themes use.

use std::process::{Child, Command, Stdio};

use inparallel::task;
use serde::{Deserialize, Serialize};

use crate::os;
use crate::place::Place;

#[task]
pub(crate) fn nothing() {}

#[task]
pub(crate) fn own_pid() -> u32 {
    std::process::id()
}

#[task]
pub(crate) fn double(x: u64) -> u64 {
    x * 2
}

/// Arrives, waits to be released, and gives its pid.
#[task]
pub(crate) fn meet(place: Place) -> u32 {
    place.arrive();
    place.wait_for_go();
    std::process::id()
}

/// Starts a process that would run for long, then is as `meet`.
#[task]
pub(crate) fn meet_with_grandchild(place: Place, grandchild: Grandchild) -> u32 {
    let _child = grandchild.start(&place);
    place.arrive();
    place.wait_for_go();
    std::process::id()
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Grandchild {
    Ordinary,
    /// It takes no notice of being asked to end.
    Stubborn,
}

impl Grandchild {
    /// It holds the place by its stdout.
    fn start(self, place: &Place) -> Child {
        let script = match self {
            Grandchild::Ordinary => "exec sleep 1000",
            Grandchild::Stubborn => "trap '' TERM; sleep 1000; sleep 1000",
        };
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", script])
            .stdin(Stdio::null())
            .stdout(place.hold())
            .stderr(Stdio::null());
        command.spawn().unwrap()
    }
}

/// How a task leaves its process.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) enum Death {
    /// `exit`, with its handlers.
    Exit(i32),
    /// `_exit`, without.
    ExitNow(i32),
    Signal(i32),
    Abort,
    Fault,
    StackOverflow,
    Panic,
}

#[task]
pub(crate) fn die(place: Place, how: Death) -> u32 {
    place.arrive();
    how.happen()
}

impl Death {
    pub(crate) fn happen(self) -> u32 {
        match self {
            Death::Exit(code) => std::process::exit(code),
            Death::ExitNow(code) => os::exit_now(code),
            Death::Signal(number) => os::raise(number),
            Death::Abort => std::process::abort(),
            Death::Fault => os::fault(),
            Death::StackOverflow => return deeper(1).into(),
            Death::Panic => panic!("a task that panics"),
        }
        unreachable!("{self:?} was survived")
    }
}

#[expect(unconditional_recursion, reason = "it overflows the stack")]
fn deeper(level: u8) -> u8 {
    let frame = std::hint::black_box([level; 4096]);
    deeper(frame[17].wrapping_add(1)) ^ std::hint::black_box(frame)[5]
}
