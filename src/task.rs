//! Starting tasks: what `#[task]` calls, closures in a fork, and the settings of the whole program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::argument::{Output, Refused};
use crate::attempt::{check_reachable, checked_depth, when_permitted};
use crate::call::Call;
use crate::callbacks;
use crate::error::{Cause, Error, Result};
use crate::future::TaskFuture;
use crate::ids::{About, Name};
use crate::launch::{self, Order};
use crate::nesting;
use crate::options::{Options, StartMethod};
use crate::payload::Payload;
use crate::pool::Pool;
use crate::slot::{Outcome, Place, Slot};
use crate::supervisor::{self, Patience, Submitted};
use crate::sys::{self, Entry};
use crate::task_context::{self, Outlet};
use crate::wire::{Answer, Encoded};
use crate::work::Work;
use crate::worker::{self, Many, Remote};

/// Starts a task: the one path from a call to a future.
///
/// `args`: the arguments as declared, a tuple. `local` runs on them in a fork or in the calling thread; `remote` runs on
/// `C`, what they decode to in another process or thread.
pub fn start<R, P, C, E, D, L, F>(
    options: Options,
    name: Name,
    args: P,
    encode: E,
    decode: D,
    local: L,
    remote: F,
) -> TaskFuture<R>
where
    R: Output,
    E: FnOnce(P, &mut Encoded) -> std::result::Result<(), Refused>,
    D: Fn(&mut &[u8]) -> std::result::Result<C, Refused> + Copy,
    L: FnOnce(P) -> R,
    F: Fn(C) -> R + Copy,
{
    let entry = Entry::of(Remote::new(decode, remote));
    begin(options, name, |slot, options, depth| {
        if options.pool.is_none() && matches!(options.method(), StartMethod::Inline | StartMethod::Fork) {
            return here(slot, options, depth, || worker::answer_of(|| local(args)));
        }
        let payload = Payload::collect(|bytes| encode(args, bytes))
            .map_err(|Refused { type_name, reason }| Cause::ArgumentNotEncodable { type_name, reason })?;
        elsewhere(slot, options, depth, Work { entry, payload })
    })
}

/// A call that is not made yet: as [`start`], but for `local`.
///
/// Inlined where the options are made it knows that they say nothing, and they are not even written.
#[inline(always)]
pub fn later<R, P, C, E, D, F>(
    options: Options,
    name: Name,
    args: P,
    encode: E,
    decode: D,
    remote: F,
) -> Call<R>
where
    R: Output,
    E: FnOnce(P, &mut Encoded) -> std::result::Result<(), Refused>,
    D: Fn(&mut &[u8]) -> std::result::Result<C, Refused> + Copy,
    F: Fn(C) -> R + Copy,
{
    let remote = Remote::new(decode, remote);
    let (entry, many) = (Entry::of(remote), Entry::of(Many(remote)));
    match Payload::collect(|bytes| encode(args, bytes)) {
        Ok(payload) if options.say_nothing() => Call::plain(name, entry, many, payload),
        encoded => Call::new(options, name, entry, many, encoded),
    }
}

impl<T> Call<T> {
    /// Starts it, as calling the function would.
    ///
    /// # Errors
    ///
    /// As values of the future.
    pub fn start(self) -> TaskFuture<T> {
        let call = self;
        begin(call.options(), call.task_name(), |slot, options, depth| {
            let work = call.work()?;
            match options.method() {
                StartMethod::Inline | StartMethod::Fork if options.pool.is_none() => {
                    here(slot, options, depth, || work.answer())
                }
                _ => elsewhere(slot, options, depth, work),
            }
        })
    }
}

/// Runs a closure, which may capture anything, in a copy of this process. Only the result is serialized.
///
/// The closure need be neither `Send` nor `'static`: the copy is made before this returns, and has everything that the
/// caller had. What it changes, it changes in the copy.
///
/// # Errors
///
/// As values of the future: those of [`StartMethod::Fork`], above all
/// [`ThreadsAlive`](crate::ErrorKind::ThreadsAlive) in a program with threads of its own.
///
/// # Platform behaviour
///
/// Unix. Elsewhere the future is [`Launch`](crate::ErrorKind::Launch).
///
/// # Examples
///
/// ```
/// # fn main() -> inparallel::Result<()> {
/// let words = vec!["one", "two", "three"];
/// let longest = inparallel::fork(|| words.iter().map(|word| word.len()).max());
/// # if longest.is_done() { return Ok(()) } // a documentation test has threads of its own
/// assert_eq!(longest.wait()?, Some(5));
/// # Ok(())
/// # }
/// ```
pub fn fork<T, F>(closure: F) -> TaskFuture<T>
where
    T: Serialize + DeserializeOwned,
    F: FnOnce() -> T,
{
    fork_with(Options::new(), closure)
}

