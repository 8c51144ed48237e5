//! Tasks to linked workers, and their answers back, in whatever thread has the pool's lock.
//!
//! How many tasks a worker has at hand follows from how long they take: short ones are handed out many at a time, a long
//! one waits in the queue until a worker is free. What was handed out ahead and has not begun is taken back for a task of
//! better priority, for a worker that runs dry, and when its worker is to end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::ids::{Rank, TaskId, WorkerId};
use crate::slot::{Outcome, Slot};
use crate::supervisor::context::Command;
use crate::supervisor::lanes::{self, Ends, Handed, Lane, Put, Rings, Said};
use crate::supervisor::pools::{Inner, PoolCore, PoolTask};
use crate::supervisor::submitting::Lead;
use crate::sync::Now;
use crate::sys::CELLS;
use crate::transport::Outgoing;

/// The lanes of a pool.
#[derive(Default)]
pub(super) struct Lanes {
    /// A place stays empty when its lane is gone, until another comes.
    all: Vec<Option<Lane>>,
    by_worker: HashMap<WorkerId, usize>,
    /// How long a task takes.
    pace: Option<Duration>,
    /// All have as many tasks at hand as they should.
    pub(super) are_full: bool,
    /// The lane that was looked at last.
    last: usize,
    pub(super) lead: Lead,
    /// The worst priority of a task that was handed out ahead since all were empty.
    pub(super) worst_ahead: Option<i32>,
    /// A lane that does not ring for every answer is looked at then.
    look_at: Option<Instant>,
    /// When the supervisor looks anyway, and whether it does not know of that yet.
    pub(super) planned: Option<Instant>,
    pub(super) is_plan_late: bool,
}

impl Lanes {
    /// A lane of which half is done, of the two that are next to be looked at.
    pub(super) fn half_done(&mut self) -> Option<usize> {
        let count = self.all.len();
        for _ in 0..count.min(2) {
            self.last = (self.last + 1) % count;
            let index = self.last;
            if self.at(index).is_some_and(|lane| lane.is_half_done()) {
                return Some(index);
            }
        }
        None
    }

    pub(super) fn get(&mut self, worker: WorkerId) -> Option<&mut Lane> {
        let index = *self.by_worker.get(&worker)?;
        self.all.get_mut(index)?.as_mut()
    }

    fn insert(&mut self, lane: Lane) {
        let index = self.all.iter().position(Option::is_none);
        let index = index.unwrap_or_else(|| {
            self.all.push(None);
            self.all.len() - 1
        });
        self.by_worker.insert(lane.worker, index);
        self.all[index] = Some(lane);
        self.are_full = false;
    }

    fn remove(&mut self, worker: WorkerId) -> Option<Lane> {
        let index = self.by_worker.remove(&worker)?;
        self.all.get_mut(index)?.take()
    }

    pub(super) fn take_all(&mut self) -> Vec<Lane> {
        self.by_worker.clear();
        self.all.drain(..).flatten().collect()
    }

    /// The lane that has a task at hand, and the number of its call.
    pub(super) fn of(&mut self, slot: &Slot) -> Option<(usize, u32)> {
        let (index, _) = lanes::place_of(slot)?;
        let number = self.all.get(index)?.as_ref()?.number_of(slot)?;
        Some((index, number))
    }

    /// Places of lanes, with those that are empty.
    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    pub(super) fn at(&mut self, index: usize) -> Option<&mut Lane> {
        self.all.get_mut(index)?.as_mut()
    }

    /// How many calls a worker should have at hand.
    pub(super) fn depth(&self) -> usize {
        match self.pace {
            Some(pace) => (AHEAD.as_nanos() / pace.as_nanos().max(1)).clamp(1, CELLS as u128) as usize,
            None => 1,
        }
    }

    fn note_pace(&mut self, pace: Duration) {
        self.pace = Some(match self.pace {
            // One that waited for its thread to wake says less than many that came in a row.
            Some(old) if pace < old => pace,
            Some(old) => (old * 7 + pace) / 8,
            None => pace,
        });
    }

