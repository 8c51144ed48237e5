//! `Hydra`: one queue of items, and heads that compete for them, each a function with workers of its own.
//!
//! Items wait here and not in the heads' pools, so that whichever head has a free worker takes the next. A thread, the
//! feeder, gives them out: it sleeps on the queue of tasks that have ended, and runs the users' closures that make calls.
//!
//! ```text
//! add_work ---> waiting ---> fed ---> at a head ---> done ---> get_result
//!                  ^          |           |
//!                  +----------+-----------+  the head was killed before a worker had begun
//!                  +----------+-----------+> cleanup gives it back
//! ```
//!
//! Lock order: a hydra's lock before a pool's and a slot's. No user code runs with it locked.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use crate::call::Call;
use crate::error::{Cause, Error, Result};
use crate::future::TaskFuture;
use crate::ids::Name;
use crate::pool::{Pool, PoolBuilder, Shutdown};
use crate::ready::Ready;
use crate::sync::{lock, sleep_on};
use crate::wire::Panic;
use crate::worker;

/// Many items, and several functions that compete for them: whichever has a free worker takes the next one.
///
/// A function with its workers is a head: [`do_work`](Hydra::do_work) adds one, before or after the items. Each item that was
/// [added](Hydra::add_work) comes out once: as a result, which may be an error and says what became of which item in which
/// head, or, if no worker has begun it, from [`cleanup`](Hydra::cleanup). A worker that dies costs the item that it was at.
/// Waiting items cost their memory and nothing else.
///
/// **Dropping it** drops the items that no worker has begun. Those that run come to their end, unheard, without being waited
/// for; then the workers end.
///
/// It has a thread of its own, beside which [`StartMethod::Fork`](crate::StartMethod::Fork) is refused.
///
/// # Examples
///
/// ```
/// use inparallel::{task, Hydra};
///
/// #[task]
/// fn add(number: u64) -> u64 {
///     number + number
/// }
///
/// #[task]
/// fn multiply(number: u64) -> u64 {
///     number * number
/// }
///
/// let hydra = Hydra::new()?;
/// for number in 0..100 {
///     hydra.add_work(number);
/// }
/// hydra.do_work("adder", add::later).workers(2)?;
/// hydra.do_work("multiplier", multiply::later).workers(1)?;
/// for done in hydra.get_results(100) {
///     let expected = match done.head.as_str() {
///         "adder" => done.item + done.item,
///         _ => done.item * done.item,
///     };
///     assert_eq!(done.result?, expected);
/// }
/// # Ok::<(), inparallel::Error>(())
/// ```
pub struct Hydra<In, Out> {
    shared: Arc<Shared<In, Out>>,
}

/// What became of one item.
#[derive(Debug, Clone)]
pub struct Worked<In, Out> {
    /// Its number: items count from 0, in the order in which they were added.
    pub index: usize,
    /// The item.
    pub item: In,
    /// The name of the head that took it.
    pub head: String,
    /// What the head's function returned, an `Err` of its own too, or why it did not return.
    pub result: Result<Out>,
}

/// A head that has no workers yet: see [`Hydra::do_work`].
#[must_use = "a head does nothing until `workers` says how many it has"]
pub struct DoWork<'a, In, Out> {
    hydra: &'a Hydra<In, Out>,
    name: String,
    call: Arc<MakeCall<In, Out>>,
}

type MakeCall<In, Out> = dyn Fn(In) -> Call<Out> + Send + Sync;

struct Shared<In, Out> {
    state: Mutex<State<In, Out>>,
    /// There is a result, or none will come.
    changed: Condvar,
    /// What the feeder sleeps on: keys of tasks that have ended, and `LOOK`.
    ready: Arc<Ready>,
}

struct State<In, Out> {
    waiting: VecDeque<Item<In>>,
    /// What the feeder is about to give to a head. Whoever takes it away in the meantime has it.
    fed: Option<Item<In>>,
    at_heads: HashMap<u64, AtHead<In, Out>>,
    done: VecDeque<AtHead<In, Out>>,
    heads: Vec<Head<In, Out>>,
    added: usize,
    /// Items that were ever given to a head.
    given: u64,
    is_over: bool,
}

struct Item<In> {
    index: usize,
    value: Arc<In>,
}

/// An item that a head has, or had.
struct AtHead<In, Out> {
    item: Item<In>,
    head: HeadName,
    future: TaskFuture<Out>,
}

struct Head<In, Out> {
    name: HeadName,
    call: Arc<MakeCall<In, Out>>,
    pool: Pool,
    workers: usize,
    /// How many items it has.
    items: usize,
}

/// The same head if it is the same `Arc`: a name may be used again when its head was killed.
type HeadName = Arc<str>;

