//! The supervisor's one blocking wait, on epoll.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{Fd, fd};
use crate::sys::{Interest, Ready, Token};

/// Waits on many descriptors at once.
#[derive(Debug)]
pub(crate) struct Poller {
    // Out of the table of own descriptors before it is closed.
    _marked: Marked,
    epoll: Epoll,
    events: Vec<EpollEvent>,
}

/// Ends a [`Poller::wait`] from another thread.
#[derive(Debug)]
pub(crate) struct Waker {
    bell: Fd,
    rung: AtomicBool,
}

impl Poller {
    pub(crate) fn new() -> io::Result<(Poller, Waker)> {
        let epoll = Epoll(fd::above_standard(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?.0));
        let marked = Marked::new(&epoll.0);
        let bell: std::os::fd::OwnedFd =
            EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?.into();
        let waker = Waker {
            bell: Fd::adopt(bell),
            rung: AtomicBool::new(false),
        };
        epoll.add(&waker.bell, EpollEvent::new(EpollFlags::EPOLLIN, WAKER))?;
        let events = vec![EpollEvent::empty(); MOST_EVENTS];
        Ok((
            Poller {
                _marked: marked,
                epoll,
                events,
            },
            waker,
        ))
    }

    pub(crate) fn add(&self, fd: &Fd, token: Token, interest: Interest) -> io::Result<()> {
        let flags = match interest {
            Interest::Readable => EpollFlags::EPOLLIN,
            Interest::Writable => EpollFlags::EPOLLOUT,
        };
        Ok(self.epoll.add(fd.as_fd(), EpollEvent::new(flags, token.0))?)
    }

    pub(crate) fn remove(&self, fd: &Fd) {
        // Fails only for a descriptor that is not there, which is what is wanted.
        let _ = self.epoll.delete(fd.as_fd());
    }

    /// Waits until something is ready, the waker rings, or the deadline passes, and lists what is ready.
    pub(crate) fn wait(
        &mut self,
        waker: &Waker,
        deadline: Option<Instant>,
        ready: &mut Vec<Ready>,
    ) -> io::Result<()> {
        let timeout = match deadline {
            None => EpollTimeout::NONE,
            Some(deadline) => {
                // Rounded up: a wait that ends just before its deadline would be repeated at once.
                let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
                EpollTimeout::try_from(left.min(LONGEST_WAIT)).unwrap_or(EpollTimeout::NONE)
            }
        };
        let count = match self.epoll.wait(&mut self.events, timeout) {
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for event in &self.events[..count] {
            match event.data() {
                WAKER => waker.clear(),
                token => ready.push(Ready { token: Token(token) }),
            }
        }
        Ok(())
    }
}

impl Waker {
    /// Makes the current or the next wait end. One system call for many rings.
    pub(crate) fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            super::os::ring(&self.bell);
        }
    }

    /// Before the inbox is looked at: a ring after this one ends the next wait.
    fn clear(&self) {
        let mut count = [0; 8];
        // An empty counter is what is wanted.
        let _ = self.bell.read(&mut count);
        self.rung.store(false, Ordering::Release);
    }
}

/// Enters a descriptor that another type owns, for as long as this lives.
#[derive(Debug)]
struct Marked(RawFd);

impl Marked {
    fn new(fd: impl AsFd) -> Marked {
        let number = fd.as_fd().as_raw_fd();
        fd::mark(number, true);
        Marked(number)
    }
}

impl Drop for Marked {
    fn drop(&mut self) {
        fd::mark(self.0, false);
    }
}

/// No descriptor's token.
const WAKER: u64 = u64::MAX;

/// How much is handled before the state machine looks at its deadlines again.
const MOST_EVENTS: usize = 256;

const LONGEST_WAIT: Duration = Duration::from_secs(3600);
