//! Python: its process pools, in an interpreter that is told what to measure.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::Fallible;
use crate::copies;
use crate::rounds::{Scale, alternate, check};

/// An interpreter and one of its pools, in a process group of their own.
pub(crate) struct Python {
    process: Option<Child>,
    requests: Option<File>,
    answers: File,
}

impl Python {
    /// `None`: there is no `python3` here, or none that can make a pool of processes.
    pub(crate) fn start(workers: usize, what: &str) -> Fallible<Option<Self>> {
        let script = copies::scratch_file("peers.py");
        // From a file, since some of its start methods import the script again.
        std::fs::write(&script, SCRIPT)?;
        let spawned = Command::new("python3")
            .arg(&script)
            .args([&workers.to_string(), what])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // What it has to say about itself is not ours.
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        let mut process = match spawned {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            spawned => spawned?,
        };
        let requests = process.stdin.take().map(|pipe| File::from(OwnedFd::from(pipe)));
        let answers = process.stdout.take().ok_or("python3 has no pipes")?;
        let mut python = Python {
            process: Some(process),
            requests,
            answers: OwnedFd::from(answers).into(),
        };
        let is_ready = python.read_line().is_ok_and(|line| line == "ready\n");
        Ok(is_ready.then_some(python))
    }

    /// Microseconds for each of `count`.
    pub(crate) fn measure(&mut self, count: u64) -> Fallible<f64> {
        let mut requests = self.requests.as_ref().ok_or("python3 has no pipes")?;
        requests.write_all(format!("{count}\n").as_bytes())?;
        let line = self.read_line()?;
        let (seconds, sum) = line
            .split_once(' ')
            .ok_or_else(|| format!("python3 said {line:?}"))?;
        check(sum.trim().parse::<u64>()?, count * (count - 1) / 2)?;
        Ok(seconds.parse::<f64>()? * 1e6 / count as f64)
    }

    /// The same for each round.
    pub(crate) fn figures(&mut self, scale: Scale, count: u64) -> Fallible<Vec<f64>> {
        let [figures] = alternate(scale.pick(3, 5), [&mut || self.measure(count)])?;
        Ok(figures)
    }

    fn read_line(&mut self) -> Fallible<String> {
        let began = Instant::now();
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let left = LIMIT.saturating_sub(began.elapsed());
            let mut polled = [PollFd::new(self.answers.as_fd(), PollFlags::POLLIN)];
            let limit = PollTimeout::try_from(left).map_err(|_| "too long a limit for poll")?;
            match poll(&mut polled, limit) {
                Ok(0) => return Err(format!("python3 did not answer within {LIMIT:?}").into()),
                Err(errno) if errno != nix::Error::EINTR => return Err(errno.into()),
                _ => {}
            }
            let mut part = [0; 256];
            match self.answers.read(&mut part)? {
                0 => return Err("python3 ended".into()),
                len => line.extend_from_slice(&part[..len]),
            }
        }
        Ok(String::from_utf8(line)?)
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        drop(self.requests.take());
        let Some(process) = self.process.take() else {
            return;
        };
        let group = Pid::from_raw(process.id() as i32);
        // It ends with its requests, pools and all. What does not is a group that holds no process of ours.
        if !matches!(copies::wait(process, Duration::from_secs(10)), Ok(Some(_))) {
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

pub(crate) const MISSING: &str = "there is no python3 here that can make a pool of processes";

const SCRIPT: &str = include_str!("peers.py");
/// For one round.
const LIMIT: Duration = Duration::from_secs(20);