    /// The supervisor has to look then.
    fn plan(&mut self, wanted: Option<Instant>) {
        if let Some(wanted) = wanted
            && self.planned.is_none_or(|planned| wanted < planned)
        {
            self.planned = Some(wanted);
            self.is_plan_late = true;
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let limits = self.all.iter().flatten().filter_map(Lane::deadline);
        limits.chain(self.look_at).min()
    }
}

impl PoolCore {
    // --- what the supervisor does ---

    /// A linked worker that has nothing at hand gets no more tasks.
    pub(super) fn unlink(&self, id: WorkerId) -> Option<Outgoing> {
        let lane = self.locked().lanes.remove(id);
        lane.and_then(|mut lane| {
            lane.shared.ring();
            lane.close()
        })
    }

    /// Closes a worker's channel: it ends when it has done what it is at.
    pub(super) fn close_lane(&self, id: WorkerId) -> Option<Outgoing> {
        self.locked().lanes.get(id).and_then(Lane::close)
    }

    /// Looks at a worker's answers.
    pub(super) fn serve(&self, id: WorkerId, now: Instant) {
        self.with_lane(id, |pool, inner, index, ends| {
            pool.take_in(inner, index, now, ends)
        });
    }

    /// An answer came by the pipe; whether one was due.
    pub(super) fn said(&self, id: WorkerId, said: Said, now: Instant) -> bool {
        let mut is_due = false;
        self.with_lane(id, |pool, inner, index, ends| {
            // Those before it first, so that it is known whose it is.
            let rings = pool.take_in(inner, index, now, ends);
            is_due = inner.lanes.at(index).is_some_and(|lane| lane.hear(said));
            pool.take_in(inner, index, now, ends) || rings
        });
        is_due
    }

    /// A worker asks for bytes that it cannot open; whether it needs them.
    pub(super) fn needs_bytes(&self, id: WorkerId) -> bool {
        let sent = self.locked().lanes.get(id).map(Lane::send_bytes);
        sent == Some(Ok(()))
    }

    /// A copy of a worker may still read what was attached to its call.
    pub(super) fn shares(&self, id: WorkerId) {
        self.locked().lanes.get(id).map(Lane::shares);
    }

    /// The task that a worker is at, after a look at its answers.
    pub(super) fn at_work(&self, id: WorkerId, now: Instant) -> Option<Arc<Slot>> {
        self.serve(id, now);
        let mut inner = self.locked();
        let first = inner.lanes.get(id)?.first()?;
        Some(Arc::clone(&first.slot))
    }

    /// Which task what the worker writes to its stderr belongs to, as a number of its own.
    pub(super) fn epoch(&self, id: WorkerId, now: Instant) -> u32 {
        self.serve(id, now);
        self.locked().lanes.get(id).map_or(0, |lane| lane.epoch())
    }

    /// Something came from the worker's stderr: [`epoch`](PoolCore::epoch) of that.
    pub(super) fn heard(&self, id: WorkerId, now: Instant) -> u32 {
        let epoch = self.epoch(id, now);
        if let Some(lane) = self.locked().lanes.get(id) {
            lane.shared.board.note_heard();
        }
        epoch
    }

    /// The longest answer that a worker may send.
    pub(super) fn most_result(&self, id: WorkerId) -> u64 {
        self.locked().lanes.get(id).map_or(0, |lane| lane.most_result())
    }

    /// Writes what is left of a call; `None`: there is no such lane. Else whether that is all.
    pub(super) fn write_calls(&self, id: WorkerId) -> Option<bool> {
        Some(self.locked().lanes.get(id)?.write())
    }

    /// Does something with the descriptor for a worker's calls.
    pub(super) fn with_calls<R>(&self, id: WorkerId, run: impl FnOnce(&Outgoing) -> R) -> Option<R> {
        self.locked().lanes.get(id)?.with_calls(run)
    }

    /// A worker is to get nothing more: takes back what it has not begun.
    pub(super) fn recall(&self, id: WorkerId, now: Instant) {
        self.with_lane(id, |pool, inner, index, ends| {
            let rings = pool.take_in(inner, index, now, ends);
            pool.withdraw_behind(inner, index, 0, now, ends);
            rings
        });
    }

