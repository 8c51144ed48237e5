//! When a task may start, and how often: the checks before, permits, and further attempts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Cause, Error, Result};
use crate::limiter::Limiter;
use crate::nesting;
use crate::options::{Options, Retry};
use crate::slot::{Again, Place, Slot};
use crate::supervisor;
use crate::sys;
use crate::worker;

/// How deep a task with these options would be, unless they cannot be meant.
pub(crate) fn checked_depth(options: &Options) -> Result<u32> {
    options.check()?;
    depth()
}

/// How deep a task would be.
pub(crate) fn depth() -> Result<u32> {
    let depth = nesting::depth() + 1;
    let limit = nesting::DEEPEST;
    match depth > limit {
        true => Err(Error::new("", Cause::TooDeep { limit })),
        false => Ok(depth),
    }
}

/// Refuses where a new process of this program would not become a worker, or not find the task.
pub(crate) fn check_reachable() -> Result<(), Cause> {
    if !worker::is_reachable() {
        return Err(Cause::refused(
            "a new process of this program would run its main again; \
             call inparallel::init() in the first line of main, or turn the feature `ctor` on",
        ));
    }
    if !sys::is_in_program() {
        return Err(Cause::refused(
            "this code is part of a loaded library, which a new process of the program would not have; \
             use StartMethod::Fork",
        ));
    }
    Ok(())
}

/// Starts an attempt when there is a permit, and the others as they become due.
pub(crate) fn when_permitted(
    slot: &Arc<Slot>,
    limit: Option<&Limiter>,
    retry: Option<Retry>,
    start: impl Fn(&Arc<Slot>) -> Result<(), Cause> + Send + Sync + 'static,
) -> Result<(), Cause> {
    if limit.is_none() && retry.is_none() {
        return start(slot);
    }
    // Who waits for the end of all tasks waits for this one too while it has no permit, or rests.
    slot.hold(Box::new(supervisor::active()));
    let start = Arc::new(start);
    if let Some(rule) = retry {
        let start = Arc::clone(&start);
        slot.set_again(Again {
            rule,
            start: Arc::new(move |slot, pause| start_after(slot, pause, Arc::clone(&start))),
        });
    }
    match limit {
        None => attempt(slot, &*start),
        Some(limiter) => wait_for_permit(slot, limiter, move |slot| attempt(slot, &*start)),
    }
    Ok(())
}

/// Goes on with `start` when there is a permit, which the slot then holds to its end.
pub(crate) fn wait_for_permit(
    slot: &Arc<Slot>,
    limiter: &Limiter,
    start: impl FnOnce(&Arc<Slot>) + Send + 'static,
) {
    // It was not cancelled before: nobody has its future yet.
    let _ = slot.set_place(Place::Nobody);
    let slot = Arc::clone(slot);
    limiter.enter(Box::new(move |permit| {
        // A task that was cancelled while it waited gives the permit back.
        if slot.hold_permit(permit) {
            let _ = slot.set_place(Place::Starting);
            start(&slot);
        }
    }));
}

fn attempt(slot: &Arc<Slot>, start: &impl Fn(&Arc<Slot>) -> Result<(), Cause>) {
    if let Err(cause) = start(slot) {
        slot.fail(cause);
    }
}

fn start_after<S>(slot: &Arc<Slot>, pause: Duration, start: Arc<S>)
where
    S: Fn(&Arc<Slot>) -> Result<(), Cause> + Send + Sync + 'static,
{
    // Also without a pause it is not begun from here: an attempt that fails at once would end here again.
    let when = Instant::now().checked_add(pause).unwrap_or_else(Instant::now);
    if slot.set_place(Place::Nobody) {
        slot.fail(Cause::Cancelled);
        return;
    }
    let waiting = Arc::clone(slot);
    let begun = supervisor::later(
        when,
        Box::new(move || {
            if !waiting.is_done() {
                attempt(&waiting, &*start);
            }
        }),
    );
    if let Err(cause) = begun {
        slot.fail(cause);
    }
}
