//! Names and classes of the numbers that the kernel speaks in.

use crate::sys::ErrnoClass;

/// `SIGSEGV` for 11; `SIG?` where there is no name.
pub(crate) fn signal_name(number: i32) -> &'static str {
    match nix::sys::signal::Signal::try_from(number) {
        Ok(signal) => signal.as_str(),
        Err(_) => "SIG?",
    }
}

/// What kind of shortage an errno tells of.
pub(crate) fn errno_class(errno: i32) -> ErrnoClass {
    match errno {
        libc::EMFILE | libc::ENFILE | libc::ETOOMANYREFS => ErrnoClass::TooManyFiles,
        libc::EAGAIN | libc::ENOMEM => ErrnoClass::TooManyProcesses,
        _ => ErrnoClass::Other,
    }
}
