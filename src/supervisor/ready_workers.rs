//! The event loop's dealings with workers that are made before their calls.
//!
//! Such a worker is offered to all threads. The one that takes it leaves a notice in the same moment, and writes the call
//! itself; so before anything that a worker does is believed, it is settled whether it has a call.

use std::sync::Arc;

use crate::ids::{self, WorkerId};
use crate::launch::{self, Launch, Order};
use crate::options::{Options, Stderr};
use crate::slot::Place;
use crate::supervisor::calling::Called;
use crate::supervisor::context::Submitted;
use crate::supervisor::event_loop::{Channel, EventLoop, Worker};
use crate::supervisor::state::{Event, Kind};
use crate::sys::{self, Interest};

impl EventLoop {
    /// When there is nothing else to do: makes the workers that the next calls will find ready.
    pub(super) fn replenish(&mut self) {
        // Whoever waited for an outcome runs first, perhaps on this very core. The worker's exit leads here again.
        let is_leaving = |id| self.workers.contains_key(&id);
        if self.fulfilled.take().is_some_and(is_leaving) || !self.commands.is_empty() {
            return;
        }
        while self.ready_in_vain < MOST_IN_VAIN
            && self.ready.len() < sys::READY_WORKERS
            && let Some(serial) = self.serving
            && let Some(server) = self.servers.get_mut(&serial)
        {
            let id = WorkerId(ids::next_number());
            match server.prepare(id, self.context.likely()) {
                Ok(Some((lines, ready))) => {
                    let options = Options::new();
                    let grace = options.grace_or_default();
                    let mut worker = Worker::new(None, None, options);
                    worker.server = Some(serial);
                    worker.entrance = Some(ready.entrance());
                    worker.ready = Some(ready);
                    self.workers.insert(id, worker);
                    self.ready.push(id);
                    let event = Event::Submitted {
                        limit: None,
                        grace,
                        kind: Kind::Ready,
                    };
                    self.tell(id, event);
                    self.open(id, Ok(lines));
                }
                Ok(None) => return,
                // Not again before somebody needs one, who then learns why there is none.
                Err(_) => self.ready_in_vain = MOST_IN_VAIN,
            }
        }
    }

    /// A worker waits for its call.
    pub(super) fn offer(&mut self, id: WorkerId) {
        let serving = self.serving;
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        if worker.server != serving {
            return self.tell(id, Event::Discarded);
        }
        if let Some(ready) = worker.ready.take() {
            self.context.offer(ready);
        }
    }

    /// Before an event of a worker is believed: if it has a call, that is noted, and if not, nobody else gives it one.
    pub(super) fn settle(&mut self, id: WorkerId) {
        if !self.ready.contains(&id) {
            return;
        }
        if let Some(ready) = self.context.withdraw(id) {
            if let Some(worker) = self.workers.get_mut(&id) {
                worker.ready = Some(ready);
            }
            return;
        }
        for called in self.context.take_called() {
            self.called(called);
        }
    }

    /// A thread has given a call to a worker that was ready.
    pub(super) fn called(&mut self, called: Called) {
        let Called { submitted, order, .. } = called;
        self.ready_in_vain = 0;
        self.bind(submitted, order);
    }

    /// From now on the worker is that of a call.
    fn bind(&mut self, submitted: Submitted, order: Order) {
        let Submitted {
            worker: id,
            slot,
            options,
        } = submitted;
        self.ready.retain(|ready| *ready != id);
        let Some(worker) = self.workers.get_mut(&id) else {
            // Only who was offered is taken, and who is taken is not forgotten before this.
            return;
        };
        worker.ready = None;
        if let Some(lines) = &mut worker.lines {
            lines.replies.set_limit(options.max_result_or_default());
            if matches!(options.stderr_or_default(), Stderr::Inherit | Stderr::Null)
                && let Some(stderr) = lines.stderr.take()
            {
                self.poller.remove(&stderr);
            }
        }
        let event = Event::Assigned {
            limit: options.timeout,
            grace: options.grace_or_default(),
        };
        worker.slot = Some(slot);
        worker.options = options;
        worker.order = Some(Box::new(order));
        worker.is_counted = true;
        self.tell(id, event);
    }

