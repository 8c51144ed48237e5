//! The event loop's dealings with the pipes of workers: replies, messages and stderr come in, calls go out.

use crate::ids::WorkerId;
use crate::options::Stderr;
use crate::supervisor::event_loop::{Channel, EventLoop};
use crate::supervisor::state::{Event, Why};
use crate::sys::{Incoming, Interest};
use crate::transport::{Outgoing, Read, Written};
use crate::wire::{Frame, FrameError, Reply, Report};

impl EventLoop {
    /// Reads everything that a dead worker left in its pipes; no more comes after it.
    pub(super) fn drain(&mut self, id: WorkerId) {
        self.read_replies(id, READS_TO_DRAIN);
        self.read_stderr(id, READS_TO_DRAIN);
    }

    pub(super) fn read_replies(&mut self, id: WorkerId, most: usize) {
        // A dead worker's messages are read to the end, whoever takes them.
        let is_draining = most == READS_TO_DRAIN;
        for _ in 0..most {
            let mut events = Vec::new();
            let mut go_on = false;
            let mut is_over = false;
            let Some(worker) = self.workers.get_mut(&id) else {
                return;
            };
            let Some(lines) = &mut worker.lines else {
                return;
            };
            if worker.is_paused && !is_draining {
                return;
            }
            let (slot, answer, pid) = (&worker.slot, &mut worker.answer, &mut None);
            let mut is_full = false;
            let is_being_called = lines.calls.as_ref().is_some_and(Outgoing::is_pending);
            lines.replies.step(&mut self.buffer, |read| match read {
                Read::Frame(Frame {
                    message: Report { pid: speaker, reply },
                    payload,
                }) => {
                    *pid = Some(speaker);
                    match (reply, slot) {
                        (Reply::Ready, _) => {
                            lines.is_up = true;
                            events.push(Event::Launched);
                        }
                        (Reply::Lingers, _) => events.push(Event::Lingers),
                        // What comes after the answer concerns nobody.
                        (Reply::Message, Some(slot)) if answer.is_none() => is_full |= !slot.deliver(payload),
                        (Reply::Progress { done, total }, Some(slot)) if answer.is_none() => {
                            slot.set_progress(done, total);
                        }
                        (Reply::Message | Reply::Progress { .. }, _) => {}
                        // It has not even read what it answers.
                        _ if is_being_called => {
                            is_over = true;
                            let what = "it answered a call that it had not read".to_owned();
                            events.push(Event::Broken(Why::Garbage(what)));
                        }
                        (reply, _) => {
                            if answer.is_none() {
                                *answer = Some((reply, payload));
                                events.push(Event::Replied);
                            }
                        }
                    }
                }
                Read::Part { more } => go_on = more,
                Read::End => {
                    is_over = true;
                    events.push(Event::Closed);
                }
                Read::Broken(FrameError::Garbage(what)) => {
                    is_over = true;
                    events.push(Event::Broken(Why::Garbage(what)));
                }
                Read::Broken(FrameError::TooLarge { len, limit }) => {
                    is_over = true;
                    events.push(Event::Broken(Why::TooLarge { len, limit }));
                }
            });
            // With its answer the task has no more to say, and a pool's worker goes on with another.
            is_full &= answer.is_none();
            if is_over || is_full && !worker.is_paused {
                self.poller.remove(lines.replies.fd());
            }
            worker.is_paused |= is_full;
            if let Some(pid) = *pid {
                worker.set_first_pid(id, pid);
            }
            for event in events {
                self.tell(id, event);
            }
            if is_over || !go_on {
                return;
            }
        }
    }

    pub(super) fn read_stderr(&mut self, id: WorkerId, most: usize) {
        for _ in 0..most {
            let Some(worker) = self.workers.get_mut(&id) else {
                return;
            };
            let Some(stderr) = worker.lines.as_mut().and_then(|lines| lines.stderr.as_mut()) else {
                return;
            };
            match stderr.read(&mut self.buffer) {
                Ok(Incoming::Bytes(count)) => {
                    let bytes = &self.buffer[..count];
                    keep_tail(&mut worker.tail, bytes);
                    if worker.options.stderr_or_default() == Stderr::Tee
                        && !self.context.relay.push(bytes)
                        && !worker.is_stderr_paused
                    {
                        self.poller.remove(stderr);
                        worker.is_stderr_paused = true;
                    }
                    // What a pipe holds by default: more comes only from somebody who goes on writing.
                    if worker.is_stderr_paused {
                        return;
                    }
                }
                Ok(Incoming::NothingYet) => return,
                Ok(Incoming::End) | Err(_) => {
                    self.poller.remove(stderr);
                    if let Some(lines) = &mut worker.lines {
                        lines.stderr = None;
                    }
                    return;
                }
            }
        }
    }

    pub(super) fn resume_stderr(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        worker.is_stderr_paused = false;
        if let Some(stderr) = worker.lines.as_ref().and_then(|lines| lines.stderr.as_ref()) {
            // It was watched before; without room for it now its end is still drained.
            let _ = self
                .poller
                .add(stderr, Channel::Stderr.token(id.0), Interest::Readable);
        }
    }

    pub(super) fn resume(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.is_paused) else {
            return;
        };
        worker.is_paused = false;
        if let Some(lines) = &worker.lines {
            // It was watched before; without room for it now it is read when the worker ends.
            let _ = self.poller.add(
                lines.replies.fd(),
                Channel::Replies.token(id.0),
                Interest::Readable,
            );
        }
        self.read_replies(id, READS_AT_ONCE);
    }

    pub(super) fn write_calls(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        let Some(lines) = worker.lines.as_mut() else {
            return;
        };
        let is_done = lines
            .calls
            .as_mut()
            .is_none_or(|calls| calls.step() != Written::Some);
        if is_done && let Some(calls) = lines.calls.take() {
            self.poller.remove(calls.fd());
            lines.calls = worker.pooled.as_ref().map(|_| calls);
        }
    }
}

/// Keeps the last bytes.
fn keep_tail(tail: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = &bytes[bytes.len().saturating_sub(LONGEST_TAIL)..];
    let surplus = (tail.len() + bytes.len()).saturating_sub(LONGEST_TAIL);
    tail.drain(..surplus.min(tail.len()));
    tail.extend_from_slice(bytes);
}

const LONGEST_TAIL: usize = 4 << 10;
pub(super) const READS_AT_ONCE: usize = 4;
/// A pipe holds 1 MiB at most, unless root made it larger; the bound is for one that a grandchild goes on filling.
pub(super) const READS_TO_DRAIN: usize = 64;
