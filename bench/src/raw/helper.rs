//! A process that stays small while this one grows: where a pipe leads, and where the least fork is measured.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Fallible;
use crate::raw::fork;
use crate::rounds::check;

/// Blocks in `read` while it has nothing to do. It ends with its requests.
pub(crate) struct Helper {
    process: Child,
    requests: File,
    answers: File,
}

impl Helper {
    /// The argument that makes this program serve as one.
    pub(crate) const ARGUMENT: &str = "--serve-as-helper";

    pub(crate) fn start() -> io::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg(Self::ARGUMENT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        match (process.stdin.take(), process.stdout.take()) {
            (Some(requests), Some(answers)) => Ok(Helper {
                process,
                requests: std::os::fd::OwnedFd::from(requests).into(),
                answers: std::os::fd::OwnedFd::from(answers).into(),
            }),
            _ => Err(io::Error::other("the helper has no pipes")),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What a raw fork costs there, just now.
    pub(crate) fn fork_and_answer(&mut self) -> io::Result<Duration> {
        Ok(Duration::from_nanos(self.ask(FORK)?))
    }

    /// Eight bytes there and back: the blocking ping-pong over two pipes.
    pub(crate) fn round_trip(&mut self, x: u64) -> Fallible<Duration> {
        let began = Instant::now();
        let answer = self.ask(x)?;
        let elapsed = began.elapsed();
        check(answer, x)?;
        Ok(elapsed)
    }

    fn ask(&mut self, request: u64) -> io::Result<u64> {
        self.requests.write_all(&request.to_ne_bytes())?;
        let mut answer = [0; 8];
        self.answers.read_exact(&mut answer)?;
        Ok(u64::from_ne_bytes(answer))
    }

    /// The helper's whole life.
    pub(crate) fn serve() -> io::Result<()> {
        // Not those of the standard library, which have buffers.
        let mut requests = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        let mut answers = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let mut request = [0; 8];
        loop {
            match requests.read_exact(&mut request) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                ended => ended?,
            }
            let answer = match u64::from_ne_bytes(request) {
                FORK => fork::fork_and_answer()?.as_nanos() as u64,
                x => x,
            };
            answers.write_all(&answer.to_ne_bytes())?;
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const FORK: u64 = u64::MAX;
