//! The gate of a worker that is ready before its call: what the program prints to at the call's moment passes through it, and
//! it tells whether the worker has begun.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use nix::sys::socket::sockopt::SocketError;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, getsockopt, send, sendmsg,
    socketpair,
};

use super::control::receive_into;
use super::server::with_output;
use super::{Fd, SpawnStderr, control_pair, retry, worker};

/// How many workers are kept ready for calls to come.
pub(crate) const READY_WORKERS: usize = 2;

/// The program's side of a gate.
#[derive(Debug)]
pub(crate) struct Gate(Fd);

impl Gate {
    /// The program's side and the worker's.
    pub(crate) fn pair() -> io::Result<(Gate, Fd)> {
        let (ours, theirs) = control_pair()?;
        Ok((Gate(ours.into_fd()), theirs))
    }

    /// Lets the worker have this program's stdout of now, and another stderr than its pipe if `stderr` says so. Once.
    ///
    /// # Errors
    ///
    /// The worker is gone, or descriptors cannot be sent now.
    pub(crate) fn open(&self, stderr: Option<SpawnStderr<'_>>) -> io::Result<()> {
        with_output(stderr, |stdout, stderr| {
            let numbers: Vec<RawFd> = [Some(stdout), stderr]
                .into_iter()
                .flatten()
                .map(|fd: BorrowedFd<'_>| fd.as_raw_fd())
                .collect();
            let rights = [ControlMessage::ScmRights(&numbers)];
            let pieces = [IoSlice::new(b"go")];
            let flags = MsgFlags::MSG_NOSIGNAL;
            retry(|| sendmsg::<UnixAddr>(self.0.raw(), &pieces, &rights, flags, None)).map(|_| ())
        })
    }

    /// Of a worker that has ended after the gate was opened: whether it had not gone through.
    pub(crate) fn is_untouched(&self) -> bool {
        // The kernel resets the side of a pair whose words the other one left unread (unix(7) is silent; af_unix.c,
        // unix_release_sock).
        getsockopt(&self.0, SocketError) == Ok(libc::ECONNRESET)
    }

    /// The worker's side: from here on it prints to what it was let have.
    pub(crate) fn pass(far: Fd) -> io::Result<()> {
        let gone = || io::Error::from(io::ErrorKind::UnexpectedEof);
        // On the stack: in a fresh process each page of new memory costs a fault.
        let (_, fds) = receive_into(&far, &mut [0; 8])?.ok_or_else(gone)?;
        let mut fds = fds.into_iter();
        // The kernel drops those that do not fit into the table.
        let stdout = fds
            .next()
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EMFILE))?;
        worker::dup2(stdout.raw(), 1)?;
        match fds.next() {
            Some(stderr) => worker::dup2(stderr.raw(), 2),
            None => Ok(()),
        }
    }
}

/// The channel by which a ready worker gets its call: the worker's end and the program's, which never blocks. A socket, since
/// any thread may write to it, and a pipe without a reader raises a signal that may end a program.
pub(crate) fn call_pair() -> io::Result<(Fd, Fd)> {
    let (theirs, ours) = socketpair(
        AddressFamily::Unix,
        SockType::Stream,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?;
    let ours = Fd::adopt(ours);
    ours.set_nonblocking()?;
    Ok((Fd::adopt(theirs), ours))
}

/// Sends what an empty channel surely takes.
pub(crate) fn send_call(calls: &Fd, frame: &[u8]) -> io::Result<()> {
    retry(|| send(calls.raw(), frame, MsgFlags::MSG_NOSIGNAL)).map(|_| ())
}
