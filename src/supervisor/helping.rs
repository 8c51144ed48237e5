//! What a pool does for whoever holds a task of it: takes it back, ends it, and lets a thread that waits look out for the answer
//! itself.

use std::sync::Arc;
use std::time::Instant;

use crate::ids::Rank;
use crate::slot::{Queue, Slot, Stay};
use crate::supervisor::context::Command;
use crate::supervisor::lanes::{self, Ends, Rings, Shared};
use crate::supervisor::pools::PoolCore;

impl Queue for PoolCore {
    fn take_back(&self, slot: &Slot, rank: Rank) -> bool {
        let mut inner = self.locked();
        let mut ends = Ends::new();
        let mut is_fed = false;
        // Dropped when the pool is not locked any more, as its arguments may be large.
        let mut task = inner.state.remove(rank);
        if task.is_none()
            && let Some((index, number)) = inner.lanes.of(slot)
            && let Some(lane) = inner.lanes.at(index)
            && let Some(handed) = lane.withdraw(number)
        {
            let id = lane.worker;
            task = Some(handed.task);
            inner.lanes.are_full = false;
            inner.state.unhand(id, 1, 0, Instant::now());
            // The worker may have nothing to do now, and others have something waiting.
            is_fed = self.feed(&mut inner, &mut ends);
        }
        let wakes = inner.sleepers > 0;
        let rings = is_fed || inner.state.wants_decision();
        drop(inner);
        if wakes {
            self.changed.notify_all();
        }
        self.finish(ends, rings);
        task.is_some()
    }

    fn cancel(&self, slot: &Slot) {
        let mut inner = self.locked();
        let found = inner.lanes.of(slot);
        let slot = found.and_then(|(index, number)| inner.lanes.at(index)?.slot_of(number));
        drop(inner);
        if let Some(slot) = slot {
            self.send(|pool| Command::CancelPooled(pool, slot));
        }
    }

    fn has_room(&self, slot: &Slot) {
        let mut inner = self.locked();
        let found = inner.lanes.of(slot);
        let worker = found.and_then(|(index, _)| Some(inner.lanes.at(index)?.worker));
        drop(inner);
        if let Some(worker) = worker {
            self.send(|_| Command::HasRoom(worker));
        }
    }

    fn help(&self, slot: &Slot, stay: Stay) {
        if !self.is_ours() {
            return;
        }
        loop {
            let mut ends = Ends::new();
            let mut inner = self.locked();
            let Some((index, number)) = inner.lanes.of(slot) else {
                return;
            };
            let mut rings = match inner.lanes.at(index).is_some_and(|lane| lane.is_answered()) {
                true => self.take_in(&mut inner, index, Instant::now(), &mut ends),
                false => false,
            };
            inner.lanes.lead.end();
            let mut attended = None;
            if stay != Stay::Look
                && inner.lanes.of(slot) == Some((index, number))
                && let Some(lane) = inner.lanes.at(index)
                && lane.attend(number)
            {
                attended = Some((Arc::clone(&lane.shared), lane.worker));
                // Nobody need be rung for what is looked out for; for what is before it somebody is, or it is there.
                let rings_later = if lane.is_quiet {
                    Rings::WhenMost
                } else {
                    Rings::ForEach
                };
                if !lane.arm(rings_later, 0) {
                    rings |= self.take_in(&mut inner, index, Instant::now(), &mut ends);
                }
            }
            drop(inner);
            self.finish(ends, rings);
            let Some((shared, worker)) = attended else {
                return;
            };
            let is_over = match () {
                () if shared.spin(number) => false,
                () if stay == Stay::Moment || !shared.can_sleep() => true,
                () => {
                    let bell = shared.bell();
                    let deadline = match stay {
                        Stay::Until(deadline) => Some(deadline),
                        _ => None,
                    };
                    // From here on the bell rings when the task is ended by others, or taken from this worker.
                    let is_here = self.has_at(slot, index, number, &shared);
                    let is_over = slot.set_helped(true)
                        && is_here
                        && (!shared.sleep(number, bell, deadline)
                            || deadline.is_some_and(|deadline| deadline <= Instant::now()));
                    slot.set_helped(false);
                    is_over
                }
            };
            let mut ends = Ends::new();
            let mut inner = self.locked();
            let mut rings = false;
            let mut is_elsewhere = false;
            if let Some(lane) = inner.lanes.get(worker) {
                lane.leave();
                rings = self.take_in(&mut inner, index, Instant::now(), &mut ends);
                is_elsewhere = inner.lanes.of(slot) == Some((index, number))
                    && inner
                        .lanes
                        .at(index)
                        .is_some_and(|lane| lane.is_elsewhere(number));
            }
            drop(inner);
            self.finish(ends, rings);
            // An answer that comes by the pipe is the supervisor's to read.
            if is_over || is_elsewhere || slot.is_done() {
                return;
            }
        }
    }

    fn wake(&self, slot: &Slot) {
        let Some((index, _)) = lanes::place_of(slot) else {
            return;
        };
        let shared = self.locked().lanes.at(index).map(|lane| Arc::clone(&lane.shared));
        // One that is gone rang when it went.
        if let Some(shared) = shared {
            shared.ring();
        }
    }

    fn ended(&self, slot: &Slot) {
        self.task_ended(slot);
    }
}

impl PoolCore {
    /// Whether a task is where it was seen.
    fn has_at(&self, slot: &Slot, index: usize, number: u32, shared: &Arc<Shared>) -> bool {
        let mut inner = self.locked();
        inner.lanes.of(slot) == Some((index, number))
            && inner
                .lanes
                .at(index)
                .is_some_and(|lane| Arc::ptr_eq(&lane.shared, shared))
    }
}
