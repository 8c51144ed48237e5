//! Who holds permits, and who waits for one: the limiters of this process that are in use.
//!
//! A limiter that is not in the table has all its permits. So a limiter owns nothing that has to be made or freed, which
//! lets it stand in a `static`; and a fork has fresh limiters by starting with an empty table, without a look at the old
//! one, which a thread that does not exist there may have locked.
//!
//! ```text
//!              a permit is free                     dropped, nobody waits
//!  asks for --------------------------> held by ---------------------------> free
//!  a permit                             somebody
//!      |        at the head, and           ^
//!      +-----> waits in the queue ---------+
//!      none        | a permit is dropped
//!      is free     | deadline: leaves the queue
//!                  v
//!                nothing
//! ```
//!
//! A dropped permit is never free while somebody waits: it passes from hand to hand with the table locked. To wait is to
//! have a ticket in the queue; a ticket that is gone was exchanged for a permit, and the one who had it owns that from then
//! on, awake or not.

use std::cell::RefCell;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::mem::ManuallyDrop;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use super::{Limiter, Permit};
use crate::sync::{contain, lock, sleep_on};
use crate::sys::{self, Global};

/// What a task that waits is started by.
pub(super) type Start = Box<dyn FnOnce(Permit) + Send>;

/// Tells limiters apart. Never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct LimiterId(pub(super) u64);

/// The limiters of one process that are in use. It is never freed: permits refer to it, and a fork leaves it as it is.
pub(super) struct Table {
    pub(super) generation: u64,
    in_use: Mutex<HashMap<LimiterId, Use>>,
}

/// What one limiter has given away. If there is somebody in the queue, then no permit is free.
#[derive(Default)]
struct Use {
    /// At least one, or it would not be in the table.
    taken: usize,
    queue: BTreeMap<Ticket, Waiter>,
    last_ticket: Ticket,
}

/// A place in a queue. Those of one limiter are given in order, and not again while anybody has one.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Ticket(u64);

enum Waiter {
    /// A thread that sleeps, on a condition of its own so that nobody else is woken.
    Thread(Arc<Condvar>),
    Start(Start),
}

/// How a limiter is at a moment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) free: usize,
    pub(super) waiting: usize,
}

impl Table {
    fn new(generation: u64) -> Table {
        Table {
            generation,
            in_use: Mutex::default(),
        }
    }

    pub(super) fn try_acquire(&'static self, limiter: &Limiter) -> Option<Permit> {
        let id = limiter.id();
        let is_taken = lock(&self.in_use).entry(id).or_default().take(limiter.permits);
        is_taken.then(|| self.permit(id))
    }

    /// A permit, or `None` when the deadline has passed.
    pub(super) fn acquire(&'static self, limiter: &Limiter, deadline: Option<Instant>) -> Option<Permit> {
        let id = limiter.id();
        let mut in_use = lock(&self.in_use);
        let of_limiter = in_use.entry(id).or_default();
        if of_limiter.take(limiter.permits) {
            return Some(self.permit(id));
        }
        let turn = Arc::new(Condvar::new());
        let ticket = of_limiter.queue(Waiter::Thread(Arc::clone(&turn)));
        loop {
            let (guard, is_over) = match sleep_on(&turn, in_use, deadline) {
                Ok(guard) => (guard, false),
                Err(guard) => (guard, true),
            };
            in_use = guard;
            let queue = in_use.get_mut(&id).map(|of_limiter| &mut of_limiter.queue);
            match queue {
                Some(queue) if queue.contains_key(&ticket) => {
                    if is_over {
                        queue.remove(&ticket);
                        return None;
                    }
                }
                // A permit that came at the last moment has come.
                _ => return Some(self.permit(id)),
            }
        }
    }

    pub(super) fn enter(&'static self, limiter: &Limiter, start: Start) {
        let id = limiter.id();
        let mut in_use = lock(&self.in_use);
        let of_limiter = in_use.entry(id).or_default();
        if of_limiter.take(limiter.permits) {
            drop(in_use);
            let permit = self.permit(id);
            contain(|| start(permit));
        } else {
            of_limiter.queue(Waiter::Start(start));
        }
    }

