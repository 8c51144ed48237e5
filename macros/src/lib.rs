//! The `#[task]` attribute of the `inparallel` crate.
//!
//! `options` reads what stands in the attribute's parentheses, `parse` reads and checks the function, `expand` writes
//! what replaces it, with `attributes` for where the function's own attributes go and `generics` for its parameters. The
//! generated code knows only `inparallel::private` and what the crate root exports.

mod options;
mod parse;
mod expand;
mod attributes;
mod generics;
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
/// | `uname::inline(server)` | a plain call, here and now: `Info` |
/// | `uname::with().timeout(d).call(server)` | starts it with options for this call |
///
/// The last two hang on a struct of the function's name, which therefore must be free among types and modules too. A
/// link in documentation says which of the two it means: `` [`uname()`] ``.
///
/// # Methods
///
/// In an `impl`, `#[task] fn area(&self, k: f64) -> f64` becomes
///
/// | | |
/// | --- | --- |
/// | `shape.area(k)` | starts the task: `TaskFuture<f64>`; `self` is sent as an argument |
/// | `shape.area_inline(k)` | a plain call, here and now: `f64` |
/// | `shape.area_with(options, k)` | starts it with these `Options`, in place of those in the attribute |
///
/// A function without a receiver, in which the word `Self` does not occur either, needs `#[task(associated)]` there. A
/// trait may have tasks among its methods with a body; an `impl` of a trait has no room for the other two functions.
///
/// # Options
///
/// | | |
/// | --- | --- |
/// | `associated` | the function stands in an `impl` |
/// | `timeout = "5s"` | default time limit: a number and `ms`, `s`, `min` or `h`; a bare number is in seconds |
/// | `start = "spawn"` | default start method: `fork`, `forkserver`, `spawn`, `thread`, `inline` |
/// | `name = "text"` | what errors and log lines call the task, in place of the function's name |
/// | `crate = "path"` | where `inparallel` is, if it is renamed or re-exported |
#[proc_macro_attribute]
pub fn task(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let (options, mut errors) = options::Options::read(attribute.into());
    let output = match parse::Task::read(item.clone().into()) {
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
