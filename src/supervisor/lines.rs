//! The event loop's dealings with the pipes of workers: replies, messages and stderr come in, calls go out.

use std::sync::Arc;

use crate::error::Cause;
use crate::ids::WorkerId;
use crate::options::Stderr;
use crate::shared;
use crate::supervisor::event_loop::{Channel, EventLoop};
use crate::supervisor::lanes::Said;
use crate::supervisor::pools::PoolCore;
use crate::supervisor::state::{Event, Why};
use crate::sys::{Incoming, Interest};
use crate::transport::{Outgoing, Read, Written};
use crate::wire::{Frame, FrameError, Reply, Report};

impl EventLoop {
    /// Reads everything that a dead worker left in its pipes; no more comes after it.
    pub(super) fn drain(&mut self, id: WorkerId) {
        self.read_replies(id, READS_TO_DRAIN);
        self.look_at_sheet(id);
        self.read_stderr(id, READS_TO_DRAIN);
    }

    pub(super) fn read_replies(&mut self, id: WorkerId, most: usize) {
        self.settle(id);
        // Before anything is read: what a worker says by its pipe comes before what it leaves beside it.
        self.claim(id);
        // A dead worker's messages are read to the end, whoever takes them.
        let is_draining = most == READS_TO_DRAIN;
        for _ in 0..most {
            let linked = self.linked(id);
            let mut heard = Vec::new();
            let mut board = None;
            let mut events = Vec::new();
            let mut go_on = false;
            let mut is_over = false;
            let mut may_have_answered = false;
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
            let mut needs_bytes = false;
            let is_being_called = lines.calls.as_ref().is_some_and(Outgoing::is_pending);
            if let Some(len) = lines.replies.wants_room() {
                let take = |calls: &Outgoing| calls.take_emptied(len);
                let room = match &linked {
                    Some(pool) => pool.with_calls(id, take).flatten(),
                    None => lines.calls.as_ref().and_then(take),
                };
                if let Some(room) = room {
                    lines.replies.take_room(room);
                }
            }
            // Whose answer is too long is found out when it is known whose it is. Every task whose answer was read had been
            // handed over before that.
            let limit = || linked.as_ref().map(|pool| pool.most_result(id));
            lines.replies.step(&mut self.buffer, limit, |read| match read {
                Read::Frame(Frame {
                    message: Report { pid: speaker, reply },
                    payload,
                }) => {
                    *pid = Some(speaker);
                    match (reply, slot) {
                        (reply, _) if linked.is_some() => heard.push((reply, payload)),
                        (Reply::Board { is_open }, _) => board = Some(is_open),
                        (Reply::Bell, _) => may_have_answered = true,
                        (Reply::Ready, _) => {
                            lines.is_up = true;
                            events.push(Event::Launched);
                        }
                        (Reply::NeedsBytes, _) if answer.is_none() && !is_being_called && !needs_bytes => {
                            needs_bytes = true
                        }
                        (Reply::Shares, _) if answer.is_none() && !is_being_called => {
                            if let Some(calls) = &mut lines.calls {
                                calls.answered(|| false);
                            }
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
                    may_have_answered = true;
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
            if !heard.is_empty() {
                self.hear_linked(id, heard);
            }
            if let Some(is_open) = board {
                self.board_answered(id, is_open);
            }
            // Before its end is believed.
            if may_have_answered {
                self.look_at_sheet(id);
            }
            let events = self.after_step(id, events, needs_bytes);
            for event in events {
                self.tell(id, event);
            }
            if is_over || !go_on {
                return;
            }
        }
    }

    /// Takes the answer that a worker may have left beside its pipe.
    pub(super) fn look_at_sheet(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.answer.is_none()) else {
            return;
        };
        // One that has begun to say something else has not answered.
        let has_begun = worker
            .lines
            .as_ref()
            .is_some_and(|lines| !lines.replies.is_at_start());
        let entrance = worker.entrance.as_ref().filter(|_| !has_begun);
        let answer = entrance.and_then(|entrance| entrance.sheet()?.answer());
        if let Some((is_err, payload)) = answer {
            let (len, limit) = (payload.len() as u64, worker.options.max_result_or_default());
            let event = match len > limit {
                true => Event::Broken(Why::TooLarge { len, limit }),
                false => {
                    worker.answer = Some((Reply::Returned { is_err }, payload.to_vec()));
                    Event::Replied
                }
            };
            self.tell(id, event);
        }
    }

    /// The pool that a linked worker gets its tasks from.
    pub(super) fn linked(&self, id: WorkerId) -> Option<Arc<PoolCore>> {
        let pooled = self.workers.get(&id)?.pooled.as_ref()?;
        pooled.is_linked.then(|| Arc::clone(&pooled.core))
    }

    /// What came by the pipe from a linked worker, in order.
    pub(super) fn hear_linked(&mut self, id: WorkerId, frames: Vec<(Reply, Vec<u8>)>) {
        let mut full = None;
        for (reply, payload) in frames {
            let Some(pool) = self.linked(id) else {
                return;
            };
            let now = self.now;
            if reply == Reply::Bell {
                continue;
            }
            let said = match (reply, pool.at_work(id, now)) {
                (Reply::Message, Some(slot)) => {
                    if !slot.deliver(payload) {
                        full = Some(slot.id);
                    }
                    continue;
                }
                (Reply::Progress { done, total }, Some(slot)) => {
                    slot.set_progress(done, total);
                    continue;
                }
                (Reply::Lingers, Some(_)) => {
                    self.tell(id, Event::Lingers);
                    continue;
                }
                (Reply::Shares, Some(_)) => {
                    pool.shares(id);
                    continue;
                }
                (Reply::NeedsBytes, Some(_)) if pool.needs_bytes(id) => {
                    self.write_calls(id);
                    continue;
                }
                (Reply::NeedsBytes, _) => {
                    let what = "it asked for bytes that it has".to_owned();
                    self.tell(id, Event::Broken(Why::Garbage(what)));
                    return;
                }
                (Reply::Returned { is_err }, Some(_)) => {
                    // What the task wrote came before its end.
                    self.read_stderr(id, READS_TO_DRAIN);
                    let payload = payload.into();
                    Some(Said::Returned { payload, is_err })
                }
                (reply, Some(_)) => {
                    self.read_stderr(id, READS_TO_DRAIN);
                    Some(Said::Failed(Cause::of(reply), self.take_tail(id)))
                }
                (_, None) => None,
            };
            if !said.is_some_and(|said| pool.said(id, said, now)) {
                let what = "it answered a call that it was not given".to_owned();
                self.tell(id, Event::Broken(Why::Garbage(what)));
                return;
            }
        }
        let Some(pool) = self.linked(id) else {
            return;
        };
        let at_work = pool.at_work(id, self.now).map(|slot| slot.id);
        // With its answer a task has no more to say, and the worker goes on with another.
        if full.is_some() && full == at_work {
            self.pause(id);
        }
    }

    /// What the task wrote to stderr that a linked worker is at.
    fn take_tail(&mut self, id: WorkerId) -> Vec<u8> {
        let epoch = self.epoch(id);
        let Some(worker) = self.workers.get_mut(&id) else {
            return Vec::new();
        };
        match epoch == Some(worker.tail_epoch) {
            true => std::mem::take(&mut worker.tail),
            false => Vec::new(),
        }
    }

    /// Reads no more of a worker's messages until there is room for them.
    pub(super) fn pause(&mut self, id: WorkerId) {
        if let Some(worker) = self.workers.get_mut(&id)
            && !std::mem::replace(&mut worker.is_paused, true)
            && let Some(lines) = &worker.lines
        {
            self.poller.remove(lines.replies.fd());
        }
    }

    /// What the worker's words mean for what is attached to its call.
    fn after_step(&mut self, id: WorkerId, mut events: Vec<Event>, needs_bytes: bool) -> Vec<Event> {
        let Some(worker) = self.workers.get_mut(&id) else {
            return events;
        };
        let has_answered = worker.answer.is_some();
        let pid = worker.pid().filter(|_| !worker.is_pid_claimed);
        let is_pooled = worker.pooled.is_some();
        let Some(lines) = &mut worker.lines else {
            return events;
        };
        if needs_bytes && !lines.calls.as_mut().is_some_and(Outgoing::push_bytes) {
            let what = "it asked for bytes that it has".to_owned();
            events.push(Event::Broken(Why::Garbage(what)));
            return events;
        }
        let Some(calls) = &mut lines.calls else {
            return events;
        };
        if needs_bytes
            && calls.step() == Written::Some
            && let Err(error) = self
                .poller
                .add(calls.fd(), Channel::Calls.token(id.0), Interest::Writable)
        {
            let what = format!("its call cannot be written: {error}");
            events.push(Event::Broken(Why::Garbage(what)));
        }
        let is_holding = has_answered && calls.is_holding();
        if is_holding {
            calls.answered(|| pid.is_some_and(shared::is_open_book));
        }
        if has_answered && !is_pooled && !calls.is_pending() {
            // It waits for another call.
            lines.calls = None;
        }
        if is_holding {
            self.context.plan_to_tidy(self.now);
        }
        events
    }

    pub(super) fn read_stderr(&mut self, id: WorkerId, most: usize) {
        self.settle(id);
        for _ in 0..most {
            let Some(worker) = self.workers.get_mut(&id) else {
                return;
            };
            let Some(stderr) = worker.lines.as_mut().and_then(|lines| lines.stderr.as_mut()) else {
                return;
            };
            match stderr.read(&mut self.buffer) {
                Ok(Incoming::Bytes(count)) => {
                    let now = self.now;
                    let epoch = self.linked(id).map(|pool| pool.heard(id, now));
                    let Some(worker) = self.workers.get_mut(&id) else {
                        return;
                    };
                    if let Some(epoch) = epoch
                        && std::mem::replace(&mut worker.tail_epoch, epoch) != epoch
                    {
                        worker.tail.clear();
                    }
                    let Some(stderr) = worker.lines.as_mut().and_then(|lines| lines.stderr.as_mut()) else {
                        return;
                    };
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
        if let Some(pool) = self.linked(id) {
            let token = Channel::Calls.token(id.0);
            let is_done = pool.write_calls(id).unwrap_or(true);
            pool.with_calls(id, |calls| match is_done {
                true => self.poller.remove(calls.fd()),
                // It is there, or the worker cannot be watched, and its calls wait until it ends.
                false => _ = self.poller.add(calls.fd(), token, Interest::Writable),
            });
            return;
        }
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
            let is_needed = worker.pooled.is_some() || calls.is_holding();
            lines.calls = Some(calls).filter(|_| is_needed);
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