    /// Whether the task runs, and at which worker, so that it has to end; how long that may take. What the worker has
    /// beside it is taken back.
    pub(super) fn running(&self, slot: &Slot, now: Instant) -> Option<(WorkerId, Duration)> {
        let mut found = None;
        let mut inner = self.locked();
        let mut ends = Ends::new();
        let mut rings = false;
        if let Some((index, _)) = inner.lanes.of(slot) {
            // The end of the worker is for this task alone: what is behind it must not begin meanwhile.
            self.hold(&mut inner, index, now, &mut ends);
            rings = self.take_in(&mut inner, index, now, &mut ends);
            if let Some((index, number)) = inner.lanes.of(slot)
                && let Some(lane) = inner.lanes.at(index)
            {
                match lane.withdraw(number) {
                    Some(handed) => {
                        let id = lane.worker;
                        inner.state.unhand(id, 1, 0, now);
                        ends.push((Arc::clone(&handed.task.slot), Outcome::cancelled(slot)));
                    }
                    // Also behind one whose answer is on its way.
                    None => found = lane.runs(number).map(|grace| (lane.worker, grace)),
                }
            }
        }
        if let Some((index, _)) = lanes::place_of(slot)
            && found.is_none()
            && inner.lanes.at(index).is_some()
        {
            rings |= self.unhold(&mut inner, index, now, &mut ends);
        }
        drop(inner);
        self.finish(ends, rings);
        found
    }

    /// A worker goes on as before.
    fn unhold(&self, inner: &mut Inner, index: usize, now: Instant, ends: &mut Ends) -> bool {
        if let Some(lane) = inner.lanes.at(index) {
            lane.is_held = false;
        }
        inner.lanes.are_full = false;
        // Its next task has a time of its own.
        let answered = match self.settle(inner, index, now, 0) {
            false => vec![index],
            true => Vec::new(),
        };
        self.go_on(inner, answered, ends)
    }

    /// Hands nothing more to a worker, and leaves it the one task that it is at.
    fn hold(&self, inner: &mut Inner, index: usize, now: Instant, ends: &mut Ends) {
        if let Some(lane) = inner.lanes.at(index) {
            lane.is_held = true;
            self.withdraw_behind(inner, index, 1, now, ends);
        }
    }

    /// A worker has ended, or is given up: its task ends in `error`, and what it had not begun goes back. Whether it had
    /// a task.
    pub(super) fn lane_ended(&self, id: WorkerId, error: &Error, now: Instant) -> bool {
        let mut inner = self.locked();
        let Some(lane) = inner.lanes.remove(id) else {
            return false;
        };
        let mut ends = Ends::new();
        let back = lane.end(&mut ends, error);
        let (ended, given_back) = (ends.len(), back.len());
        inner.state.unhand(id, ended + given_back, ended, now);
        for (behind, Handed { task, rank }) in back.into_iter().enumerate() {
            // One that was next, with nobody before it, may be what it died of before it could say so.
            if ended == 0 && behind == 0 && task.came_back_too_often() {
                let name = task.slot.name.to_string();
                ends.push((task.slot, Outcome::Failed(error.clone().with_task(name))));
            } else {
                self.requeue(&mut inner, task, rank, &mut ends);
            }
        }
        let rings = self.feed(&mut inner, &mut ends) || inner.state.wants_decision();
        drop(inner);
        self.finish(ends, rings);
        ended > 0
    }

    /// What is due at some time: quiet lanes are looked at, and workers are named whose tasks have had their time.
    pub(super) fn tend(&self, inner: &mut Inner, now: Instant, ends: &mut Ends) -> Vec<WorkerId> {
        let mut overdue = Vec::new();
        inner.lanes.are_full = false;
        let is_look_due = inner.lanes.look_at.is_some_and(|at| at <= now);
        if is_look_due {
            inner.lanes.look_at = None;
        }
        for index in 0..inner.lanes.all.len() {
            let Some(lane) = inner.lanes.at(index) else {
                continue;
            };
            let (id, is_quiet) = (lane.worker, lane.is_quiet);
            if lane.deadline().is_some_and(|deadline| deadline <= now) {
                self.hold(inner, index, now, ends);
                overdue.push(id);
            } else if is_look_due && is_quiet {
                self.take_in(inner, index, now, ends);
            }
        }
        // Workers that are on their way out keep what they run; what they have not begun is for others.
        match inner.state.runs_queue() {
            true => _ = self.feed(inner, ends),
            false => {
                for index in 0..inner.lanes.all.len() {
                    self.withdraw_behind(inner, index, 0, now, ends);
                }
            }
        }
        overdue
    }

