//! The attributes of the `inparallel` crate: `#[task]` and `#[limit]`.
//!
//! `options` and `known` read what stands in the parentheses of `#[task]`, `parse` and `context` read and check the
//! function, `expand` writes what replaces it: `start` the calls of the library, `attributes` says where the function's own
//! attributes go, and `generics` its parameters. `limit` is the other attribute. The generated code knows only
//! `inparallel::private` and what the crate root exports.

mod options;
mod known;
mod duration;
mod parse;
mod context;
mod expand;
mod start;
mod attributes;
mod generics;
mod limit;
#[cfg(test)]
mod tests;

use proc_macro::TokenStream;
use quote::quote;

/// Makes a function a task: a call of it runs in a process of its own, and returns a `TaskFuture` of its result.
///
/// Arguments and result must implement serde's `Serialize` and `Deserialize`. Arguments may be borrowed at the top
/// level (`&str`, `&[T]`, `&Path`, `&T`): the worker owns a decoded copy. `&mut` and `impl Trait` arguments, borrowed
/// results, and `async`, `const`, `unsafe` and `extern` functions are refused.
///
/// # Functions
///
/// `#[task] fn uname(server: String) -> Info` becomes
///
/// | | |
/// | --- | --- |
/// | `uname(server)` | starts the task: `TaskFuture<Info>` |
/// | `uname::later(server)` | makes a call of it that is not started: `Call<Info>`, for a pool or for `.start()` |
/// | `uname::inline(server)` | a plain call, here and now: `Info` |
/// | `uname::with().timeout(d).call(server)` | starts it with options for this call |
/// | `uname::with().timeout(d).call_later(server)` | makes a call with options of its own |
///
/// `uname::later` is a path to a plain function, as `pool.map(uname::later, servers)` takes it.
///
/// All but the first hang on a struct of the function's name, which therefore must be free among types and modules too. A
/// link in documentation says which of the two it means: `` [`uname()`] ``.
///
/// # Methods
///
/// In an `impl`, `#[task] fn area(&self, k: f64) -> f64` becomes
///
/// | | |
/// | --- | --- |
/// | `shape.area(k)` | starts the task: `TaskFuture<f64>`; `self` is sent as an argument |
/// | `shape.area_later(k)` | makes a call of it that is not started: `Call<f64>` |
/// | `shape.area_inline(k)` | a plain call, here and now: `f64` |
/// | `shape.area_with(options, k)` | starts it with these `Options`, before those in the attribute |
///
/// A function without a receiver, in which the word `Self` does not occur either, needs `#[task(associated)]` there. A
/// trait may have tasks among its methods with a body; an `impl` of a trait has no room for the other functions.
///
/// # The task's context
///
/// A parameter of type `&TaskContext`, wherever it stands, is no argument of the task: the worker provides it. The plain
/// call takes it as any other. It is recognised by its name.
///
/// # Options
///
/// | | |
/// | --- | --- |
/// | `timeout = "5s"` | default time limit: a number and `ms`, `s`, `min` or `h`; a bare number is in seconds |
/// | `start = "spawn"` | default start method: `fork`, `forkserver`, `spawn`, `thread`, `inline` |
/// | `pool` | runs in a pool of workers that stay, named after module and function: two methods of one name in a module share theirs |
/// | `pool = "name"` | runs in the pool of that name, together with other tasks that say so |
/// | `workers = 4` | the size of that pool; default: as many as the machine runs in parallel |
/// | `daemon` | runs in one worker that stays, one task after the other |
/// | `priority = 1` | default place in the queue of a pool: smaller numbers run first; may be negative |
/// | `retries = 2` | how often the task is tried again when its worker dies |
/// | `limit = 3` | so many of this task run at a time, all others wait |
/// | `limit = path::TO_A_STATIC` | likewise, together with everything else that names this `Limiter` |
/// | `callback = path::to::function` | is called with `&Result<R>` when a task that `f(..)` or `call(..)` started has ended; not for `later` |
/// | `discard` | the result is dropped in the worker, so that it need not be serializable: `TaskFuture<()>` |
/// | `associated` | the function stands in an `impl` |
/// | `name = "text"` | what errors and log lines call the task, in place of the function's name |
/// | `crate = "path"` | where `inparallel` is, if it is renamed or re-exported |
///
/// Options that contradict each other are refused by the compiler.
///
/// # Examples
///
/// ```
/// use inparallel::{Limiter, TaskContext, task};
///
/// static DISKS: Limiter = Limiter::new(2);
///
/// /// Counts lines, in one of four workers, while no more than two tasks read from a disk.
/// #[task(pool = "files", workers = 4, limit = DISKS, retries = 1)]
/// fn count_lines(path: &str, context: &TaskContext) -> Result<usize, String> {
///     let mut count = 0;
///     for _ in std::fs::read_to_string(path).map_err(|error| error.to_string())?.lines() {
///         if context.is_cancelled() {
///             break;
///         }
///         count += 1;
///     }
///     Ok(count)
/// }
///
/// assert!(count_lines("no such file").wait()?.is_err());
/// let call = count_lines::later("no such file either");
/// assert!(call.start().wait()?.is_err());
/// # Ok::<(), inparallel::Error>(())
/// ```
#[proc_macro_attribute]
pub fn task(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let (options, mut errors) = options::Options::read(attribute.into());
    let output = match parse::Task::read(item.clone().into(), &options) {
        Ok(task) => expand::expand(&task, &options),
        Err(error) => {
            parse::combine(&mut errors, error);
            // The function itself stays, so that its callers do not fail as well.
            item.into()
        }
    };
    let errors = errors.map(syn::Error::into_compile_error);
    quote!(#output #errors).into()
}

/// Lets few callers into a plain function at a time: the others wait, blocked, until one has left.
///
/// `#[limit(3)]` has three permits for all callers in this process, whatever the function's type parameters are;
/// `#[limit(path::TO_A_STATIC)]` takes one from a `static` `Limiter`, together with
/// everything else that names it. A caller has its permit until the function returns, fails with `?` or panics; a returned
/// iterator or future runs without. A function that calls itself needs a permit for each call.
///
/// `crate = "path"` says where `inparallel` is, as in `#[limit(3, crate = "path")]`. A task takes its limit as an option,
/// `#[task(limit = 3)]`: each worker is a process of its own.
///
/// # Examples
///
/// ```
/// use inparallel::limit;
///
/// #[limit(2)]
/// fn read(path: &str) -> std::io::Result<usize> {
///     Ok(std::fs::read(path)?.len())
/// }
///
/// assert!(read("no such file").is_err());
/// ```
#[proc_macro_attribute]
pub fn limit(attribute: TokenStream, item: TokenStream) -> TokenStream {
    limit::expand(attribute.into(), item.into()).into()
}
