//! Life before `main`: a constructor that makes a re-executed program a worker before any of its own code runs.
//!
//! In an ordinary start it looks for one environment variable and returns.

#![allow(unsafe_code, reason = "naming a link section is unsafe; nothing else here is")]

// SAFETY: the section holds pointers to functions of this signature, which the C library calls before `main` (the
// three arguments that some pass are ignored). Code before `main` may use std but for what needs its start-up: that is
// the handler for stack overflows, and the disposition of SIGPIPE, which the worker sets itself.
#[used]
#[cfg_attr(
    any(target_os = "linux", target_os = "freebsd"),
    unsafe(link_section = ".init_array")
)]
#[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__mod_init_func"))]
static BEFORE_MAIN: extern "C" fn() = before_main;

extern "C" fn before_main() {
    super::bootstrap::run_if_asked();
}
