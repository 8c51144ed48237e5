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
use super::{Fd, SpawnStderr, retry, worker};
use crate::sys::LONGEST_WORDS;

/// How many workers are kept ready for calls to come.
pub(crate) const READY_WORKERS: usize = 2;

/// The program's side of a gate.
#[derive(Debug)]
pub(crate) struct Gate(Fd);

impl Gate {
    /// The program's side, with a first word in it, and the worker's.
    pub(crate) fn pair() -> io::Result<(Gate, Fd)> {
        let (theirs, ours) = call_pair()?;
        send_call(&ours, FIRST)?;
        Ok((Gate(ours), theirs))
    }

    /// Lets the worker have this program's stdout of now, another stderr than its pipe if `stderr` says so, and these words.
    /// Once.
    ///
    /// # Errors
    ///
    /// The worker is gone, or descriptors cannot be sent now.
    pub(crate) fn open(&self, words: &[u8], stderr: Option<SpawnStderr<'_>>) -> io::Result<()> {
        with_output(stderr, |stdout, stderr| {
            let numbers: Vec<RawFd> = [Some(stdout), stderr]
                .into_iter()
                .flatten()
                .map(|fd: BorrowedFd<'_>| fd.as_raw_fd())
                .collect();
            let rights = [ControlMessage::ScmRights(&numbers)];
            // Descriptors travel with a byte at least.
            let pieces = [IoSlice::new(FIRST), IoSlice::new(words)];
            let flags = MsgFlags::MSG_NOSIGNAL;
            let sent = retry(|| sendmsg::<UnixAddr>(self.0.raw(), &pieces, &rights, flags, None))?;
            all_of(FIRST.len() + words.len(), sent)
        })
    }

    /// Of a worker that has ended: whether it had not gone through.
    pub(crate) fn is_untouched(&self) -> bool {
        // The kernel resets the side of a pair whose words the other one left unread (unix(7) is silent; af_unix.c,
        // unix_release_sock). The first word is there from the beginning.
        getsockopt(&self.0, SocketError) == Ok(libc::ECONNRESET)
    }

    /// The worker's side: from here on it prints to what it was let have. Gives the words, and what may be closed later.
    pub(crate) fn pass(far: Fd) -> io::Result<Passed> {
        let gone = || io::Error::from(io::ErrorKind::UnexpectedEof);
        // On the stack: in a fresh process each page of new memory costs a fault.
        let mut buffer = [0; 2 * FIRST.len() + LONGEST_WORDS];
        let (mut len, mut fds) = receive_into(&far, &mut buffer)?.ok_or_else(gone)?;
        if len == FIRST.len() {
            // Usually what was sent after it comes along (af_unix.c, unix_stream_read_generic: it reads on up to the end of what
            // descriptors came with).
            let (more, with_them) = receive_into(&far, &mut buffer[len..])?.ok_or_else(gone)?;
            len += more;
            fds = with_them;
        }
        // The kernel drops those that do not fit into the table.
        let stdout = fds
            .first()
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EMFILE))?;
        worker::dup2(stdout.raw(), 1)?;
        if let Some(stderr) = fds.get(1) {
            worker::dup2(stderr.raw(), 2)?;
        }
        Ok(Passed {
            words: buffer[..len].get(2 * FIRST.len()..).unwrap_or_default().to_vec(),
            _open: (far, fds),
        })
    }
}

/// What a worker got at its gate.
pub(crate) struct Passed {
    pub(crate) words: Vec<u8>,
    /// Closing them takes longer than receiving them.
    _open: (Fd, Vec<Fd>),
}

/// What lies at the gate from the beginning, and comes before the words once more.
const FIRST: &[u8] = b"go";

/// A channel to a ready worker: the worker's end and the program's, which never blocks. A socket, since
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

/// Has the page of code at `address` there before it is needed, and what the kernel brings in around it. Where pages are
/// larger, or the kernel is older than 5.14, nothing happens.
pub(crate) fn touch_code(address: usize) {
    let page = (address & !0xfff) as *mut libc::c_void;
    // SAFETY: it brings in pages of what is mapped, as reading them would, and fails where nothing is.
    unsafe { libc::madvise(page, 1, libc::MADV_POPULATE_READ) };
}

/// Sends what an empty channel surely takes.
pub(crate) fn send_call(calls: &Fd, frame: &[u8]) -> io::Result<()> {
    let sent = retry(|| send(calls.raw(), frame, MsgFlags::MSG_NOSIGNAL))?;
    all_of(frame.len(), sent)
}

/// What does not go at once does not go at all.
fn all_of(wanted: usize, sent: usize) -> io::Result<()> {
    match sent == wanted {
        true => Ok(()),
        false => Err(io::ErrorKind::WriteZero.into()),
    }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
