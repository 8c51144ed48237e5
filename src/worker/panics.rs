//! Panics of tasks, caught as text.
//!
//! Only a panic hook learns where a panic began. Ours is put in front of the one that is there, once in a process, and
//! only listens while a task runs on the panicking thread.

use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::wire::{Location, Panic};

/// Runs a task, and gives its value or its panic.
pub(crate) fn catch<R>(run: impl FnOnce() -> R) -> Result<R, Panic> {
    install();
    let outer = LISTENING.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(|| __rust_begin_short_backtrace(run)));
    LISTENING.set(outer);
    result.map_err(|payload| {
        let heard = HEARD.take();
        let message = message_of(payload.as_ref());
        // A payload may panic again when it is dropped.
        std::mem::forget(payload);
        // The hook heard nothing if the task replaced it, or something else if this is an earlier panic, resumed.
        heard.filter(|heard| heard.message == message).unwrap_or(Panic {
            message,
            location: None,
            backtrace: String::new(),
        })
    })
}

/// Where a backtrace begins that is printed: std leaves out what is below a function of this name. There is a limit to what
/// is kept of a worker's stderr, and what calls the task tells nobody anything.
#[inline(never)]
fn __rust_begin_short_backtrace<R>(run: impl FnOnce() -> R) -> R {
    let result = run();
    // Else this would be a jump to `run`, and not be there.
    std::hint::black_box(());
    result
}

/// Puts the hook in place. Before a fork, so that the copy need not: a thread that it does not have may hold the hook's
/// lock.
pub(crate) fn install() {
    // In a drop while a panic unwinds, the hook cannot be changed: std would panic, and the program abort.
    if std::thread::panicking() {
        return;
    }
    if INSTALLED.swap(true, Ordering::AcqRel) {
        return;
    }
    let earlier = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if LISTENING.get() {
            let location = info.location().map(|location| Location {
                file: location.file().to_owned(),
                line: location.line(),
                column: location.column(),
            });
            let mut backtrace = Backtrace::force_capture().to_string();
            shorten(&mut backtrace);
            HEARD.set(Some(Panic {
                message: message_of(info.payload()),
                location,
                backtrace,
            }));
        }
        earlier(info);
    }));
}

fn message_of(payload: &(dyn Any + Send)) -> String {
    let mut message = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "a panic with a value that is no text".to_owned(),
    };
    shorten(&mut message);
    message
}

fn shorten(text: &mut String) {
    text.truncate(text.floor_char_boundary(LONGEST_TEXT));
}

static INSTALLED: AtomicBool = AtomicBool::new(false);

thread_local! {
    static LISTENING: Cell<bool> = const { Cell::new(false) };
    static HEARD: RefCell<Option<Panic>> = const { RefCell::new(None) };
}

const LONGEST_TEXT: usize = 64 << 10;