/// [`fork`] with options. The start method is `Fork`, whatever they say.
///
/// # Errors
///
/// As [`fork`].
///
/// # Examples
///
/// ```no_run
/// use std::time::Duration;
/// use inparallel::{fork_with, Options};
///
/// let numbers = vec![1, 2, 3];
/// let sum = fork_with(Options::new().timeout(Duration::from_secs(5)), || numbers.iter().sum::<i32>());
/// assert_eq!(sum.wait()?, 6);
/// # Ok::<(), inparallel::Error>(())
/// ```
pub fn fork_with<T, F>(options: Options, closure: F) -> TaskFuture<T>
where
    T: Serialize + DeserializeOwned,
    F: FnOnce() -> T,
{
    let name = Name {
        module: "",
        function: std::any::type_name::<F>(),
    };
    begin(options.start(StartMethod::Fork), name, |slot, options, depth| {
        here(slot, options, depth, || worker::answer_of(closure))
    })
}

/// Makes a re-executed program a worker: the first line of `main` where the feature `ctor` is turned off.
///
/// In an ordinary start it returns at once. In a worker it runs tasks and never returns. With the feature, which is on by
/// default, that happens before `main`, and this does nothing.
///
/// # Examples
///
/// ```
/// fn main() {
///     inparallel::init();
///     // the program
/// }
/// ```
#[allow(clippy::needless_doctest_main, reason = "where the line stands is the point")]
pub fn init() {
    worker::init();
}

/// Has `function` run once in the fork server before it forks workers: what it loads, all workers share.
///
/// It runs in another process than the caller, as do its copies for the fork servers of tasks that start tasks. A closure
/// that captures nothing will do. It must leave no thread running. If it panics, each call of
/// [`StartMethod::ForkServer`] ends in [`Launch`](crate::ErrorKind::Launch) that says so.
///
/// # Errors
///
/// [`Invalid`](crate::ErrorKind::Invalid) once the fork server has been started, and for a function of a loaded library.
///
/// # Examples
///
/// ```
/// use std::sync::OnceLock;
/// use inparallel::{preload, task};
///
/// static TABLE: OnceLock<Vec<u64>> = OnceLock::new();
///
/// #[task(start = "forkserver")]
/// fn look_up(index: usize) -> Option<u64> {
///     TABLE.get()?.get(index).copied()
/// }
///
/// preload(|| _ = TABLE.set((0..1000).map(|x| x * x).collect()))?;
/// assert_eq!(look_up(30).wait()?, Some(900));
/// # Ok::<(), inparallel::Error>(())
/// ```
pub fn preload(function: fn()) -> Result<()> {
    let Some(distance) = sys::distance_of(function) else {
        return Err(Error::invalid(
            "preload",
            "a function outside of the program",
            "give one that is linked into it",
        ));
    };
    match nesting::set_preload(distance) {
        true => Ok(()),
        false => {
            let remedy = "set it before the first task of StartMethod::ForkServer";
            Err(Error::invalid("preload", "a function", remedy))
        }
    }
}

/// Waits until no task of this process runs any more, and the callbacks of those that have ended have run, for at most
/// `limit`; whether it came to that.
///
/// For the end of a program that lets tasks run on unheard: when the process ends, its tasks end with it. A task counts
/// until its process is gone, a moment longer than its future is pending; on a thread, until the thread ends. A pool's
/// task counts from its submission to its end.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// #[inparallel::task]
/// fn log(line: String) {
///     eprintln!("{line}");
/// }
///
/// log("done".into()).detach();
/// assert!(inparallel::wait_idle(Duration::from_secs(60)));
/// ```
pub fn wait_idle(limit: Duration) -> bool {
    let began = Instant::now();
    supervisor::wait_idle(limit) && callbacks::wait_idle(limit.saturating_sub(began.elapsed()))
}

/// Lets [`StartMethod::Fork`] run in a program that has other threads, for the whole program from now on.
///
/// # Safety
///
/// A fork copies the calling thread only. Whatever another thread holds at that moment stays as it is in the copy for
/// ever: a locked mutex stays locked, a half-changed value stays half changed. As long as this is allowed, the caller
/// makes sure that the tasks which are forked touch nothing that another thread may be using: no lock of the program or
/// its libraries (`println!` takes one, and so may an allocator other than the C library's), no runtime such as tokio's or
/// rayon's, no C library that keeps locks.
///
/// # Examples
///
/// ```
/// // SAFETY: the other threads of this program only wait.
/// unsafe { inparallel::allow_fork_with_threads(true) };
/// assert_eq!(inparallel::fork(|| 6 * 7).wait()?, 42);
/// # Ok::<(), inparallel::Error>(())
/// ```
#[allow(unsafe_code, reason = "the caller promises what nobody can check")]
pub unsafe fn allow_fork_with_threads(allow: bool) {
    ALLOW_FORK_WITH_THREADS.store(allow, Ordering::Relaxed);
}

