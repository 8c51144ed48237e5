//! The channel between a program and its fork server on Linux: a socket that keeps message boundaries, and tells of the
//! peer's end.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg};

use super::{Fd, Request, retry};

/// One end of the channel: datagrams in order, with descriptors, and an end.
#[derive(Debug)]
pub(crate) struct Control {
    fd: Fd,
    /// Where messages arrive. Kept: in a process that forks, each page that is written to anew costs a fault.
    buffer: RefCell<Vec<u8>>,
}

/// The program's end, which never blocks, and the server's end.
pub(crate) fn control_pair() -> io::Result<(Control, Fd)> {
    let (ours, theirs) = nix::sys::socket::socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?;
    let ours = Fd::adopt(ours);
    ours.set_nonblocking()?;
    Ok((Control::new(ours), Fd::adopt(theirs)))
}

impl Control {
    pub(crate) fn new(fd: Fd) -> Control {
        Control {
            fd,
            buffer: RefCell::default(),
        }
    }

    pub(crate) fn fd(&self) -> &Fd {
        &self.fd
    }

    /// Ends the channel for both sides.
    pub(crate) fn close(&self) {
        // If the other side has ended it, that is what is wanted.
        let _ = nix::sys::socket::shutdown(self.fd().raw(), nix::sys::socket::Shutdown::Both);
    }

    /// Sends a datagram; false: no room now.
    pub(crate) fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<bool> {
        let numbers: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&numbers)];
        let rights = if numbers.is_empty() { &[][..] } else { &rights[..] };
        let pieces = [IoSlice::new(bytes)];
        let flags = MsgFlags::MSG_NOSIGNAL;
        match retry(|| sendmsg::<UnixAddr>(self.fd.raw(), &pieces, rights, flags, None)) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether a part of what was sent waits for room: a datagram is sent as a whole or not at all.
    pub(crate) fn holds_back(&self) -> io::Result<bool> {
        Ok(false)
    }

    /// The next datagram; `Ok(None)`: nothing now. The other end being gone is `UnexpectedEof`.
    pub(crate) fn receive(&self) -> io::Result<Option<Request>> {
        let buffer = &mut *self.buffer.borrow_mut();
        buffer.resize(LONGEST_DATAGRAM, 0);
        let received = receive_into(&self.fd, buffer)?;
        Ok(received.map(|(count, fds)| Request {
            bytes: buffer[..count].to_vec(),
            fds,
        }))
    }
}

/// The next datagram, or of a stream what is there up to the end of what descriptors came with, as far as it fits into `buffer`: how long that is, and the descriptors that
/// came along. Those that do not fit into this process's table are missing, which shows when they are counted.
pub(super) fn receive_into(fd: &Fd, buffer: &mut [u8]) -> io::Result<Option<(usize, Vec<Fd>)>> {
    let mut space = Space([0; SPACE]);
    let mut piece = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: all zeros is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut piece;
    message.msg_iovlen = 1;
    message.msg_control = space.0.as_mut_ptr().cast();
    message.msg_controllen = SPACE as _;
    let received = retry(|| {
        // SAFETY: the header names memory that is ours alone, in the lengths that it has.
        let count = unsafe { libc::recvmsg(fd.raw(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
        nix::errno::Errno::result(count)
    });
    let count = match received {
        Ok(count) => usize::try_from(count).unwrap_or(0),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Err(error) => return Err(error),
    };
    // By hand: nix's reader gives none of them when some did not fit, and they would stay open.
    let mut fds = Vec::new();
    // SAFETY: the kernel has filled in the header and the space that it names.
    let mut head = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !head.is_null() {
        // SAFETY: a head that the macros give lies in the space, and was written by the kernel.
        let about = unsafe { head.read() };
        // SAFETY: the macro only adds.
        let data = unsafe { libc::CMSG_DATA(head) };
        // SAFETY: as above.
        let bytes = about
            .cmsg_len
            .saturating_sub(unsafe { libc::CMSG_LEN(0) } as usize);
        if about.cmsg_type == libc::SCM_RIGHTS {
            for nth in 0..bytes / size_of::<RawFd>() {
                let place = data.cast::<RawFd>().wrapping_add(nth);
                // SAFETY: so many numbers stand there, wherever that is aligned.
                let number = unsafe { place.read_unaligned() };
                // SAFETY: the kernel just made this descriptor for this message, for this receiver.
                fds.push(Fd::adopt(unsafe { OwnedFd::from_raw_fd(number) }));
            }
        }
        // SAFETY: as for the first.
        head = unsafe { libc::CMSG_NXTHDR(&raw const message, head) };
    }
    match count {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        count => Ok(Some((count, fds))),
    }
}

/// Where the kernel writes descriptors: room for eight, and where it wants a head to stand.
#[repr(C, align(8))]
struct Space([u8; SPACE]);

// SAFETY: the macro only adds.
const SPACE: usize = unsafe { libc::CMSG_SPACE(8 * size_of::<RawFd>() as u32) } as usize;

/// All messages are small: what may be large goes through the worker's pipes.
const LONGEST_DATAGRAM: usize = 16 << 10;

#[cfg(test)]
#[path = "seqpacket_tests.rs"]
mod tests;
