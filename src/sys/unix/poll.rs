//! The supervisor's one blocking wait, on poll(2).

use std::cell::RefCell;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Fd;
use crate::sys::{Incoming, Interest, Ready, Token};

/// Waits on many descriptors at once. A descriptor is removed before it is closed.
#[derive(Debug)]
pub(crate) struct Poller {
    watched: RefCell<Vec<(libc::pollfd, Token)>>,
    fds: Vec<libc::pollfd>,
}

/// Ends a [`Poller::wait`] from another thread.
#[derive(Debug)]
pub(crate) struct Waker {
    ear: Fd,
    bell: Fd,
    rung: AtomicBool,
}

impl Poller {
    pub(crate) fn new() -> io::Result<(Poller, Waker)> {
        let (ear, bell) = super::pipe()?;
        ear.set_nonblocking()?;
        bell.set_nonblocking()?;
        let poller = Poller {
            watched: RefCell::default(),
            fds: Vec::new(),
        };
        Ok((
            poller,
            Waker {
                ear,
                bell,
                rung: AtomicBool::new(false),
            },
        ))
    }

    #[expect(clippy::unnecessary_wraps, reason = "epoll can fail here")]
    pub(crate) fn add(&self, fd: &Fd, token: Token, interest: Interest) -> io::Result<()> {
        let events = match interest {
            Interest::Readable => libc::POLLIN,
            Interest::Writable => libc::POLLOUT,
        };
        self.watched.borrow_mut().push((pollfd(fd, events), token));
        Ok(())
    }

    pub(crate) fn remove(&self, fd: &Fd) {
        self.watched
            .borrow_mut()
            .retain(|(watched, _)| watched.fd != fd.raw());
    }

    /// Waits until something is ready, the waker rings, or the deadline passes, and lists what is ready.
    pub(crate) fn wait(
        &mut self,
        waker: &Waker,
        deadline: Option<Instant>,
        ready: &mut Vec<Ready>,
    ) -> io::Result<()> {
        let watched = self.watched.get_mut();
        self.fds.clear();
        self.fds.push(pollfd(&waker.ear, libc::POLLIN));
        self.fds.extend(watched.iter().map(|(fd, _)| *fd));
        let timeout = match deadline {
            None => -1,
            Some(deadline) => {
                // Rounded up: a wait that ends just before its deadline would be repeated at once.
                let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
                left.min(LONGEST_WAIT).as_millis() as libc::c_int
            }
        };
        // SAFETY: `fds` is valid for writing for the whole call, in the length that is given.
        let count = unsafe { libc::poll(self.fds.as_mut_ptr(), self.fds.len() as libc::nfds_t, timeout) };
        if count == -1 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted {
                Ok(())
            } else {
                Err(error)
            };
        }
        if self.fds[0].revents != 0 {
            waker.clear();
        }
        let seen = self.fds[1..].iter().zip(watched);
        ready.extend(
            seen.filter(|(fd, _)| fd.revents != 0)
                .map(|(_, (_, token))| Ready { token: *token }),
        );
        Ok(())
    }
}

impl Waker {
    /// Makes the current or the next wait end. One system call for many rings.
    pub(crate) fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            // A full pipe means that the bell rings already.
            let _ = self.bell.write(&[1]);
        }
    }

    /// Before the inbox is looked at: a ring after this one ends the next wait.
    fn clear(&self) {
        let mut bytes = [0; 64];
        while matches!(self.ear.read(&mut bytes), Ok(Incoming::Bytes(_))) {}
        self.rung.store(false, Ordering::Release);
    }
}

fn pollfd(fd: &Fd, events: libc::c_short) -> libc::pollfd {
    libc::pollfd {
        fd: fd.raw(),
        events,
        revents: 0,
    }
}

const LONGEST_WAIT: Duration = Duration::from_secs(3600);
