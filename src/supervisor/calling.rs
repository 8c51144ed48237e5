//! Calls to workers that wait for one, from any thread: the way to such a worker is one wake-up, and so is the way back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::error::{Cause, Error};
use crate::ids::WorkerId;
use crate::launch::{self, Entrance, Order, Ready, Surroundings};
use crate::options::{Options, StartMethod};
use crate::slot::{Early, Outcome, Place, Slot, Stay, Workers};
use crate::supervisor::context::{self, Context, Submitted};
use crate::sync::{has_cores, lock};
use crate::sys::{self, Word};

/// A call that the calling thread hands to a worker which was ready for it; the supervisor's notice.
pub(crate) struct Called {
    pub(crate) submitted: Submitted,
    /// Kept in case that the worker has ended before it began.
    pub(crate) order: Order,
    /// Dropped here, and not in the thread that calls: closing its channel takes longer than the call.
    ready: Arc<Ready>,
}

impl Called {
    /// Whether the task is the supervisor's to end: see [`Entrance::claim`].
    pub(super) fn claim(&self) -> bool {
        self.ready.entrance().claim()
    }
}

/// A call with these options is about to be made: has the worker that will probably get it wake up meanwhile.
pub(crate) fn expect_call(options: &Options) {
    let is_at_once = options.pool.is_none() && options.limit.is_none();
    if !is_at_once || options.method() != StartMethod::ForkServer {
        return;
    }
    let context = context::current();
    if context.looks_out(options) {
        let entrance = lock(&context.inbox).ready.first().map(Ready::entrance);
        if let Some(sheet) = entrance.as_ref().and_then(|entrance| entrance.sheet()) {
            sheet.expect();
        }
    }
}

/// What a call is until somebody has it.
type TheCall = Box<(Submitted, Order)>;

impl Context {
    /// Hands a call to a worker that waits for one, if that is possible from this thread. Else the call is returned.
    pub(super) fn call_ready(
        &'static self,
        mut submitted: Submitted,
        order: Order,
    ) -> Result<Option<(Submitted, Order)>, Cause> {
        let Some((worker, pid, base)) = self.first_ready(&order) else {
            return Ok(Some((submitted, order)));
        };
        let Some(frame) = launch::small_frame(&order, &base)? else {
            return Ok(Some((submitted, order)));
        };
        let slot = Arc::clone(&submitted.slot);
        let options = submitted.options.clone();
        let number = std::mem::replace(&mut submitted.worker, worker);
        let is_cancelled = slot.set_place(Place::Worker(self, worker));
        if let Some(pid) = pid {
            slot.set_pid(pid);
        }
        self.enter();
        let (ready, is_last) = match self.take_ready(worker, Box::new((submitted, order))) {
            Ok(taken) => taken,
            Err(call) => {
                self.leave();
                let (mut submitted, order) = *call;
                submitted.worker = number;
                return Ok(Some((submitted, order)));
            }
        };
        slot.set_early(self.early(&ready, &options));
        let is_called = ready.call_at_once(&frame, &options);
        // Otherwise it is enough if the supervisor hears of the call together with its answer. If the worker could not be
        // called it ends, and the supervisor finds the call not begun.
        if !is_called || options.timeout.is_some() || is_last {
            drop(ready);
            self.ring();
        }
        if is_cancelled || slot.is_unwanted() {
            self.cancel(worker, slot.id);
        }
        Ok(None)
    }

    fn first_ready(&self, order: &Order) -> Option<(WorkerId, Option<u32>, Arc<Surroundings>)> {
        let inbox = lock(&self.inbox);
        let ready = inbox.ready.first().filter(|ready| ready.fits(order))?;
        Some((ready.worker, ready.pid, ready.base()))
    }

