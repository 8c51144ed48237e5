//! New tasks, from the threads that submit them: where each goes, and what such threads do for the pool meanwhile.

use std::time::{Duration, Instant};

use crate::ids::{Rank, WorkerId};
use crate::supervisor::lanes::{self, Ends};
use crate::supervisor::pools::{Inner, PoolCore, PoolTask};
use crate::sync::Now;

/// What is known of the tasks to come from those that came.
#[derive(Default)]
pub(super) struct Lead {
    open: Option<Open>,
    /// How many tasks were submitted since a thread waited, and when the lanes were last to be looked at by one that submits.
    submits: u32,
    looked: Option<Instant>,
    /// When threads last submitted so fast that they look at the lanes before anybody else could be told to.
    rapid: Option<Instant>,
}

/// A lane that gets the next new tasks, as long as nothing else happens in the pool: so that not each of a million is asked
/// where it should go.
struct Open {
    index: usize,
    worker: WorkerId,
    /// Of these tasks, and of those that it has at hand behind the first.
    priority: i32,
    /// So many of them.
    left: usize,
}

impl Lead {
    /// Something else than a submission is about to be done.
    pub(super) fn forget_open(&mut self) {
        self.open = None;
    }

    /// A task is submitted; whether the lanes are to be looked at.
    fn count(&mut self) -> bool {
        self.submits = self.submits.wrapping_add(1);
        if self.looks() {
            let now = Instant::now();
            let before = self.looked.replace(now);
            self.rapid = before.filter(|before| now - *before < RAPID).map(|_| now);
        }
        self.looks()
    }

    /// Whether the thread that has just submitted a task looks at the lanes.
    fn looks(&self) -> bool {
        self.submits.is_multiple_of(SUBMITS)
    }

    /// Whether threads submit so fast that they look at the lanes before anybody else could be told to.
    pub(super) fn is_on(&self, now: Instant) -> bool {
        self.rapid
            .is_some_and(|rapid| now.saturating_duration_since(rapid) < RAPID)
    }

    /// A thread waits, and looks out for itself.
    pub(super) fn end(&mut self) {
        *self = Lead::default();
    }
}

impl PoolCore {
    /// Hands a new task to the lane that such tasks go to; it comes back if there is none.
    #[inline]
    pub(super) fn hand_on(
        &self,
        inner: &mut Inner,
        rank: Rank,
        task: PoolTask,
        ends: &mut Ends,
    ) -> Option<PoolTask> {
        if inner.lanes.lead.count() {
            return Some(task);
        }
        let open = inner.lanes.lead.open.as_mut();
        let open = open.filter(|open| open.priority == rank.priority && open.left > 0);
        let Some(open) = open.filter(|_| lanes::fits_cell(&task.work.payload)) else {
            return Some(task);
        };
        open.left -= 1;
        let (index, worker) = (open.index, open.worker);
        if inner.lanes.at(index).is_none_or(|lane| lane.worker != worker) {
            return Some(task);
        }
        inner.state.handed_ahead(worker);
        self.put_up(inner, index, (rank, task), &Now::default(), ends);
        None
    }

    /// Notes where the next tasks go, if that is sure.
    fn note_open(&self, inner: &mut Inner) {
        let is_sure = inner.state.queued_here() == 0
            && inner.state.hands_ahead()
            && inner.state.idle_linked().is_none()
            && !inner.state.wants_decision();
        if !is_sure {
            return;
        }
        let (Some(priority), Some(index)) = (inner.lanes.worst_ahead, inner.roomy_lane()) else {
            return;
        };
        let depth = inner.lanes.depth();
        if let Some(lane) = inner.lanes.at(index)
            && lane.first().is_some()
        {
            let (worker, left) = (lane.worker, lane.room().min(depth.saturating_sub(lane.len())));
            inner.lanes.lead.open = Some(Open {
                index,
                worker,
                priority,
                left: left.min(inner.state.room_of(worker)),
            });
        }
    }

    /// A task was queued.
    pub(super) fn feed_new(&self, inner: &mut Inner, priority: i32, ends: &mut Ends) -> bool {
        inner.lanes.lead.forget_open();
        let rings = self.place_new(inner, priority, ends);
        self.note_open(inner);
        rings
    }

    fn place_new(&self, inner: &mut Inner, priority: i32, ends: &mut Ends) -> bool {
        let mut rings = false;
        if inner.lanes.worst_ahead.is_some_and(|worst| priority < worst) {
            // It must not wait behind these.
            let now = Instant::now();
            for index in 0..inner.lanes.count() {
                self.withdraw_behind(inner, index, 1, now, ends);
            }
            inner.lanes.worst_ahead = None;
        } else if inner.lanes.lead.looks()
            && let Some(index) = inner.lanes.half_done()
        {
            rings = self.take_in(inner, index, Instant::now(), ends);
        }
        if inner.lanes.are_full && inner.state.idle_linked().is_none() {
            return rings;
        }
        self.feed(inner, ends) || rings
    }
}

/// A thread that submits looks at the lanes so often.
const SUBMITS: u32 = 16;

/// If that many are submitted within this time, they are rapid.
const RAPID: Duration = Duration::from_micros(100);