    /// Whether the task that a worker is at has had its time, all answers being read: how long that was, and how long it
    /// may take to end.
    pub(super) fn overdue(&self, id: WorkerId, now: Instant) -> Option<(Duration, Duration)> {
        let mut found = None;
        self.with_lane(id, |pool, inner, index, ends| {
            let rings = pool.take_in(inner, index, now, ends);
            let Some(lane) = inner.lanes.at(index) else {
                return rings;
            };
            found = lane
                .first_terms()
                .filter(|_| lane.due().is_some_and(|due| due <= now))
                .map(|terms| (terms.limit.unwrap_or_default(), terms.grace));
            if found.is_some() {
                return rings;
            }
            pool.unhold(inner, index, now, ends) || rings
        });
        found
    }

    /// What linked workers are at.
    pub(crate) fn tasks_at_work(&self) -> HashMap<WorkerId, TaskId> {
        let inner = self.locked();
        let lanes = inner.lanes.all.iter().flatten();
        lanes
            .filter_map(|lane| Some((lane.worker, lane.first()?.slot.id)))
            .collect()
    }

    fn with_lane(&self, id: WorkerId, run: impl FnOnce(&PoolCore, &mut Inner, usize, &mut Ends) -> bool) {
        let mut inner = self.locked();
        let Some(index) = inner.lanes.by_worker.get(&id).copied() else {
            return;
        };
        let mut ends = Ends::new();
        let rings = run(self, &mut inner, index, &mut ends);
        drop(inner);
        self.finish(ends, rings);
    }

    // --- what any thread does, with the pool locked; whether the supervisor has to look ---

    /// Hands out what waits, as far as workers can take it.
    pub(super) fn feed(&self, inner: &mut Inner, ends: &mut Ends) -> bool {
        self.go_on(inner, Vec::new(), ends)
    }

    /// Takes in a worker's answers, and hands out more for them.
    pub(super) fn take_in(&self, inner: &mut Inner, index: usize, now: Instant, ends: &mut Ends) -> bool {
        let ended = self.take_answers(inner, index, now, ends);
        let answered = match self.settle(inner, index, now, ended) {
            false => vec![index],
            true => Vec::new(),
        };
        match ended > 0 || !answered.is_empty() {
            true => self.go_on(inner, answered, ends),
            false => self.is_plan_late(inner),
        }
    }

    /// Hands out what waits, and takes in the answers of those that are as fast as this.
    fn go_on(&self, inner: &mut Inner, mut answered: Vec<usize>, ends: &mut Ends) -> bool {
        for _ in 0..MOST_ROUNDS {
            let now = Now::default();
            for index in std::mem::take(&mut answered) {
                let ended = self.take_answers(inner, index, now.get(), ends);
                if !self.settle(inner, index, now.get(), ended) {
                    answered.push(index);
                }
            }
            while let Some(index) = self.next_lane(inner) {
                if self.hand(inner, index, &now, ends) {
                    answered.push(index);
                }
            }
            self.share(inner, &now, ends);
            if answered.is_empty() && inner.state.queued_here() == 0
                || answered.is_empty() && self.next_lane(inner).is_none()
            {
                return self.is_plan_late(inner) || inner.state.wants_decision();
            }
        }
        // Others want the lock, too. The supervisor goes on with what is left.
        let now = Instant::now();
        for index in answered {
            if let Some(lane) = inner.lanes.at(index) {
                lane.is_quiet = true;
                inner.lanes.look_at = Some(now);
            }
        }
        inner.lanes.plan(inner.lanes.look_at);
        true
    }

