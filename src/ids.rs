//! Names and numbers of tasks and workers; every layer may use them.

use std::fmt;

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

/// The number of a worker. It is that of the task which the worker was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct WorkerId(pub(crate) u64);

/// The name of a task: where it stands and what it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
