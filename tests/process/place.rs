//! Where a trial and its tasks meet: three named pipes, which every worker can reach, however it was made.
//!
//! - `said`: lines from tasks to the trial.
//! - `go`: a byte for each task that may go on.
//! - `held`: tasks hold it open; it ends when the last of them is gone, in whatever way.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};

use crate::harness;

/// The tasks' side.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Place(PathBuf);

/// The trial's side.
pub(crate) struct Host {
    place: Place,
    said: BufReader<File>,
    go: File,
    held: File,
}

impl Host {
    pub(crate) fn new() -> Host {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let folder = harness::scratch().join(format!("place-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        std::fs::create_dir(&folder).unwrap();
        for name in ["said", "go", "held"] {
            nix::unistd::mkfifo(&folder.join(name), Mode::from_bits_truncate(0o666)).unwrap();
        }
        let place = Place(folder);
        // For both directions: opening does not wait for tasks, and reading never meets an end.
        let both = |name| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .open(place.0.join(name))
                .unwrap()
        };
        let (said, go) = (both("said"), both("go"));
        let held = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(place.0.join("held"))
            .unwrap();
        // Only the opening was not to wait.
        fcntl(&held, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
        Host {
            place,
            said: BufReader::new(said),
            go,
            held,
        }
    }

    pub(crate) fn place(&self) -> Place {
        self.place.clone()
    }

    pub(crate) fn path(&self) -> &str {
        self.place.0.to_str().unwrap()
    }

    /// The next line that a task said.
    pub(crate) fn hear(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Waits until `count` tasks have arrived; their pids, in order of arrival.
    pub(crate) fn arrivals(&mut self, count: usize) -> Vec<u32> {
        (0..count).map(|_| self.hear().parse().unwrap()).collect()
    }

    pub(crate) fn arrival(&mut self) -> u32 {
        self.arrivals(1)[0]
    }

    /// Whether something was said that nobody has heard yet.
    pub(crate) fn has_news(&mut self) -> bool {
        use std::os::fd::AsFd;
        let mut fds = [nix::poll::PollFd::new(
            self.said.get_ref().as_fd(),
            nix::poll::PollFlags::POLLIN,
        )];
        !self.said.buffer().is_empty() || nix::poll::poll(&mut fds, nix::poll::PollTimeout::ZERO).unwrap() > 0
    }

    /// Lets `count` tasks go on.
    pub(crate) fn release(&mut self, count: usize) {
        self.go.write_all(&vec![b'!'; count]).unwrap();
    }

    /// Waits until everybody who held the place is gone.
    pub(crate) fn wait_until_left(&mut self) {
        assert_eq!(self.held.read_to_end(&mut Vec::new()).unwrap(), 0);
    }

    /// What `said` is written with, for those who have no descriptor to spare.
    pub(crate) fn mouth(&self) -> File {
        self.said.get_ref().try_clone().unwrap()
    }
}

impl Place {
    /// The place of another process, by its path.
    pub(crate) fn at(path: &str) -> Place {
        Place(path.into())
    }

    pub(crate) fn say(&self, line: &str) {
        let mut said = OpenOptions::new().append(true).open(self.0.join("said")).unwrap();
        // One write: lines of several tasks do not mix.
        said.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Open for as long as somebody holds it.
    pub(crate) fn hold(&self) -> File {
        OpenOptions::new().write(true).open(self.0.join("held")).unwrap()
    }

    /// Holds the place for the rest of the process's life, and tells the pid.
    pub(crate) fn arrive(&self) {
        std::mem::forget(self.hold());
        self.say(&std::process::id().to_string());
    }

    /// Waits until the trial releases this task.
    pub(crate) fn wait_for_go(&self) {
        File::open(self.0.join("go"))
            .unwrap()
            .read_exact(&mut [0])
            .unwrap();
    }

    /// A file of its own in the place.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}