    /// The lane that should get the task that is next.
    fn next_lane(&self, inner: &mut Inner) -> Option<usize> {
        if !inner.state.runs_queue() {
            return None;
        }
        let (_, task) = inner.state.first()?;
        let is_large = !lanes::fits_cell(&task.work.payload);
        match inner.state.idle_linked() {
            Some(id) => {
                let index = inner.lanes.by_worker.get(&id).copied();
                index.filter(|index| inner.lanes.at(*index).is_some_and(|lane| lane.room() > 0))
            }
            None if is_large || !inner.state.hands_ahead() => None,
            None => inner.roomy_lane(),
        }
    }

    /// Hands the next task to a worker; whether there is an answer by now.
    fn hand(&self, inner: &mut Inner, index: usize, now: &Now, ends: &mut Ends) -> bool {
        let Some(lane) = inner.lanes.all.get_mut(index).and_then(Option::as_mut) else {
            return false;
        };
        let is_first = lane.first().is_none();
        let Some(next) = inner.state.hand(lane.worker, || now.get()) else {
            return false;
        };
        self.put_up(inner, index, next, now, ends) && is_first && !self.settle(inner, index, now.get(), 0)
    }

    /// Puts up what was handed out; false: it cannot be.
    pub(super) fn put_up(
        &self,
        inner: &mut Inner,
        index: usize,
        (rank, task): (Rank, PoolTask),
        now: &Now,
        ends: &mut Ends,
    ) -> bool {
        let Some(lane) = inner.lanes.all.get_mut(index).and_then(Option::as_mut) else {
            return false;
        };
        if !task.work.payload.attached().is_empty() {
            self.context.plan_to_tidy(now.get());
        }
        let (id, is_first) = (lane.worker, lane.first().is_none());
        lanes::set_place(&task.slot, index, lane.next_number());
        match lane.put_up(task, rank, now) {
            Put::Up => {}
            // A supervisor that is gone ends all that is left.
            Put::Partly => _ = self.context.send(Command::Calls(id)),
            Put::Refused(PoolTask { slot, work, .. }, cause) => {
                ends.drop_later(work.payload);
                inner.lanes.lead.forget_open();
                inner.state.unhand(id, 1, 0, now.get());
                let error = Error::new(slot.name.to_string(), cause);
                ends.push((slot, Outcome::Failed(error)));
                return false;
            }
        }
        if std::mem::take(&mut lane.wants_bell) {
            ends.bells.push(Arc::clone(&lane.shared));
        }
        if !is_first {
            let worst = inner.lanes.worst_ahead;
            inner.lanes.worst_ahead = Some(worst.map_or(rank.priority, |worst| worst.max(rank.priority)));
        }
        true
    }

    /// Takes a worker's answers; how many tasks have ended.
    fn take_answers(&self, inner: &mut Inner, index: usize, now: Instant, ends: &mut Ends) -> usize {
        let Some(lane) = inner.lanes.at(index) else {
            return 0;
        };
        let ended = lane.take_answers(ends);
        if ended > 0 {
            let (id, pace) = (lane.worker, lane.pace(ended, now));
            inner.lanes.note_pace(pace);
            inner.lanes.are_full = false;
            inner.state.unhand(id, ended, ended, now);
            if inner.sleepers > 0 {
                self.changed.notify_all();
            }
        }
        ended
    }

