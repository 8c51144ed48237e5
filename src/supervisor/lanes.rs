//! Workers that get their tasks from any thread: each has a *lane*, its board and what was put on it.
//!
//! Whoever holds the pool's lock may hand out tasks and take in answers: the thread that submits, the one that waits, and
//! the supervisor, which the worker rings when nobody else is there. What is the supervisor's alone: the pipe with the
//! answers that do not fit onto the board, time limits, and a worker's end.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::board::{CELL_BYTES, Posted, Seen};
use crate::error::{Cause, Error};
use crate::ids::{Rank, TaskId, WorkerId};
use crate::launch;
use crate::payload::Payload;
use crate::shared;
use crate::slot::{Outcome, Slot};
use crate::supervisor::pools::{PoolTask, Terms};
use crate::sync::{Now, Spin, lock};
use crate::sys::{self, CELLS, SharedBoard, Word};
use crate::transport::{Outgoing, Written};

/// One worker's.
pub(super) struct Lane {
    pub(super) worker: WorkerId,
    pub(super) shared: Arc<Shared>,
    pid: u32,
    /// That number is not only what the worker says of itself.
    is_pid_told: bool,
    depth: u32,
    /// Of the pool.
    terms: Arc<Terms>,
    /// The number of the next call, and of the first whose cell is not free.
    posted: u32,
    taken: u32,
    /// From `taken` to `posted`; `None`: withdrawn.
    at_hand: VecDeque<Option<Handed>>,
    /// The answer to the first call, which came by the pipe.
    said: Option<Said>,
    /// What the worker knows by a number.
    known: HashMap<Key, u32>,
    last_known: Option<(Key, u32)>,
    /// The call that a thread looks out for.
    attended: Option<u32>,
    /// Since when the first call is the first, or when answers were taken last.
    since: Instant,
    /// Nothing more is handed to it, for now: what it is at may have to end.
    pub(super) is_held: bool,
    is_closed: bool,
    /// What was to be written into the pipe is not all written.
    is_pending: bool,
    /// The last task that something is attached to: the one that `calls` may hold.
    loaded: Option<TaskId>,
    /// The worker sleeps over calls that were put up.
    pub(super) wants_bell: bool,
    /// It rings only after some more calls: then somebody has to look in time.
    pub(super) is_quiet: bool,
}

/// What a thread has of a lane that looks out for an answer.
pub(super) struct Shared {
    pub(super) board: SharedBoard,
    /// `None`: it gets no more calls. Locked after the pool, or alone.
    calls: Mutex<Option<Outgoing>>,
    /// Changed to have the thread look again that sleeps here.
    bell: Word,
    spin: Spin,
    /// The system cannot do what sleeping here takes.
    is_sleepless: AtomicBool,
}

/// An entry and a name, by where they stand.
type Key = (usize, usize);

/// A task at a worker.
pub(super) struct Handed {
    pub(super) task: PoolTask,
    pub(super) rank: Rank,
}

/// An answer that came by the pipe.
pub(super) enum Said {
    Returned { payload: Payload, is_err: bool },
    Failed(Cause, Vec<u8>),
}

/// What is to be done when the pool is not locked any more.
#[derive(Default)]
pub(super) struct Ends {
    /// Tasks that have ended.
    pub(super) tasks: Vec<(Arc<Slot>, Outcome)>,
    /// Workers that sleep over calls: whoever is woken may take the place of the thread that wakes it, which had better
    /// not hold the lock.
    pub(super) bells: Vec<Arc<Shared>>,
    /// Arguments that nobody needs any more: to give large ones back takes the system as long as to copy them.
    pub(super) arguments: Vec<Payload>,
}

impl Ends {
    pub(super) fn new() -> Ends {
        Ends::default()
    }

    pub(super) fn push(&mut self, end: (Arc<Slot>, Outcome)) {
        self.tasks.push(end);
    }

    /// A task does not need its arguments any more, which are dropped when the pool is not locked.
    pub(super) fn drop_later(&mut self, arguments: Payload) {
        if !matches!(arguments, Payload::Short { .. }) {
            self.arguments.push(arguments);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }
}

/// When a worker is to ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rings {
    /// When the first call that nobody looks out for is done.
    ForEach,
    /// When most of those at hand are, which are many and short.
    WhenMost,
    /// When it has nothing more at hand: threads that submit look all the time.
    BeforeSleep,
}

/// What became of a call that was put up.
pub(super) enum Put {
    Up,
    /// The pipe is full: the supervisor has to write the rest.
    Partly,
    /// It cannot be said in our language.
    Refused(PoolTask, Cause),
}

