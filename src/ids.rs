//! Names and numbers of tasks and workers; every layer may use them.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The number of a task within this process.
///
/// # Examples
///
/// ```
/// use inparallel::{task, TaskId};
///
/// #[task]
/// fn nothing() {}
///
/// let first = nothing();
/// let second = nothing();
/// assert!(first.id() < second.id());
/// # first.wait()?; second.wait()?;
/// # Ok::<(), inparallel::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId(pub(crate) u64);

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task-{}", self.0)
    }
}

/// One for all tasks of this name, for as long as the process lives: there are as many as the program has functions.
pub(crate) fn interned(name: Name) -> &'static Name {
    thread_local! {
        static LAST: Cell<Option<&'static Name>> = const { Cell::new(None) };
    }
    static NAMES: Mutex<BTreeSet<&'static Name>> = Mutex::new(BTreeSet::new());
    let is_it = |last: &&'static Name| {
        std::ptr::eq(last.module, name.module) && std::ptr::eq(last.function, name.function)
    };
    if let Some(last) = LAST.get().filter(is_it) {
        return last;
    }
    let leak = || -> &'static Name { Box::leak(Box::new(name)) };
    // In a fork a thread that does not exist there may hold the lock: one more does no harm.
    let name = match NAMES.try_lock() {
        Err(_) => leak(),
        Ok(mut names) => match names.get(&name) {
            Some(name) => name,
            None => {
                let name = leak();
                names.insert(name);
                name
            }
        },
    };
    LAST.set(Some(name));
    name
}

/// A number that no task and no worker of this process has had.
pub(crate) fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Where a task stands in a queue: smaller priorities first, and first in first out among equals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Rank {
    pub(crate) priority: i32,
    pub(crate) number: u64,
}

/// The number of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct WorkerId(pub(crate) u64);

/// The name of a task: where it stands and what it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// The module, or the type for a method.
    pub module: &'static str,
    /// The function.
    pub function: &'static str,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.module {
            "" => f.write_str(self.function),
            module => write!(f, "{module}::{}", self.function),
        }
    }
}

/// What is known of a task where it runs.
#[derive(Debug, Clone)]
pub(crate) struct About {
    pub(crate) id: TaskId,
    pub(crate) name: Arc<str>,
    pub(crate) attempt: u32,
    pub(crate) limit: Option<Duration>,
}

/// How a worker finds the board that a program made for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BoardName {
    pub(crate) pid: u32,
    pub(crate) descriptor: i32,
    pub(crate) inode: u64,
}
