//! The channel between a program and its fork server on Linux: a socket that keeps message boundaries, and tells of the
//! peer's end.

use std::cell::RefCell;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, recvmsg,
    sendmsg,
};

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

/// The next datagram, what of it fits into `buffer`: how long that is, and the descriptors that came along.
pub(super) fn receive_into(fd: &Fd, buffer: &mut [u8]) -> io::Result<Option<(usize, Vec<Fd>)>> {
    let mut space = nix::cmsg_space!([RawFd; 8]);
    let mut pieces = [IoSliceMut::new(buffer)];
    let received = loop {
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        match recvmsg::<UnixAddr>(fd.raw(), &mut pieces, Some(&mut space), flags) {
            Ok(received) => break received,
            Err(nix::errno::Errno::EINTR) => {}
            Err(nix::errno::Errno::EAGAIN) => return Ok(None),
            Err(nix::errno::Errno::ECONNRESET) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => return Err(error.into()),
        }
    };
    let mut fds = Vec::new();
    // Descriptors that do not fit into this process's table are missing, which shows when they are counted.
    for message in received.cmsgs().into_iter().flatten() {
        if let ControlMessageOwned::ScmRights(numbers) = message {
            for number in numbers {
                // SAFETY: the kernel just made this descriptor for this message, for this receiver.
                fds.push(Fd::adopt(unsafe { OwnedFd::from_raw_fd(number) }));
            }
        }
    }
    match received.bytes {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        count => Ok(Some((count, fds))),
    }
}

/// All messages are small: what may be large goes through the worker's pipes.
const LONGEST_DATAGRAM: usize = 16 << 10;
