//! What a running task knows of itself, and how it speaks to whoever holds its future.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use crate::error::{Cause, Error, Result};
use crate::ids::{About, TaskId};
use crate::slot::Slot;
use crate::sys;
use crate::wire::{self, Reply};

/// What a running task knows of itself: a parameter of type `&TaskContext` of a task's function, which is no argument of
/// the call.
///
/// # Examples
///
/// ```
/// use inparallel::{task, TaskContext};
///
/// #[task]
/// fn search(context: &TaskContext, below: u64) -> Option<u64> {
///     for n in 0..below {
///         if context.is_cancelled() {
///             return None;                    // in the grace between the request to end and the kill
///         }
///         if n % 1000 == 0 {
///             context.progress(n, below);
///         }
///         if n * n == 1 << 20 {
///             context.send(&format!("found {n} in {}", context.id())).ok()?;
///             return Some(n);
///         }
///     }
///     None
/// }
///
/// let future = search(1_000_000);
/// let words: Vec<String> = future.messages().collect::<Result<_, _>>()?;
/// assert_eq!(words, [format!("found 1024 in {}", future.id())]);
/// assert_eq!(future.progress().map(|progress| progress.total), Some(1_000_000));
/// assert_eq!(future.wait()?, Some(1024));
/// # Ok::<(), inparallel::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct TaskContext(Arc<Current>);

/// Where a task's words go.
#[derive(Clone, Default)]
pub(crate) enum Outlet {
    /// A plain call: nobody has a future of it.
    #[default]
    Nobody,
    /// The task runs in its caller's process.
    Slot(Arc<Slot>),
    /// The task runs in a worker.
    Pipe(Arc<dyn Pipe>),
}

/// A worker's way to its program.
pub(crate) trait Pipe: Send + Sync {
    /// On behalf of a task; nothing once that has ended.
    fn say_for(&self, task: TaskId, reply: Reply, payload: &[u8]) -> io::Result<()>;
}

#[derive(Clone, Default)]
struct Current {
    about: Option<About>,
    deadline: Option<Instant>,
    outlet: Outlet,
    /// What the task says reaches nobody.
    is_mute: bool,
}

/// Runs a task on this thread.
pub(crate) fn run_as<R>(about: About, outlet: Outlet, task: impl FnOnce() -> R) -> R {
    struct Restore(Option<Current>);
    impl Drop for Restore {
        fn drop(&mut self) {
            let ours = CURRENT.replace(self.0.take());
            if ours.is_some_and(|ours| matches!(ours.outlet, Outlet::Pipe(_))) {
                sys::end_as_usual();
            }
        }
    }
    let deadline = about.limit.and_then(|limit| Instant::now().checked_add(limit));
    let current = Current {
        about: Some(about),
        deadline,
        outlet,
        is_mute: false,
    };
    let _restore = Restore(CURRENT.replace(Some(current)));
    task()
}

/// From now on the current task of this thread, which runs many calls, speaks by [`send_bytes`] alone: what the calls
/// send would be taken for that.
pub(crate) fn mute() {
    CURRENT.with_borrow_mut(|current| {
        if let Some(current) = current {
            current.is_mute = true;
        }
    });
}

/// Has the current task of this thread send bytes to whoever holds its future.
pub(crate) fn send_bytes(bytes: Vec<u8>) -> io::Result<()> {
    let current = CURRENT.with_borrow(Clone::clone);
    current.unwrap_or_default().send(bytes)
}

thread_local! {
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
}

impl Current {
    fn id(&self) -> TaskId {
        self.about.as_ref().map_or(TaskId(0), |about| about.id)
    }

    fn attempt(&self) -> u32 {
        self.about.as_ref().map_or(1, |about| about.attempt)
    }

    fn send(&self, bytes: Vec<u8>) -> io::Result<()> {
        match &self.outlet {
            Outlet::Nobody => Ok(()),
            Outlet::Slot(slot) => {
                slot.deliver_here(self.attempt(), bytes);
                Ok(())
            }
            Outlet::Pipe(pipe) => pipe.say_for(self.id(), Reply::Message, &bytes),
        }
    }
}