impl<In, Out> Hydra<In, Out>
where
    In: Clone + Send + Sync + 'static,
    Out: 'static,
{
    /// A hydra without heads and items.
    ///
    /// # Errors
    ///
    /// [`Launch`](crate::ErrorKind::Launch) if its thread cannot be started.
    pub fn new() -> Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                fed: None,
                at_heads: HashMap::new(),
                done: VecDeque::new(),
                heads: Vec::new(),
                added: 0,
                given: 0,
                is_over: false,
            }),
            changed: Condvar::new(),
            ready: Arc::default(),
        });
        let feeder = Arc::clone(&shared);
        let builder = std::thread::Builder::new().name("inparallel-hydra".to_owned());
        match builder.spawn(move || feeder.feed()) {
            Ok(_) => Ok(Hydra { shared }),
            Err(error) => Err(Error::new(
                "",
                Cause::launch("start the thread of a hydra", error),
            )),
        }
    }

    /// Adds an item for whichever head is free first, and gives its number.
    ///
    /// It is cloned for the head that takes it, so that its result can say which it was.
    pub fn add_work(&self, item: In) -> usize {
        let mut state = lock(&self.shared.state);
        let index = state.added;
        state.added += 1;
        state.waiting.push_back(Item {
            index,
            value: Arc::new(item),
        });
        let is_wanted = state.heads.iter().any(Head::has_room);
        drop(state);
        if is_wanted {
            self.shared.ready.push(LOOK);
        }
        index
    }

    /// Adds a head: a function that works on items. It begins when it is told how many [workers](DoWork::workers) it has.
    ///
    /// `call` is `f::later`, or a closure that makes a call: `|item| f::with().timeout(limit).call_later(item)`. It is
    /// called in the hydra's thread. If it panics, that item is an error.
    pub fn do_work(
        &self,
        name: impl Into<String>,
        call: impl Fn(In) -> Call<Out> + Send + Sync + 'static,
    ) -> DoWork<'_, In, Out> {
        DoWork {
            hydra: self,
            name: name.into(),
            call: Arc::new(call),
        }
    }

    /// Ends a head, and what its workers are at: those items are [`Cancelled`](crate::ErrorKind::Cancelled). Those that its
    /// workers had not begun are left to other heads.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) if there is no head of this name.
    pub fn kill_worker(&self, head: &str) -> Result<()> {
        let mut guard = lock(&self.shared.state);
        let state = &mut *guard;
        let Some(at) = state.heads.iter().position(|known| &*known.name == head) else {
            let known: Vec<_> = state.heads.iter().map(|head| &*head.name).collect();
            let remedy = match known.is_empty() {
                true => "there is no head; do_work adds one".to_owned(),
                false => format!("there are: {}", known.join(", ")),
            };
            return Err(Error::invalid("head", format!("{head:?}"), remedy));
        };
        let killed = state.heads.remove(at);
        let back = state.withdraw(|head| Arc::ptr_eq(head, &killed.name));
        back.into_iter()
            .rev()
            .for_each(|item| state.waiting.push_front(item));
        drop(guard);
        self.shared.changed.notify_all();
        self.shared.ready.push(LOOK);
        killed.pool.shutdown(Shutdown::Kill, Some(Duration::ZERO));
        Ok(())
    }

    /// Ends all heads and what their workers are at, waits until the workers are gone, and gives back the items that none
    /// of them had begun, with their numbers.
    ///
    /// Items that they were at are results, [`Cancelled`](crate::ErrorKind::Cancelled). Then it is as new: items and heads
    /// may be added again. Numbers go on.
    ///
    /// # Examples
    ///
    /// ```
    /// use inparallel::{task, Hydra};
    ///
    /// #[task]
    /// fn forever(_: u32) {
    ///     loop {
    ///         std::thread::park();
    ///     }
    /// }
    ///
    /// let hydra = Hydra::new()?;
    /// hydra.do_work("sleeper", forever::later).workers(2)?;
    /// (10..20).for_each(|item| _ = hydra.add_work(item));
    /// let unfinished = hydra.cleanup();
    /// let killed = hydra.get_results(10);
    /// assert!(unfinished.len() >= 8 && unfinished.contains(&(9, 19)));
    /// assert_eq!(unfinished.len() + killed.len(), 10);
    /// # Ok::<(), inparallel::Error>(())
    /// ```
    pub fn cleanup(&self) -> Vec<(usize, In)> {
        let mut state = lock(&self.shared.state);
        let heads = std::mem::take(&mut state.heads);
        let mut items = state.withdraw(|_| true);
        items.extend(state.fed.take());
        items.extend(state.waiting.drain(..));
        drop(state);
        self.shared.changed.notify_all();
        for head in &heads {
            head.pool.shutdown(Shutdown::Kill, Some(Duration::ZERO));
        }
        for head in &heads {
            head.pool.shutdown(Shutdown::Kill, None);
        }
        items.sort_unstable_by_key(|item| item.index);
        items.into_iter().map(Item::into_pair).collect()
    }

    /// How many items wait for a head.
    pub fn waiting(&self) -> usize {
        let state = lock(&self.shared.state);
        state.waiting.len() + usize::from(state.fed.is_some())
    }
}