    /// Takes a ready worker for a call, and whether it was the last.
    fn take_ready(&self, worker: WorkerId, call: TheCall) -> Result<(Arc<Ready>, bool), TheCall> {
        let mut inbox = lock(&self.inbox);
        let at = inbox.ready.iter().position(|ready| ready.worker == worker);
        match at {
            Some(at) if !self.dead.load(Ordering::Acquire) => {
                let ready = Arc::new(inbox.ready.remove(at));
                let (submitted, order) = *call;
                inbox.called.push(Called {
                    submitted,
                    order,
                    ready: Arc::clone(&ready),
                });
                Ok((ready, inbox.ready.is_empty()))
            }
            _ => Err(call),
        }
    }

    /// How a thread that waits for the call finds its answer before the supervisor does.
    pub(super) fn early(&'static self, ready: &Ready, options: &Options) -> Option<Arc<dyn Early>> {
        let (entrance, worker) = (ready.entrance(), ready.worker);
        let may_look = entrance.sheet().is_some() && self.looks_out(options);
        may_look.then(|| -> Arc<dyn Early> {
            Arc::new(LookOut {
                context: self,
                entrance,
                spin: options.spin_or_default(),
                most_result: options.max_result_or_default(),
                worker,
                bell: Word::new(0),
            })
        })
    }

    /// Whether it helps to look out, and the call allows it.
    fn looks_out(&self, options: &Options) -> bool {
        !options.spin_or_default().is_zero() && *self.has_cores.get_or_init(has_cores)
    }

    /// Lets any thread call this worker.
    pub(super) fn offer(&self, ready: Ready) {
        lock(&self.inbox).ready.push(ready);
    }

    /// From now on nobody calls this worker. `None`: somebody has, and the notice is there to be taken.
    pub(super) fn withdraw(&self, worker: WorkerId) -> Option<Ready> {
        let mut inbox = lock(&self.inbox);
        let at = inbox.ready.iter().position(|ready| ready.worker == worker)?;
        Some(inbox.ready.remove(at))
    }

    /// The notices of calls to workers that were ready.
    pub(super) fn take_called(&self) -> Vec<Called> {
        std::mem::take(&mut lock(&self.inbox).called)
    }
}

/// Where the answer to a call will stand, and for how long to look out for it.
struct LookOut {
    context: &'static Context,
    entrance: Arc<Entrance>,
    spin: Duration,
    most_result: u64,
    worker: WorkerId,
    /// Rung when there is nothing more to look out for.
    bell: Word,
}

impl Early for LookOut {
    fn look_out(&self, slot: &Arc<Slot>, patience: Stay) {
        let Some(sheet) = self.entrance.sheet() else {
            return;
        };
        let deadline = match patience {
            Stay::Until(deadline) => Some(Some(deadline)),
            Stay::Endless => Some(None),
            Stay::Look | Stay::Moment => None,
        };
        let found = sheet.look_out(|is_done| {
            let bell = self.bell.load(Ordering::SeqCst);
            if !self.context.spin.within(self.spin, is_done)
                && let Some(deadline) = deadline
                && slot.helps_early(self)
            {
                // Once: who is woken for no reason goes on where the supervisor wakes it.
                let _ = sheet.sleep((&self.bell, bell), deadline);
                slot.set_helped(false);
            }
        });
        let Some((is_err, payload)) = found else { return };
        // Until it has ended here, it counts, whatever the supervisor hears of its worker.
        self.context.enter();
        let is_ours = self.entrance.claim();
        // Before another attempt may begin: what else the worker says is not of that one.
        lock(&self.context.inbox).taken.push(self.worker);
        if !is_ours {
            // The worker did not ring for it.
            self.context.ring();
        } else {
            let (len, limit) = (payload.len() as u64, self.most_result);
            slot.end(match len > limit {
                true => {
                    let error = Error::new(slot.name.to_string(), Cause::ResultTooLarge { len, limit });
                    Outcome::Failed(error.with_worker(slot.pid(), Vec::new()))
                }
                false => Outcome::Returned { payload, is_err },
            });
        }
        self.context.leave();
    }

    fn wake(&self) {
        self.bell.fetch_add(1, Ordering::SeqCst);
        sys::wake_own(&self.bell);
    }
}
