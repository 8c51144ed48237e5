//! What a process holds: descriptors, threads, children.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::poll::PollTimeout;

use crate::Fallible;
use crate::rounds::check;
use crate::tasks::{close, same, warm_pool};

/// What this process holds when the library has been used once: a supervisor, a fork server.
pub(crate) struct Held {
    descriptors: usize,
    threads: usize,
}

impl Held {
    pub(crate) fn once_warm(workload: &str) -> Fallible<Self> {
        if workload != "startup" {
            check(same(1).wait()?, 1)?;
            close(warm_pool(1)?)?;
        }
        Ok(Held::now()?)
    }

    fn now() -> io::Result<Self> {
        Ok(Held {
            descriptors: descriptors()?,
            threads: fs::read_dir("/proc/self/task")?.count(),
        })
    }

    /// Whether no more is held now. What is about to end has some seconds for it.
    pub(crate) fn check(&self) -> Fallible<()> {
        let began = Instant::now();
        loop {
            let now = Held::now()?;
            let is_more = now.descriptors > self.descriptors + AT_HAND || now.threads > self.threads;
            let zombies = zombies()?;
            if !is_more && zombies == 0 {
                return Ok(());
            }
            if began.elapsed() > Duration::from_secs(5) {
                return Err(format!(
                    "descriptors {} -> {}, threads {} -> {}, zombies {zombies}",
                    self.descriptors, now.descriptors, self.threads, now.threads
                )
                .into());
            }
            rest(Duration::from_millis(10))?;
        }
    }
}

pub(crate) fn descriptors() -> io::Result<usize> {
    Ok(fs::read_dir("/proc/self/fd")?.count())
}

/// Processes whose parent is this one.
pub(crate) fn children() -> io::Result<Vec<i32>> {
    children_of(std::process::id() as i32)
}

pub(crate) fn children_of(pid: i32) -> io::Result<Vec<i32>> {
    let mut pids = Vec::new();
    for thread in threads_of(pid)? {
        // A thread that has ended meanwhile has left its children to another one.
        let children = fs::read_to_string(thread.join("children")).unwrap_or_default();
        let children = children
            .split_whitespace()
            .filter_map(|pid| pid.parse::<i32>().ok());
        pids.extend(children);
    }
    Ok(pids)
}

/// Where the kernel tells of each thread.
pub(crate) fn threads_of(pid: i32) -> io::Result<Vec<PathBuf>> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"))?;
    threads.map(|thread| Ok(thread?.path())).collect()
}

/// The value of a line `name:   value kB` of a file of /proc.
pub(crate) fn field(path: &str, name: &str) -> Fallible<f64> {
    let text = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let value = line.and_then(|line| line.split_whitespace().next());
    Ok(value.ok_or_else(|| format!("{path}: no {name}"))?.parse()?)
}

pub(crate) fn command_of(pid: i32) -> String {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&command)
        .replace('\0', " ")
        .trim_end()
        .to_owned()
}

/// Lets time pass without work.
pub(crate) fn rest(time: Duration) -> io::Result<()> {
    let limit = PollTimeout::try_from(time).map_err(|_| io::Error::other("too long a rest for poll"))?;
    match nix::poll::poll(&mut [], limit) {
        Ok(_) | Err(nix::Error::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn zombies() -> io::Result<usize> {
    let is_zombie = |pid: &i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("State:\tZ"))
    };
    Ok(children()?.iter().filter(|pid| is_zombie(pid)).count())
}

/// So many descriptors may come and go with what is kept ready for the next call.
const AT_HAND: usize = 8;
