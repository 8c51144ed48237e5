//! Starting tasks: what `#[task]` calls, closures in a fork, and the settings of the whole program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::argument::{Output, Refused};
use crate::error::{Cause, Error, Result};
use crate::future::TaskFuture;
use crate::ids::Name;
use crate::launch::{self, Order, Surroundings};
use crate::nesting;
use crate::options::{Options, StartMethod};
use crate::slot::{Outcome, Slot};
use crate::supervisor::{self, Link, Submitted};
use crate::sys::{self, Entry};
use crate::wire::{Answer, Call};
use crate::worker::{self, Remote};

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
    E: FnOnce(&P, &mut Vec<u8>) -> std::result::Result<(), Refused>,
    D: Fn(&mut &[u8]) -> std::result::Result<C, Refused> + Copy,
    L: FnOnce(P) -> R,
    F: Fn(C) -> R + Copy,
{
    let entry = Entry::of(Remote::new(decode, remote));
    begin(options, name, |slot, options, depth| match options.method() {
        StartMethod::Inline => Ok(inline(&slot, depth, || local(args))),
        StartMethod::Fork => fork_task(slot, options, depth, || local(args)),
        method => {
            let mut payload = Vec::new();
            encode(&args, &mut payload)
                .map_err(|Refused { type_name, reason }| Cause::ArgumentNotEncodable { type_name, reason })?;
            match method {
                StartMethod::Thread => thread(slot, options, depth, entry, payload),
                _ => remote_process(slot, options, depth, entry, payload),
            }
        }
    })
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
        fork_task(slot, options, depth, closure)
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

/// Waits until no task of this process runs any more, for at most `limit`; whether it came to that.
///
/// For the end of a program that lets tasks run on unheard: when the process ends, its tasks end with it. A task counts
/// until its process is gone, a moment longer than its future is pending; on a thread, until the thread ends.
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
    supervisor::wait_idle(limit)
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
    start: impl FnOnce(Arc<Slot>, Options, u32) -> Result<Link, Cause>,
) -> TaskFuture<R> {
    let slot = supervisor::slot(name);
    // The default may change while the task runs; its start method does not.
    let method = options.method();
    let options = options.start(method);
    let kill_on_drop = options.kill_on_drop;
    let depth = nesting::depth() + 1;
    let checked = options.check().and_then(|()| match depth > nesting::DEEPEST {
        true => Err(Error::new(
            "",
            Cause::TooDeep {
                limit: nesting::DEEPEST,
            },
        )),
        false => Ok(()),
    });
    let started = checked
        .and_then(|()| start(Arc::clone(&slot), options, depth).map_err(|cause| Error::new("", cause)));
    let link = started.unwrap_or_else(|error| {
        slot.end(Outcome::Failed(error.with_task(name.to_string())));
        Link::Slot
    });
    TaskFuture::new(slot, link, kill_on_drop)
}

fn inline<R: Serialize>(slot: &Arc<Slot>, depth: u32, task: impl FnOnce() -> R) -> Link {
    let answer = nesting::at_depth(depth, || worker::answer_of(task));
    slot.end(Outcome::of(answer, slot.name));
    Link::Slot
}

fn thread(
    slot: Arc<Slot>,
    options: Options,
    depth: u32,
    entry: &'static Entry<Answer>,
    payload: Vec<u8>,
) -> Result<Link, Cause> {
    let active = supervisor::thread_task(Submitted {
        slot: Arc::clone(&slot),
        options,
    })?;
    let unstarted = Arc::clone(&slot);
    let run = move || {
        let answer = nesting::at_depth(depth, || (entry.run)(&payload));
        slot.end(Outcome::of(answer, slot.name));
        drop(active);
    };
    let name = "inparallel-task".to_owned();
    let started = std::thread::Builder::new().name(name).spawn(run);
    if let Err(error) = started {
        // Before the supervisor, which hears that the thread is gone, gives a reason of its own.
        unstarted.fail(Cause::launch("start a thread", error));
    }
    Ok(Link::Slot)
}

fn fork_task<R: Serialize>(
    slot: Arc<Slot>,
    options: Options,
    depth: u32,
    task: impl FnOnce() -> R,
) -> Result<Link, Cause> {
    let (guard, others) = supervisor::lock_for_fork()?;
    if !ALLOW_FORK_WITH_THREADS.load(Ordering::Relaxed) {
        match others {
            Ok(0) => {}
            Ok(count) => return Err(Cause::ThreadsAlive { count }),
            Err(error) => return Err(Cause::launch("count the threads of the program", error)),
        }
    }
    let mut task = Some(task);
    let lines = launch::fork(&options, depth, &mut task)?;
    drop(guard);
    // What the task captured is dropped last: if that panics, the worker has its supervisor already.
    Ok(supervisor::adopt(Submitted { slot, options }, lines))
}

fn remote_process(
    slot: Arc<Slot>,
    options: Options,
    depth: u32,
    entry: &'static Entry<Answer>,
    payload: Vec<u8>,
) -> Result<Link, Cause> {
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
    let (entry, type_name) = entry.address();
    let call = Call {
        task: slot.id.0,
        entry,
        type_name: type_name.to_owned(),
        depth,
        setup: None,
    };
    let is_spawn = options.method() == StartMethod::Spawn;
    let order = Order {
        call,
        payload,
        surroundings: Surroundings::now(),
        is_spawn,
    };
    Ok(supervisor::submit(Submitted { slot, options }, order))
}

static ALLOW_FORK_WITH_THREADS: AtomicBool = AtomicBool::new(false);