    /// Has the worker ring for what comes next, after so many have ended, and notes when somebody has to look anyway. False:
    /// there is something now.
    fn settle(&self, inner: &mut Inner, index: usize, now: Instant, ended: usize) -> bool {
        let Some(worker) = inner.lanes.at(index).map(|lane| lane.worker) else {
            return true;
        };
        // Those that stay in the queue until a worker is free are not on their way.
        let next = inner.state.first();
        let are_coming =
            next.is_some_and(|(_, task)| lanes::fits_cell(&task.work.payload)) && inner.state.hands_ahead();
        let queued = match are_coming {
            true => inner.state.queued_here().min(inner.state.room_of(worker)),
            false => 0,
        };
        let (depth, is_led) = (inner.lanes.depth(), inner.lanes.lead.is_on(now));
        let Some(lane) = inner.lanes.at(index) else {
            return true;
        };
        let coming = queued.min(depth.saturating_sub(lane.len()));
        // Short as tasks may have been, one that has taken so long already is no stream.
        let rings = match lane.waited(now) < LOOK_AFTER {
            true if is_led => Rings::BeforeSleep,
            true if ended.max(lane.len() + coming) >= STREAM => Rings::WhenMost,
            _ => Rings::ForEach,
        };
        let is_armed = lane.arm(rings, coming);
        let look_at = lane.is_quiet.then(|| now + LOOK_AFTER);
        let wanted = [lane.deadline(), look_at].into_iter().flatten().min();
        let lanes = &mut inner.lanes;
        lanes.look_at = lanes.look_at.or(look_at);
        lanes.plan(wanted);
        is_armed
    }

    /// Whether the supervisor would come too late for what was noted since it was last here.
    fn is_plan_late(&self, inner: &mut Inner) -> bool {
        // A worker may have become idle, which ends some time.
        inner.lanes.plan(inner.state.next_deadline());
        std::mem::take(&mut inner.lanes.is_plan_late)
    }

    /// Puts what a worker has not begun back where it was, but for its first `keep` calls.
    pub(super) fn withdraw_behind(
        &self,
        inner: &mut Inner,
        index: usize,
        keep: usize,
        now: Instant,
        ends: &mut Ends,
    ) {
        let Some(lane) = inner.lanes.at(index) else {
            return;
        };
        let (id, back) = (lane.worker, lane.withdraw_last(keep, usize::MAX));
        self.requeue_all(inner, id, back, now, ends);
    }

    fn requeue_all(&self, inner: &mut Inner, id: WorkerId, back: Vec<Handed>, now: Instant, ends: &mut Ends) {
        inner.lanes.are_full = false;
        inner.state.unhand(id, back.len(), 0, now);
        for Handed { task, rank } in back {
            self.requeue(inner, task, rank, ends);
        }
    }

    /// A worker that ran dry gets what another has not begun.
    fn share(&self, inner: &mut Inner, now: &Now, ends: &mut Ends) {
        if inner.state.queued_here() > 0 || !inner.state.has_ahead() || inner.state.idle_linked().is_none() {
            return;
        }
        let lanes = inner.lanes.all.iter().enumerate();
        let lanes = lanes.filter_map(|(index, lane)| Some((lane.as_ref()?.waiting(), index)));
        if let Some((waiting, index)) = lanes.max()
            && let Some(lane) = inner.lanes.at(index)
        {
            let (id, back) = (lane.worker, lane.withdraw_last(1, waiting.div_ceil(2)));
            self.requeue_all(inner, id, back, now.get(), ends);
        }
    }
}

impl Inner {
    /// The worker, which is idle, gets its tasks over this lane from here on.
    pub(super) fn link(&mut self, lane: Lane) {
        self.state.link(lane.worker);
        self.lanes.insert(lane);
    }

    /// A lane that should have more at hand.
    pub(super) fn roomy_lane(&mut self) -> Option<usize> {
        if self.lanes.are_full {
            return None;
        }
        let (depth, count) = (self.lanes.depth(), self.lanes.all.len());
        for step in 0..count {
            let index = (self.lanes.last + step) % count;
            let Some(lane) = self.lanes.at(index) else {
                continue;
            };
            let (len, room, id) = (lane.len(), lane.room(), lane.worker);
            if len < depth && room > 0 && self.state.room_of(id) > 0 {
                self.lanes.last = index;
                return Some(index);
            }
        }
        self.lanes.are_full = true;
        None
    }
}

/// Work that a worker has at hand, if tasks are short.
const AHEAD: Duration = Duration::from_micros(200);

/// So many answers, or calls, at once make a stream.
const STREAM: usize = 4;

/// In a stream an answer may lie for so long before somebody looks, if the task behind it takes long.
const LOOK_AFTER: Duration = Duration::from_millis(1);

/// So often in a row a thread goes on with the lock, if workers are as fast as it is.
const MOST_ROUNDS: usize = 64;
