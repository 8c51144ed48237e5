//! The tests that start processes: every way in which a task can end, for every start method that can show it.
//!
//! Each trial runs on the main thread of a process of its own, since `StartMethod::Fork` is refused beside foreign
//! threads, and since many trials do to their process what would harm the next one. The harness stands in `harness.rs`,
//! and what every trial ends with in `leak_check.rs`.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "the tests do to processes what the library must survive, and say where they failed"
)]
#![cfg_attr(
    not(target_os = "linux"),
    allow(unused, reason = "the suite looks into /proc")
)]

// The machinery, then the behaviours.
#[cfg(target_os = "linux")]
#[macro_use]
mod harness;
#[cfg(target_os = "linux")]
mod leak_check;
#[cfg(target_os = "linux")]
mod os;
#[cfg(target_os = "linux")]
mod place;
#[cfg(target_os = "linux")]
mod pools;
#[cfg(target_os = "linux")]
#[path = "../support/resting.rs"]
mod resting;
#[cfg(target_os = "linux")]
mod tasks;

#[cfg(target_os = "linux")]
mod bytes;
#[cfg(target_os = "linux")]
mod callbacks;
#[cfg(target_os = "linux")]
mod calls;
#[cfg(target_os = "linux")]
mod crashes;
#[cfg(target_os = "linux")]
mod endings;
#[cfg(target_os = "linux")]
mod hostile;
#[cfg(target_os = "linux")]
mod limits;
#[cfg(target_os = "linux")]
mod mistrust;
#[cfg(target_os = "linux")]
mod nesting;
#[cfg(target_os = "linux")]
mod output;
#[cfg(target_os = "linux")]
mod parent;
#[cfg(target_os = "linux")]
mod payloads;
#[cfg(target_os = "linux")]
mod pool_ends;
#[cfg(target_os = "linux")]
mod pool_limits;
#[cfg(target_os = "linux")]
mod pool_map;
#[cfg(target_os = "linux")]
mod pool_boards;
mod pool_queue;
#[cfg(target_os = "linux")]
mod pool_random;
#[cfg(target_os = "linux")]
mod pool_tasks;
#[cfg(target_os = "linux")]
mod pool_workers;
#[cfg(target_os = "linux")]
mod preload;
#[cfg(target_os = "linux")]
mod ready_workers;
#[cfg(target_os = "linux")]
mod reaping;
#[cfg(target_os = "linux")]
mod task_context;
#[cfg(target_os = "linux")]
mod threads;
#[cfg(target_os = "linux")]
mod time;
#[cfg(target_os = "linux")]
mod values;

fn main() -> std::process::ExitCode {
    // First of all, so that the suite also runs without the feature `ctor`.
    inparallel::init();
    #[cfg(target_os = "linux")]
    return harness::main(
        &[
            values::TRIALS,
            payloads::TRIALS,
            bytes::TRIALS,
            endings::TRIALS,
            crashes::TRIALS,
            hostile::TRIALS,
            time::TRIALS,
            output::TRIALS,
            callbacks::TRIALS,
            nesting::TRIALS,
            threads::TRIALS,
            parent::TRIALS,
            reaping::TRIALS,
            preload::TRIALS,
            ready_workers::TRIALS,
            limits::TRIALS,
            mistrust::TRIALS,
            pool_map::TRIALS,
            pool_tasks::TRIALS,
            pool_workers::TRIALS,
            pool_boards::TRIALS,
            pool_queue::TRIALS,
            pool_ends::TRIALS,
            pool_limits::TRIALS,
            pool_random::TRIALS,
            task_context::TRIALS,
            calls::TRIALS,
        ],
        &[output::ROLES, parent::ROLES, limits::ROLES, pool_ends::ROLES],
    );
    #[cfg(not(target_os = "linux"))]
    {
        println!("test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
        std::process::ExitCode::SUCCESS
    }
}