/// What all start methods share: a slot, the checks, and a future even if nothing can be started.
fn begin<R>(
    options: Options,
    name: Name,
    start: impl FnOnce(&Arc<Slot>, Options, u32) -> Result<(), Cause>,
) -> TaskFuture<R> {
    supervisor::expect_call(&options);
    let slot = supervisor::slot(name);
    // The default may change while the task runs; its start method does not.
    let options = match options.pool {
        None => {
            let method = options.method();
            options.start(method)
        }
        // Its workers have one.
        Some(_) => options,
    };
    let kill_on_drop = options.kill_on_drop;
    let started = checked_depth(&options)
        .and_then(|depth| start(&slot, options, depth).map_err(|cause| Error::new("", cause)));
    if let Err(error) = started {
        slot.end(Outcome::Failed(error.with_task(name.to_string())));
    }
    TaskFuture::new(slot, kill_on_drop)
}

/// Runs a task in the calling thread, or in a copy of it.
fn here(slot: &Arc<Slot>, options: Options, depth: u32, task: impl FnOnce() -> Answer) -> Result<(), Cause> {
    if let Some(limiter) = &options.limit {
        slot.hold_permit(limiter.acquire());
    }
    let about = slot.about(options.timeout);
    if options.method() == StartMethod::Fork {
        return fork_task(slot, options, depth, about, task);
    }
    let outlet = Outlet::Slot(Arc::clone(slot));
    let answer = nesting::at_depth(depth, || task_context::run_as(about, outlet, task));
    slot.end(Outcome::of(answer, slot.name));
    Ok(())
}

/// Runs a task where its arguments have to be sent: now, or when it has a permit, and again if it is to be retried.
fn elsewhere(slot: &Arc<Slot>, options: Options, depth: u32, work: Work) -> Result<(), Cause> {
    if let Some(spec) = options.pool {
        let pool = Pool::of(spec, &options).map_err(Error::into_cause)?;
        let options = pool.options_for(&options);
        return pool
            .enter(slot, Some(&options), work, Patience::Endless)
            .map_err(Error::into_cause);
    }
    let order = match options.method() {
        StartMethod::Thread => None,
        _ => Some(order(slot, &options, depth, &work)?),
    };
    let (limit, retry) = (options.limit.clone(), options.retry());
    let start = move |slot: &Arc<Slot>| match &order {
        Some(order) => {
            let mut order = order.clone();
            if let Some(call) = &mut order.call {
                call.attempt = slot.attempt();
            }
            supervisor::submit(Submitted::new(Arc::clone(slot), options.clone()), order)
        }
        None => thread(slot, &options, depth, &work),
    };
    when_permitted(slot, limit.as_ref(), retry, start)
}

fn thread(slot: &Arc<Slot>, options: &Options, depth: u32, work: &Work) -> Result<(), Cause> {
    let active = supervisor::thread_task(Submitted::new(Arc::clone(slot), options.clone()))?;
    if slot.set_place(Place::Nobody) {
        // It was cancelled while it waited for its start.
        return Err(Cause::Cancelled);
    }
    let about = slot.about(options.timeout);
    let unstarted = Arc::clone(slot);
    let (slot, work) = (Arc::clone(slot), work.clone());
    let run = move || {
        let attempt = about.attempt;
        let answer = work.run_here(&slot, depth, about);
        // Before the end is known: what was shared with the task is not held any longer.
        drop(work);
        slot.end_attempt(attempt, Outcome::of(answer, slot.name));
        drop(active);
    };
    let name = "inparallel-task".to_owned();
    let started = std::thread::Builder::new().name(name).spawn(run);
    if let Err(error) = started {
        // Before the supervisor, which hears that the thread is gone, gives a reason of its own.
        unstarted.fail(Cause::launch("start a thread", error));
    }
    Ok(())
}

fn fork_task(
    slot: &Arc<Slot>,
    options: Options,
    depth: u32,
    about: About,
    task: impl FnOnce() -> Answer,
) -> Result<(), Cause> {
    let (guard, others) = supervisor::lock_for_fork()?;
    if !ALLOW_FORK_WITH_THREADS.load(Ordering::Relaxed) {
        match others {
            Ok(0) => {}
            Ok(count) => return Err(Cause::ThreadsAlive { count }),
            Err(error) => return Err(Cause::launch("count the threads of the program", error)),
        }
    }
    let mut task = Some(task);
    let lines = launch::fork(&options, depth, about, &mut task)?;
    drop(guard);
    // What the task captured is dropped last: if that panics, the worker has its supervisor already.
    supervisor::adopt(Submitted::new(Arc::clone(slot), options), Ok(lines))
}

fn order(slot: &Slot, options: &Options, depth: u32, work: &Work) -> Result<Order, Cause> {
    check_reachable()?;
    Ok(Order {
        call: Some(work.call(slot, depth, options.timeout)),
        payload: work.payload.clone(),
        depth,
        surroundings: supervisor::surroundings(),
        is_spawn: options.method() == StartMethod::Spawn,
    })
}

static ALLOW_FORK_WITH_THREADS: AtomicBool = AtomicBool::new(false);