impl<In, Out> Hydra<In, Out>
where
    In: Clone,
    Out: DeserializeOwned,
{
    /// The next result, in the order in which they come; waits for it.
    ///
    /// `None`: as things stand there will be none. No item is left, or none of the heads.
    pub fn get_result(&self) -> Option<Worked<In, Out>> {
        self.next_by(None)
    }

    /// Waits for so many results. There are fewer if [no more will come](Hydra::get_result).
    pub fn get_results(&self, count: usize) -> Vec<Worked<In, Out>> {
        self.results_by(count, None)
    }

    /// Waits for so many results, and no longer than `limit` for all of them together. What has come by then is given; the
    /// rest may be got later.
    pub fn get_results_timeout(&self, count: usize, limit: Duration) -> Vec<Worked<In, Out>> {
        self.results_by(count, Instant::now().checked_add(limit))
    }

    fn results_by(&self, count: usize, deadline: Option<Instant>) -> Vec<Worked<In, Out>> {
        std::iter::from_fn(|| self.next_by(deadline))
            .take(count)
            .collect()
    }

    fn next_by(&self, deadline: Option<Instant>) -> Option<Worked<In, Out>> {
        let done = self.shared.next_done(deadline)?;
        let (index, item) = done.item.into_pair();
        Some(Worked {
            index,
            item,
            head: done.head.to_string(),
            result: done.future.wait(),
        })
    }
}

impl<In, Out> Drop for Hydra<In, Out> {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        state.is_over = true;
        let heads = std::mem::take(&mut state.heads);
        // Dropped without the lock: they are the user's.
        let items = (
            std::mem::take(&mut state.waiting),
            std::mem::take(&mut state.at_heads),
            std::mem::take(&mut state.done),
            state.fed.take(),
        );
        drop(state);
        self.shared.ready.push(LOOK);
        for head in &heads {
            head.pool.shutdown(Shutdown::Cancel, Some(Duration::ZERO));
        }
        drop(items);
    }
}

impl<In, Out> fmt::Debug for Hydra<In, Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = lock(&self.shared.state);
        let heads: Vec<_> = state.heads.iter().map(|head| &*head.name).collect();
        f.debug_struct("Hydra")
            .field("heads", &heads)
            .field("waiting", &state.waiting.len())
            .field("at_heads", &state.at_heads.len())
            .field("done", &state.done.len())
            .finish()
    }
}

impl<In, Out> DoWork<'_, In, Out> {
    /// Begins, with so many workers.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) for zero workers, and if there is a head of this name.
    pub fn workers(self, count: usize) -> Result<()> {
        self.pool(Pool::builder().workers(count))
    }

    /// Begins, with workers as this pool has them: their number, their start method, what they run first, options for all
    /// items of this head.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) if there is a head of this name, and for a pool with a name, which others might
    /// use or close; those of [`PoolBuilder::build`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use inparallel::{task, Hydra, Options, Pool};
    ///
    /// #[task]
    /// fn length(word: String) -> usize {
    ///     word.len()
    /// }
    ///
    /// let hydra = Hydra::new()?;
    /// let limit = Options::new().timeout(Duration::from_secs(30));
    /// hydra.do_work("measure", length::later).pool(Pool::builder().workers(2).options(limit))?;
    /// hydra.add_work("four".to_owned());
    /// assert_eq!(hydra.get_result().unwrap().result?, 4);
    /// # Ok::<(), inparallel::Error>(())
    /// ```
    pub fn pool(self, builder: PoolBuilder) -> Result<()> {
        if builder.has_name() {
            let remedy = "the pool of a head is its own; leave the name out";
            return Err(Error::invalid("pool name", "a name", remedy));
        }
        let pool = builder.build()?;
        let mut state = lock(&self.hydra.shared.state);
        if state.heads.iter().any(|head| *head.name == *self.name) {
            let remedy = "there is a head of this name; give each its own, or kill_worker the other before";
            return Err(Error::invalid("head", format!("{:?}", self.name), remedy));
        }
        state.heads.push(Head {
            name: self.name.into(),
            call: self.call,
            workers: pool.max_workers(),
            pool,
            items: 0,
        });
        drop(state);
        self.hydra.shared.ready.push(LOOK);
        Ok(())
    }
}

impl<In, Out> fmt::Debug for DoWork<'_, In, Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DoWork")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl<In, Out> Head<In, Out> {
    fn has_room(&self) -> bool {
        self.items < self.workers
    }
}