impl TaskContext {
    /// That of the task which runs on this thread; outside of any, that of a plain call.
    pub(crate) fn current() -> TaskContext {
        let current = CURRENT.with_borrow(Clone::clone).unwrap_or_default();
        if matches!(current.outlet, Outlet::Pipe(_)) {
            sys::note_the_end();
        }
        TaskContext(Arc::new(current))
    }

    /// The task's number, as [`TaskFuture::id`](crate::TaskFuture::id). Zero in a plain call.
    pub fn id(&self) -> TaskId {
        self.0.id()
    }

    /// The task as `module::function`. Empty in a plain call.
    pub fn name(&self) -> &str {
        self.0.about.as_ref().map_or("", |about| &about.name)
    }

    /// Which attempt this is, from 1; more than that only with [`retries`](crate::Options::retries).
    pub fn attempt(&self) -> u32 {
        self.0.attempt()
    }

    /// When the task's [time limit](crate::Options::timeout) is over.
    pub fn deadline(&self) -> Option<Instant> {
        self.0.deadline
    }

    /// Whether the task had better return: it was cancelled, or its time is over. It is killed when the
    /// [grace](crate::Options::grace) is over too.
    ///
    /// Whatever it returns then is thrown away.
    ///
    /// # Platform behaviour
    ///
    /// In a process the word comes as SIGTERM, which a task with a context does not die of. A subprocess of the task's
    /// gets it too.
    pub fn is_cancelled(&self) -> bool {
        let is_late = self.0.deadline.is_some_and(|deadline| deadline <= Instant::now());
        is_late
            || match &self.0.outlet {
                Outlet::Nobody => false,
                Outlet::Slot(slot) => slot.is_over_for(self.attempt()),
                Outlet::Pipe(_) => sys::is_asked_to_end(),
            }
    }

    /// Says how far the task is: [`TaskFuture::progress`](crate::TaskFuture::progress) gives what was said last.
    ///
    /// Costs a system call in a process; call it now and then.
    pub fn progress(&self, done: u64, total: u64) {
        match &self.0.outlet {
            _ if self.0.is_mute => {}
            Outlet::Nobody => {}
            Outlet::Slot(slot) if slot.is_over_for(self.attempt()) => {}
            Outlet::Slot(slot) => slot.set_progress(done, total),
            // A program that is gone takes this process along.
            Outlet::Pipe(pipe) => _ = pipe.say_for(self.id(), Reply::Progress { done, total }, &[]),
        }
    }

    /// Sends a value to [`TaskFuture::messages`](crate::TaskFuture::messages), in order. A plain call, and an item of
    /// [`Pool::map`](crate::Pool::map), have nobody to send it to.
    ///
    /// Once the task has ended, what a thread that it left behind sends is thrown away.
    ///
    /// While 4 MiB lie unread there, this waits; if nobody has asked for messages, the oldest are dropped instead
    /// ([`Messages::missed`](crate::Messages::missed)).
    ///
    /// # Errors
    ///
    /// [`ResultNotEncodable`](crate::ErrorKind::ResultNotEncodable), and [`Lost`](crate::ErrorKind::Lost) if the task has
    /// closed the descriptors of its worker.
    pub fn send<M: Serialize>(&self, value: &M) -> Result<()> {
        let bytes = wire::encode(value).map_err(|reason| {
            let type_name = wire::type_name_of::<M>();
            Error::new(self.name(), Cause::ResultNotEncodable { type_name, reason })
        })?;
        if self.0.is_mute {
            return Ok(());
        }
        self.0.send(bytes).map_err(|error| {
            let what = format!("a message cannot be sent: {error}");
            Error::new(self.name(), Cause::Lost { what })
        })
    }
}

impl fmt::Debug for TaskContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskContext")
            .field("id", &self.id().0)
            .field("name", &self.name())
            .field("attempt", &self.attempt())
            .field("deadline", &self.deadline())
            .finish()
    }
}