impl Lane {
    pub(super) fn new(
        worker: WorkerId,
        (pid, is_pid_told): (u32, bool),
        depth: u32,
        terms: Arc<Terms>,
        (calls, board): (Outgoing, SharedBoard),
        spin: Duration,
    ) -> Lane {
        let shared = Shared {
            board,
            calls: Mutex::new(Some(calls)),
            bell: Word::new(0),
            spin: Spin::new(spin),
            is_sleepless: AtomicBool::new(false),
        };
        Lane {
            worker,
            shared: Arc::new(shared),
            pid,
            is_pid_told,
            depth,
            terms,
            posted: 0,
            taken: 0,
            at_hand: VecDeque::new(),
            said: None,
            known: HashMap::new(),
            last_known: None,
            attended: None,
            since: Instant::now(),
            is_held: false,
            is_closed: false,
            is_pending: false,
            loaded: None,
            wants_bell: false,
            is_quiet: false,
        }
    }

    /// How many more calls fit on the board.
    pub(super) fn room(&self) -> usize {
        match self.is_held || self.is_closed {
            true => 0,
            false => CELLS - self.at_hand.len(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.at_hand.len()
    }

    /// Puts a call up. There must be room.
    pub(super) fn put_up(&mut self, task: PoolTask, rank: Rank, now: &Now) -> Put {
        let is_first = self.first().is_none();
        let slot = &task.slot;
        let limit = task.terms(&self.terms).limit;
        let key = (
            std::ptr::from_ref(task.work.entry).addr(),
            std::ptr::from_ref(slot.name).addr(),
        );
        let known = match self.last_known {
            Some((last, known)) if last == key => Some(known),
            _ => self.known.get(&key).copied(),
        };
        self.last_known = known.map(|known| (key, known));
        let in_cell = known.filter(|_| fits_cell(&task.work.payload));
        if (in_cell.is_none() || self.is_pending || self.is_closed)
            && let Err(cause) = self.write_call(&task, limit, in_cell.is_some(), (key, known))
        {
            return Put::Refused(task, cause);
        }
        let is_written = !self.is_pending;
        let number = self.posted;
        let posted = Posted {
            task: slot.id.0,
            attempt: slot.attempt(),
            limit,
            known: in_cell,
        };
        let arguments: &[u8] = in_cell.map_or(&[], |_| &task.work.payload);
        slot.set_pid(self.pid);
        let sleeps = self.shared.board.post(number, posted, arguments);
        // It may have read what lies in the pipe, and gone to sleep over that again. What is not written yet will wake it.
        self.wants_bell |= sleeps && is_written;
        if is_first {
            self.since = now.get();
        }
        self.at_hand.push_back(Some(Handed { task, rank }));
        self.posted = number.wrapping_add(1);
        match is_written {
            true => Put::Up,
            false => Put::Partly,
        }
    }

    /// Writes a call into the pipe, unless it `fits` into its cell, and what is left of others.
    fn write_call(
        &mut self,
        task: &PoolTask,
        limit: Option<Duration>,
        fits: bool,
        (key, known): (Key, Option<u32>),
    ) -> Result<(), Cause> {
        let mut calls = lock(&self.shared.calls);
        let Some(calls) = &mut *calls else {
            return Err(Cause::refused("the worker gets no more calls"));
        };
        if !fits {
            let mut call = task.work.call(&task.slot, self.depth, limit);
            call.is_posted = true;
            let next = self.known.len() as u32;
            call.remember = (known.is_none() && next < MOST_KNOWN).then_some(next);
            launch::send(calls, call, &task.work.payload)?;
            if !task.work.payload.attached().is_empty() {
                self.loaded = Some(task.slot.id);
            }
            if known.is_none() && next < MOST_KNOWN {
                self.known.insert(key, next);
            }
        }
        self.is_pending = calls.is_pending() && calls.step() == Written::Some;
        Ok(())
    }

    /// Takes a call back, if it has not begun.
    pub(super) fn withdraw(&mut self, number: u32) -> Option<Handed> {
        let place = self.at_hand.get_mut(number.wrapping_sub(self.taken) as usize)?;
        if place.is_none() || !self.shared.board.withdraw(number) {
            return None;
        }
        if self.attended == Some(number) {
            // The task goes on elsewhere.
            self.shared.ring();
        }
        let handed = place.take();
        self.let_go(handed.as_ref());
        handed
    }

    /// Takes back calls that have not begun, but for the first `keep`, and not more than `most`.
    pub(super) fn withdraw_last(&mut self, keep: usize, most: usize) -> Vec<Handed> {
        // From the end: the worker comes from the other side.
        let (taken, numbers) = (self.taken, (keep..self.at_hand.len()).rev());
        let back = numbers.filter_map(|at| self.withdraw(taken.wrapping_add(at as u32)));
        back.take(most).collect()
    }

    /// Takes in the answers that are there; how many tasks have ended by it.
    pub(super) fn take_answers(&mut self, ends: &mut Ends) -> usize {
        let before = ends.len();
        while self.taken != self.posted {
            let said = match self.shared.board.look(self.taken) {
                Seen::Answered { is_err, payload } => Some(Said::Returned { payload, is_err }),
                Seen::Elsewhere if self.said.is_some() => self.said.take(),
                // What was taken back is known here: a worker cannot say that of a task.
                Seen::Withdrawn { is_passed: true } if matches!(self.at_hand.front(), Some(None)) => None,
                Seen::Elsewhere | Seen::Withdrawn { .. } | Seen::Waiting | Seen::Begun => break,
            };
            let handed = self.at_hand.pop_front().flatten();
            self.let_go(handed.as_ref());
            if let (Some(handed), Some(said)) = (handed, said) {
                handed.answered(said, self.pid, &self.terms, ends);
            }
            self.taken = self.taken.wrapping_add(1);
        }
        ends.len() - before
    }

    /// Whether [`take_answers`](Lane::take_answers) would find something.
    fn has_answers(&self) -> bool {
        self.taken != self.posted
            && match self.shared.board.look(self.taken) {
                Seen::Answered { .. } => true,
                Seen::Elsewhere => self.said.is_some(),
                Seen::Withdrawn { is_passed } => is_passed && matches!(self.at_hand.front(), Some(None)),
                Seen::Waiting | Seen::Begun => false,
            }
    }

    /// Has the worker ring, also for the `coming`, which are about to be put up. False: the worker may have come to that before
    /// it was told, and there are answers to be taken.
    pub(super) fn arm(&mut self, rings: Rings, coming: usize) -> bool {
        let mut number = self.taken;
        if self.attended == Some(number) {
            number = number.wrapping_add(1);
        }
        let left = self.posted.wrapping_sub(number);
        let soon = (left as usize + coming).min(CELLS - 1) as u32;
        self.is_quiet = match rings {
            Rings::ForEach => false,
            Rings::WhenMost => soon > 1,
            Rings::BeforeSleep => soon > 0,
        };
        number = number.wrapping_add(match rings {
            _ if !self.is_quiet => 0,
            // Who waits looks when half of them are done, and comes before the supervisor.
            Rings::WhenMost => soon - soon.div_ceil(4),
            _ => CELLS as u32 - 2,
        });
        // What was never put up is never passed.
        let never = self.taken.wrapping_sub(1);
        let board = &self.shared.board;
        board.ring_after((soon > 0).then_some(number), never) || !self.has_answers()
    }

    /// The task that the worker is at, as far as one can tell from here.
    pub(super) fn first(&self) -> Option<&PoolTask> {
        let first = self.at_hand.iter().flatten().next();
        first.map(|handed| &handed.task)
    }

    pub(super) fn first_terms(&self) -> Option<&Terms> {
        self.first().map(|first| first.terms(&self.terms))
    }

    /// The number of the call that the worker is at, if all answers are taken in.
    pub(super) fn epoch(&self) -> u32 {
        self.taken
    }

    /// The longest answer that is taken.
    pub(super) fn most_result(&self) -> u64 {
        let limits = self
            .at_hand
            .iter()
            .flatten()
            .map(|handed| handed.task.terms(&self.terms).max_result);
        limits.max().unwrap_or(0)
    }

    /// When the first task has had its time, unless it is dealt with already.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.is_held {
            true => None,
            false => self.due(),
        }
    }

