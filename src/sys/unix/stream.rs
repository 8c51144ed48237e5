//! The channel between a program and its fork server where it is a stream: messages with a head, put together again by
//! the receiver.
//!
//! macOS has no sequenced packets for Unix sockets (`EPROTONOSUPPORT`), and its datagrams will not do: one that finds no
//! room is lost, though poll(2) says that there is room, and nobody who waits learns that the peer is gone (XNU's
//! `uipc_send` and `unp_drop`).
//!
//! ```text
//! 4 bytes   length of the message
//! 1 byte    how many descriptors come with it, at its first byte; or 255: yours have arrived
//! ..        the message
//! ```
//!
//! Who sends descriptors keeps its own until they have arrived: a descriptor that is closed on the way may arrive closed
//! (sendmsg(2) of macOS and the BSDs, "Bugs"; nodejs/node#7512).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::sockopt::{RcvBuf, SndBuf};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, recvmsg,
    sendmsg, setsockopt, socketpair,
};

use super::{Fd, Request, os, retry};

/// One end of the channel: messages in order, with descriptors, and an end.
#[derive(Debug)]
pub(crate) struct Control {
    fd: Fd,
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The message that is arriving, with its head.
    arriving: Vec<u8>,
    /// Descriptors that have arrived, for this message and those after it.
    arrived: VecDeque<Fd>,
    /// The end of a message that the channel did not take at once.
    rest: Vec<u8>,
    /// Descriptors of each message whose arrival is not told yet.
    on_the_way: VecDeque<Vec<Fd>>,
}

/// The program's end, which never blocks, and the server's end.
pub(crate) fn control_pair() -> io::Result<(Control, Fd)> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::empty())?;
    for end in [&ours, &theirs] {
        os::close_on_exec(end)?;
        os::no_sigpipe(end)?;
        // More than the longest message: the handshake must fit before there is a reader. macOS begins with 8 KiB.
        setsockopt(end, SndBuf, &(4 * LONGEST_MESSAGE))?;
        setsockopt(end, RcvBuf, &(4 * LONGEST_MESSAGE))?;
    }
    let ours = Fd::adopt(ours);
    ours.set_nonblocking()?;
    Ok((Control::new(ours), Fd::adopt(theirs)))
}

impl Control {
    /// Ends the channel for both sides.
    pub(crate) fn close(&self) {
        // If the other side has ended it, that is what is wanted.
        let _ = nix::sys::socket::shutdown(self.fd().raw(), nix::sys::socket::Shutdown::Both);
    }

    pub(crate) fn new(fd: Fd) -> Control {
        Control {
            fd,
            state: RefCell::default(),
        }
    }

    pub(crate) fn fd(&self) -> &Fd {
        &self.fd
    }