    /// Gives a call to a worker that is ready or is being made. The call comes back if there is none for it.
    pub(super) fn call_ready(&mut self, submitted: Submitted, order: Order) -> Option<(Submitted, Order)> {
        self.ready_in_vain = 0;
        // What is large goes faster by a pipe, which can be widened, and is late by more than a fork in any case. What is
        // attached may be asked for once more, by a pipe that stays open.
        let is_large = order.payload.len() > LARGE || !order.payload.attached().is_empty();
        for id in self.ready.clone().into_iter().filter(|_| !is_large) {
            let Some(worker) = self.workers.get_mut(&id).filter(|_| self.state.awaits_call(id)) else {
                continue;
            };
            let is_serving = worker.server == self.serving;
            let Some(ready) = worker.ready.take().or_else(|| self.context.withdraw(id)) else {
                continue;
            };
            let head = launch::head_of(&order, &ready.base());
            let (true, true, Ok(head)) = (is_serving, ready.fits(&order), head) else {
                worker.ready = Some(ready);
                continue;
            };
            let is_cancelled = submitted.slot.set_place(Place::Worker(self.context, id));
            if let Some(pid) = ready.pid {
                submitted.slot.set_pid(pid);
            }
            let early = self.context.early(&ready, &submitted.options);
            submitted.slot.set_early(early);
            // If it cannot be called it ends, and the call is found not begun.
            let rest = ready.call(head, order.payload.clone(), &submitted.options);
            let rest = rest.filter(|calls| calls.is_pending());
            if let Some(calls) = rest
                && let Some(lines) = &mut worker.lines
                && self
                    .poller
                    .add(calls.fd(), Channel::Calls.token(id.0), Interest::Writable)
                    .is_ok()
            {
                lines.calls = Some(calls);
            }
            self.bind(
                Submitted {
                    worker: id,
                    ..submitted
                },
                order,
            );
            if is_cancelled {
                self.tell(id, Event::Cancelled);
            }
            return None;
        }
        Some((submitted, order))
    }

    /// A worker has died: a call that it had not begun gets another one, that is made for it.
    pub(super) fn call_again(&mut self, id: WorkerId) {
        if self.state.is_ending(id) {
            return;
        }
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.answer.is_none()) else {
            return;
        };
        if !worker
            .entrance
            .as_ref()
            .is_some_and(|entrance| entrance.is_untouched())
        {
            return;
        }
        if worker.slot.is_none() || !worker.claim() {
            return;
        }
        let (Some(slot), Some(order)) = (worker.slot.take(), worker.order.take()) else {
            return;
        };
        slot.set_early(None);
        worker.is_counted = false;
        let submitted = Submitted::new(Arc::clone(&slot), worker.options.clone());
        let id = submitted.worker;
        let is_cancelled = slot.set_place(Place::Worker(self.context, id));
        self.make_for(submitted, *order);
        if is_cancelled {
            self.tell(id, Event::Cancelled);
        }
    }

    /// Has a worker made for a call by the fork server.
    pub(super) fn make_for(&mut self, submitted: Submitted, order: Order) {
        let options = submitted.options.clone();
        let id = self.enter(submitted, Kind::Process);
        self.launch(Launch::new(id, options, order));
    }

    /// A server makes no new workers: those that it made before their calls go.
    pub(super) fn discard_ready(&mut self, serial: u64) {
        for id in std::mem::take(&mut self.ready) {
            let is_of_it = self
                .workers
                .get(&id)
                .is_some_and(|worker| worker.server == Some(serial));
            if !is_of_it {
                self.ready.push(id);
                continue;
            }
            let withdrawn = self.context.withdraw(id);
            let Some(worker) = self.workers.get_mut(&id) else {
                continue;
            };
            match withdrawn.or_else(|| worker.ready.take()) {
                Some(_ends_when_dropped) => self.tell(id, Event::Discarded),
                // It has a call, of which the notice is on the way.
                None => self.ready.push(id),
            }
        }
    }
}

const LARGE: usize = 256 << 10;

/// So many may end without a call until the next call. None is made before the first.
pub(super) const MOST_IN_VAIN: u32 = 3;