    /// When the first task has had its time; not if its answer is on its way.
    pub(super) fn due(&self) -> Option<Instant> {
        let limit = self.first_terms()?.limit?;
        match self.is_elsewhere(self.taken) {
            true => None,
            false => self.since.checked_add(limit),
        }
    }

    /// Whether the answer to a call comes by the pipe.
    pub(super) fn is_elsewhere(&self, number: u32) -> bool {
        self.shared.board.is_elsewhere(number)
    }

    /// Whether a task is what the worker is at: its grace.
    pub(super) fn runs(&self, number: u32) -> Option<Duration> {
        let handed = self.at_hand.get(number.wrapping_sub(self.taken) as usize)?;
        let is_begun = self.shared.board.look(number) == Seen::Begun;
        handed
            .as_ref()
            .filter(|_| is_begun)
            .map(|handed| handed.task.terms(&self.terms).grace)
    }

    /// How long tasks take here, measured by `ended` of them, which were taken in just now.
    pub(super) fn pace(&mut self, ended: usize, now: Instant) -> Duration {
        let took = self.waited(now);
        self.since = now;
        took / u32::try_from(ended.max(1)).unwrap_or(u32::MAX)
    }

    /// For how long the first call has been the first, or no answer came.
    pub(super) fn waited(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    /// Where a task stands, if it is here.
    pub(super) fn number_of(&self, slot: &Slot) -> Option<u32> {
        let (_, number) = place_of(slot)?;
        let handed = self.at_hand.get(number.wrapping_sub(self.taken) as usize)?;
        handed
            .as_ref()
            .is_some_and(|handed| handed.task.slot.id == slot.id)
            .then_some(number)
    }

    /// The number that the next call gets.
    pub(super) fn next_number(&self) -> u32 {
        self.posted
    }

    pub(super) fn slot_of(&self, number: u32) -> Option<Arc<Slot>> {
        let handed = self.at_hand.get(number.wrapping_sub(self.taken) as usize)?;
        handed.as_ref().map(|handed| Arc::clone(&handed.task.slot))
    }

    /// Whether the first call may have been answered.
    pub(super) fn is_answered(&self) -> bool {
        self.taken != self.posted && self.shared.board.has_passed(self.taken)
    }

    /// Whether half of the calls are done.
    pub(super) fn is_half_done(&self) -> bool {
        let half = self.taken.wrapping_add(self.at_hand.len() as u32 / 2);
        self.taken != self.posted && self.shared.board.has_passed(half)
    }

    /// How many calls wait behind the first.
    pub(super) fn waiting(&self) -> usize {
        self.at_hand.iter().flatten().count().saturating_sub(1)
    }

    /// A thread begins, or ends, to look out for a call. False: another one does.
    pub(super) fn attend(&mut self, number: u32) -> bool {
        if self.attended.is_some() {
            return false;
        }
        self.attended = Some(number);
        true
    }

    pub(super) fn leave(&mut self) {
        self.attended = None;
    }

    /// An answer came by the pipe; whether one was due.
    pub(super) fn hear(&mut self, said: Said) -> bool {
        // The worker marks a call before it answers it here, and one at a time.
        let is_due = self.first().is_some() && self.said.is_none() && self.is_elsewhere(self.taken);
        if is_due {
            self.said = Some(said);
        }
        is_due
    }

    /// A call is over here: its worker has let go of what is attached to it.
    fn let_go(&mut self, handed: Option<&Handed>) {
        if let (Some(loaded), Some(handed)) = (self.loaded, handed)
            && handed.task.slot.id == loaded
        {
            self.loaded = None;
            if let Some(calls) = &mut *lock(&self.shared.calls) {
                calls.answered(|| self.is_pid_told && shared::is_open_book(self.pid));
            }
        }
    }

    /// A copy that the first task made of its process may still read what is attached to its call.
    pub(super) fn shares(&mut self) {
        if let Some(calls) = &mut *lock(&self.shared.calls) {
            calls.answered(|| false);
        }
    }

    /// The worker cannot open what is attached to the first call: sends it the bytes. An error: it has them, or has not begun.
    pub(super) fn send_bytes(&mut self) -> Result<(), ()> {
        let first = self.first().map(|task| task.slot.id).ok_or(())?;
        let is_begun = matches!(self.shared.board.look(self.taken), Seen::Begun);
        match &mut *lock(&self.shared.calls) {
            // It was to get no more calls, and ends.
            None => Ok(()),
            Some(calls) => match is_begun && self.loaded == Some(first) && calls.push_bytes() {
                true => {
                    self.is_pending = true;
                    Ok(())
                }
                false => Err(()),
            },
        }
    }

    /// Whoever made the worker has told its number.
    pub(super) fn told_pid(&mut self, pid: u32) {
        self.pid = pid;
        self.is_pid_told = true;
    }

    /// The worker has ended: who was its victim, and what it had not begun.
    pub(super) fn end(mut self, ends: &mut Ends, error: &Error) -> Vec<Handed> {
        // Nobody can be asked any more whether it has let go of what it opened.
        self.shares();
        self.take_answers(ends);
        let mut back = Vec::new();
        let mut number = self.taken;
        for handed in std::mem::take(&mut self.at_hand) {
            let Some(handed) = handed else {
                number = number.wrapping_add(1);
                continue;
            };
            match self.shared.board.look(number) {
                Seen::Waiting => back.push(handed),
                Seen::Answered { is_err, payload } => {
                    handed.answered(Said::Returned { payload, is_err }, self.pid, &self.terms, ends);
                }
                _ => {
                    if let Some(said) = self.said.take() {
                        handed.answered(said, self.pid, &self.terms, ends);
                    } else {
                        let PoolTask { slot, work, .. } = handed.task;
                        ends.drop_later(work.payload);
                        let error = error.clone().with_task(slot.name.to_string());
                        ends.push((slot, Outcome::Failed(error)));
                    }
                }
            }
            number = number.wrapping_add(1);
        }
        self.shared.ring();
        back
    }

    /// Writes what is left of a call; whether that is all.
    pub(super) fn write(&mut self) -> bool {
        let mut calls = lock(&self.shared.calls);
        let is_written = calls.as_mut().is_none_or(|calls| calls.step() != Written::Some);
        self.is_pending = !is_written;
        is_written
    }

    /// Does something with the descriptor for its calls.
    pub(super) fn with_calls<R>(&self, run: impl FnOnce(&Outgoing) -> R) -> Option<R> {
        lock(&self.shared.calls).as_ref().map(run)
    }

    /// It gets no more calls.
    pub(super) fn close(&mut self) -> Option<Outgoing> {
        self.is_closed = true;
        lock(&self.shared.calls).take()
    }
}

impl Handed {
    fn answered(self, said: Said, pid: u32, of_pool: &Terms, ends: &mut Ends) {
        let max_result = self.task.terms(of_pool).max_result;
        let PoolTask { slot, work, .. } = self.task;
        ends.drop_later(work.payload);
        let failed = |cause| Error::new(slot.name.to_string(), cause);
        let outcome = match said {
            Said::Returned { payload, .. } if payload.len() as u64 > max_result => {
                let (len, limit) = (payload.len() as u64, max_result);
                let error = failed(Cause::ResultTooLarge { len, limit });
                Outcome::Failed(error.with_worker(Some(pid), Vec::new()))
            }
            Said::Returned { payload, is_err } => Outcome::Returned { payload, is_err },
            Said::Failed(cause, stderr) => Outcome::Failed(failed(cause).with_worker(Some(pid), stderr)),
        };
        ends.push((slot, outcome));
    }
}

impl Shared {
    /// Has the worker look at its board.
    pub(super) fn ring_worker(&self) {
        if let Some(calls) = &*lock(&self.calls) {
            calls.ring();
        }
    }