    /// Sends a message; false: no room now. Of one that was sent, the end may wait for room: see
    /// [`holds_back`](Control::holds_back).
    pub(crate) fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<bool> {
        if bytes.len() > LONGEST_MESSAGE || fds.len() > MOST_DESCRIPTORS {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "too long for the channel to the fork server",
            ));
        }
        if self.holds_back()? {
            return Ok(false);
        }
        let kept = fds.iter().map(os::duplicate).collect::<io::Result<Vec<Fd>>>()?;
        let numbers: Vec<RawFd> = kept.iter().map(Fd::raw).collect();
        let head = head(bytes.len(), fds.len() as u8);
        let Some(sent) = self.put(&head, bytes, &numbers)? else {
            return Ok(false);
        };
        let state = &mut *self.state.borrow_mut();
        state.rest.extend(head.iter().chain(bytes).skip(sent));
        if !kept.is_empty() {
            state.on_the_way.push_back(kept);
        }
        Ok(true)
    }

    /// Sends what an earlier message has left over; whether some of it still waits for room.
    pub(crate) fn holds_back(&self) -> io::Result<bool> {
        let rest = &mut self.state.borrow_mut().rest;
        while !rest.is_empty() {
            match self.put(rest, &[], &[])? {
                Some(sent) => _ = rest.drain(..sent),
                None => return Ok(true),
            }
        }
        Ok(false)
    }

    fn put(&self, first: &[u8], second: &[u8], numbers: &[RawFd]) -> io::Result<Option<usize>> {
        let rights = [ControlMessage::ScmRights(numbers)];
        let rights = if numbers.is_empty() { &[][..] } else { &rights[..] };
        let pieces = [IoSlice::new(first), IoSlice::new(second)];
        match retry(|| sendmsg::<UnixAddr>(self.fd.raw(), &pieces, rights, os::NO_SIGNAL, None)) {
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The next message; `Ok(None)`: nothing complete now. The other end being gone is `UnexpectedEof`.
    pub(crate) fn receive(&self) -> io::Result<Option<Request>> {
        loop {
            let missing = self.state.borrow().missing()?;
            if missing > 0 {
                // Never more than to the message's end: of what this process has read already, no wait tells.
                match self.read(missing)? {
                    true => continue,
                    false => return Ok(None),
                }
            }
            let (request, count) = self.state.borrow_mut().take()?;
            if count == ARRIVED {
                self.state.borrow_mut().on_the_way.pop_front();
                continue;
            }
            if count > 0 {
                self.state.borrow_mut().rest.extend(head(0, ARRIVED));
                // If the program is gone, the next read tells.
                let _ = self.holds_back();
            }
            return Ok(Some(request));
        }
    }

    /// Reads once, without waiting; whether there was anything.
    fn read(&self, most: usize) -> io::Result<bool> {
        let mut bytes = vec![0; most];
        let mut space = nix::cmsg_space!([RawFd; MOST_DESCRIPTORS]);
        let state = &mut *self.state.borrow_mut();
        let count = {
            let mut pieces = [IoSliceMut::new(&mut bytes)];
            let received = loop {
                match recvmsg::<UnixAddr>(
                    self.fd.raw(),
                    &mut pieces,
                    Some(&mut space),
                    MsgFlags::MSG_DONTWAIT,
                ) {
                    Ok(received) => break received,
                    Err(Errno::EINTR) => {}
                    Err(Errno::EAGAIN) => return Ok(false),
                    Err(Errno::ECONNRESET) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Err(error) => return Err(error.into()),
                }
            };
            for message in received.cmsgs()? {
                if let ControlMessageOwned::ScmRights(numbers) = message {
                    for number in numbers {
                        // SAFETY: the kernel just made this descriptor for this message, for this receiver.
                        let fd = unsafe { OwnedFd::from_raw_fd(number) };
                        // macOS has no flag that does it in one step. The server, which gets them, has one thread.
                        os::close_on_exec(&fd)?;
                        state.arrived.push_back(Fd::adopt(fd));
                    }
                }
            }
            received.bytes
        };
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        state.arriving.extend_from_slice(&bytes[..count]);
        Ok(true)
    }
}

impl State {
    /// How many bytes are missing to the end of the head, or of the message.
    fn missing(&self) -> io::Result<usize> {
        let Some(([a, b, c, d, _], message)) = self.arriving.split_first_chunk::<HEAD>() else {
            return Ok(HEAD - self.arriving.len());
        };
        match u32::from_le_bytes([*a, *b, *c, *d]) as usize {
            len if len <= LONGEST_MESSAGE => Ok(len - message.len()),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a message that is too long",
            )),
        }
    }

    /// The complete message, and the last byte of its head.
    fn take(&mut self) -> io::Result<(Request, u8)> {
        let bytes = self.arriving.split_off(HEAD);
        let count = std::mem::take(&mut self.arriving)[HEAD - 1];
        let with_it = if count == ARRIVED { 0 } else { usize::from(count) };
        if with_it > self.arrived.len() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "descriptors went missing",
            ));
        }
        Ok((
            Request {
                bytes,
                fds: self.arrived.drain(..with_it).collect(),
            },
            count,
        ))
    }
}

fn head(len: usize, count: u8) -> [u8; HEAD] {
    let [a, b, c, d] = (len as u32).to_le_bytes();
    [a, b, c, d, count]
}

const HEAD: usize = 5;

/// In the place of a number of descriptors: those that you sent, the longest ago, are here.
const ARRIVED: u8 = 255;

/// What may be large goes through the worker's pipes.
const LONGEST_MESSAGE: usize = 16 << 10;

const MOST_DESCRIPTORS: usize = 8;