    /// Passes a permit on to who has waited longest.
    pub(super) fn release(&'static self, id: LimiterId) {
        let mut in_use = lock(&self.in_use);
        let Entry::Occupied(mut of_limiter) = in_use.entry(id) else {
            unreachable!("a limiter is in the table while a permit of it is held");
        };
        let next = of_limiter.get_mut().queue.pop_first();
        if next.is_none() {
            of_limiter.get_mut().taken -= 1;
            if of_limiter.get().taken == 0 {
                of_limiter.remove();
            }
        }
        drop(in_use);
        match next {
            None => {}
            Some((_, Waiter::Thread(turn))) => turn.notify_one(),
            Some((_, Waiter::Start(start))) => run_due(start, self.permit(id)),
        }
    }

    pub(super) fn look(&self, limiter: &Limiter) -> Seen {
        let in_use = lock(&self.in_use);
        let of_limiter = in_use.get(&limiter.id());
        Seen {
            free: limiter.permits - of_limiter.map_or(0, |of_limiter| of_limiter.taken),
            waiting: of_limiter.map_or(0, |of_limiter| of_limiter.queue.len()),
        }
    }

    /// How many limiters it knows.
    #[cfg(test)]
    pub(super) fn used(&self) -> usize {
        lock(&self.in_use).len()
    }

    /// Does something while somebody has it locked.
    #[cfg(test)]
    pub(super) fn while_locked(&self, run: impl FnOnce()) {
        let _in_use = lock(&self.in_use);
        run();
    }

    /// What was taken in the table, as a value.
    fn permit(&'static self, limiter: LimiterId) -> Permit {
        Permit { table: self, limiter }
    }
}

impl Use {
    fn take(&mut self, permits: usize) -> bool {
        let is_free = self.taken < permits;
        self.taken += usize::from(is_free);
        is_free
    }

    fn queue(&mut self, waiter: Waiter) -> Ticket {
        self.last_ticket.0 += 1;
        self.queue.insert(self.last_ticket, waiter);
        self.last_ticket
    }
}

/// Runs a start whose turn has come. If it is a start of this thread that freed the permit, then after that one: starts
/// that free at once what they are given would stand on each other's stack otherwise.
fn run_due(start: Start, permit: Permit) {
    let table = permit.table;
    let mut next = DUE.with(|due| {
        let mut due = due.borrow_mut();
        match due.as_mut() {
            Some(due) if std::ptr::eq(due.table, table) => {
                due.starts.push_back((start, permit));
                None
            }
            // In a fork that was made by a start: nobody will come back there to what is due in its parent.
            _ => {
                let starts = VecDeque::new();
                std::mem::forget(due.replace(Due { table, starts }));
                Some((start, permit))
            }
        }
    });
    while let Some((start, permit)) = next {
        contain(|| start(permit));
        next = DUE.with(|due| {
            let mut due = due.borrow_mut();
            let next = due.as_mut().and_then(|due| due.starts.pop_front());
            if next.is_none() {
                *due = None;
            }
            next
        });
    }
}

/// What a thread that runs a start has to run after it.
struct Due {
    table: &'static Table,
    starts: VecDeque<(Start, Permit)>,
}

/// The table of this process.
pub(super) fn current() -> &'static Table {
    current_in(&CURRENT, sys::generation())
}

/// A fork starts with a table of its own: what its parent's threads hold is not its affair.
pub(super) fn current_in(place: &Global<Table>, generation: u64) -> &'static Table {
    match place.get() {
        Some(table) if table.generation == generation => table,
        old => {
            // Before there is anything that a fork has to tell from its own.
            sys::watch_forks();
            place.replace(old, Box::new(Table::new(generation)))
        }
    }
}

static CURRENT: Global<Table> = Global::new();

thread_local! {
    /// Without a destructor, so that it is there also for permits that are dropped when the thread ends. It is `None`
    /// whenever no start runs: nothing is left to drop.
    static DUE: ManuallyDrop<RefCell<Option<Due>>> = const { ManuallyDrop::new(RefCell::new(None)) };
}