    /// Looks out for the end of a call for a moment.
    pub(super) fn spin(&self, number: u32) -> bool {
        self.spin.until(|| self.board.is_done(number))
    }

    /// Sleeps until the call is done, somebody rings, or the deadline passes; or for no reason. False: it cannot be slept
    /// here.
    pub(super) fn sleep(&self, number: u32, bell: u32, deadline: Option<Instant>) -> bool {
        let passed = &self.board.worker.passed;
        let seen = passed.load(Ordering::SeqCst);
        if !self.board.wake_after(number) {
            return true;
        }
        let slept = sys::sleep_on_words((passed, seen), (&self.bell, bell), deadline);
        if slept.is_err() {
            self.is_sleepless.store(true, Ordering::Relaxed);
        }
        slept.is_ok()
    }

    pub(super) fn can_sleep(&self) -> bool {
        !self.is_sleepless.load(Ordering::Relaxed)
    }

    pub(super) fn bell(&self) -> u32 {
        self.bell.load(Ordering::SeqCst)
    }

    /// Has the thread look again that sleeps here.
    pub(super) fn ring(&self) {
        self.bell.fetch_add(1, Ordering::SeqCst);
        sys::wake_own(&self.bell);
    }
}

/// Whether arguments can stand on a board.
pub(super) fn fits_cell(payload: &Payload) -> bool {
    payload.len() <= CELL_BYTES && payload.attached().is_empty()
}

/// Marks where a task was handed over.
pub(super) fn set_place(slot: &Slot, lane: usize, number: u32) {
    slot.at
        .store((lane as u64 + 1) << 32 | u64::from(number), Ordering::Relaxed);
}

/// Where a task was handed over last, if it was.
pub(super) fn place_of(slot: &Slot) -> Option<(usize, u32)> {
    let at = slot.at.load(Ordering::Relaxed);
    let lane = usize::try_from(at >> 32).ok()?.checked_sub(1)?;
    Some((lane, at as u32))
}

/// A worker remembers so many kinds of calls.
const MOST_KNOWN: u32 = 1024;