impl<In: Clone> Item<In> {
    fn into_pair(self) -> (usize, In) {
        (self.index, Arc::unwrap_or_clone(self.value))
    }
}

impl<In, Out> State<In, Out> {
    /// Whether no result will come, as things stand.
    fn is_dry(&self) -> bool {
        let nobody_has_one = self.at_heads.is_empty() && self.fed.is_none();
        nobody_has_one && (self.waiting.is_empty() || self.heads.is_empty())
    }

    /// Takes back what these heads have and their workers have not begun, in the order of the numbers. The rest ends.
    fn withdraw(&mut self, of: impl Fn(&HeadName) -> bool) -> Vec<Item<In>> {
        let theirs = self.at_heads.extract_if(|_, at| {
            let slot = at.future.slot();
            let is_back = of(&at.head) && slot.take_back();
            if of(&at.head) && !is_back {
                slot.cancel();
            }
            is_back
        });
        let mut items: Vec<_> = theirs.map(|(_, at)| at.item).collect();
        items.sort_unstable_by_key(|item| item.index);
        items
    }
}

impl<In, Out> Shared<In, Out> {
    /// An item whose task has ended. `None`: there will be none, or the deadline has passed.
    fn next_done(&self, deadline: Option<Instant>) -> Option<AtHead<In, Out>> {
        let mut state = lock(&self.state);
        while state.done.is_empty() && !state.is_dry() {
            state = match sleep_on(&self.changed, state, deadline) {
                Ok(state) => state,
                Err(mut state) => return state.done.pop_front(),
            };
        }
        state.done.pop_front()
    }
}

// --- the feeder -----------------------------------------------------------------------------------------------------

impl<In, Out> Shared<In, Out>
where
    In: Clone,
{
    fn feed(&self) {
        while let Some(key) = self.ready.next(None, || false) {
            self.ended(key);
            while let Some(key) = self.ready.try_next() {
                self.ended(key);
            }
            while self.feed_one() {}
            if lock(&self.state).is_over {
                return;
            }
        }
    }

    /// A task has ended, unless nobody wants to know: its head has a free worker, and there is a result.
    fn ended(&self, key: u64) {
        let mut state = lock(&self.state);
        let Some(done) = state.at_heads.remove(&key) else {
            return;
        };
        let head = state
            .heads
            .iter()
            .position(|head| Arc::ptr_eq(&head.name, &done.head));
        if let Some(at) = head {
            let head = &mut state.heads[at];
            head.items -= 1;
            // Its queued items end in the reason. It would take all others and fail them likewise.
            if done.future.slot().is_failed() && head.pool.is_broken() {
                state.heads.remove(at);
            }
        }
        state.done.push_back(done);
        drop(state);
        self.changed.notify_all();
    }

    /// Gives an item to a head that has a free worker; whether there were both.
    fn feed_one(&self) -> bool {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let Some(at) = state.heads.iter().position(Head::has_room) else {
            return false;
        };
        let Some(item) = state.waiting.pop_front() else {
            return false;
        };
        // The next item is first offered to the others.
        state.heads[at..].rotate_left(1);
        let Some(head) = state.heads.last() else {
            return false;
        };
        let (head, make, value) = (
            Arc::clone(&head.name),
            Arc::clone(&head.call),
            Arc::clone(&item.value),
        );
        state.fed = Some(item);
        drop(guard);
        let make = move || {
            let own = In::clone(&value);
            drop(value);
            make(own)
        };
        self.hand_over(&head, worker::catch(make));
        true
    }

    fn hand_over(&self, name: &HeadName, call: std::result::Result<Call<Out>, Panic>) {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let Some(item) = state.fed.take() else {
            return;
        };
        let head = state.heads.iter_mut().find(|head| Arc::ptr_eq(&head.name, name));
        let Some(head) = head else {
            // It was killed in the meantime, and may have been the last.
            state.waiting.push_front(item);
            return self.changed.notify_all();
        };
        // With the lock, so that who kills the head finds the item in its pool, or not yet.
        let future = match call {
            Ok(call) => head.pool.start(call),
            Err(panic) => {
                let task = format!("the closure of head {name:?}");
                TaskFuture::failed(NO_TASK, Error::new(task, Cause::Panicked(panic)))
            }
        };
        head.items += 1;
        let key = state.given;
        state.given += 1;
        let slot = Arc::clone(future.slot());
        state.at_heads.insert(
            key,
            AtHead {
                item,
                head: Arc::clone(name),
                future,
            },
        );
        slot.watch(&self.ready, key);
    }
}

/// Wakes the feeder for something else than the end of a task. Items never get that far.
const LOOK: u64 = u64::MAX;

/// What stands for a task where there was no call of one.
const NO_TASK: Name = Name {
    module: "",
    function: "do_work",
};
