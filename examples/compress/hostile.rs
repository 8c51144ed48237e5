//! Tasks that do what native code does on its worst days, and how each of them must end.

use std::hint::{black_box, spin_loop};
use std::io::Write;
use std::time::{Duration, Instant};

use inparallel::{ErrorKind, task};
use serde::{Deserialize, Serialize};

use crate::{Answer, Job, Packed};

/// The time limit of a hostile task: one of the deeds takes all of it.
pub(crate) const LIMIT: Duration = Duration::from_secs(2);

const COPIES: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Deed {
    Segfault,
    Abort,
    LoopForEver,
    ExitWithZero,
    Panic,
    OverflowTheStack,
    PrintGarbage,
}

#[task]
pub(crate) fn misbehave(deed: Deed) -> Answer {
    let started = Instant::now();
    match deed {
        // SAFETY: none, this is the fault to be survived. Page zero is never mapped, so the write changes nothing and
        // nothing after it runs. (Address 8, because Rust checks for null in debug builds.)
        Deed::Segfault => unsafe { std::ptr::without_provenance_mut::<u64>(8).write_volatile(1) },
        #[expect(clippy::disallowed_methods, reason = "the deed")]
        Deed::Abort => std::process::abort(),
        Deed::LoopForEver => loop {
            spin_loop();
        },
        // Before it gave a result, which no exit code makes a success.
        #[expect(clippy::disallowed_methods, reason = "the deed")]
        Deed::ExitWithZero => std::process::exit(0),
        Deed::Panic => panic!("what a day"),
        Deed::OverflowTheStack => {
            sink(0);
        }
        Deed::PrintGarbage => {
            // Where a naive protocol would be, and closed thereafter. The result must arrive all the same.
            let _ = std::io::stdout().write_all(b"IPRL garbage on stdout\n"); // It may be closed.
            for descriptor in 0..3 {
                let _ = nix::unistd::close(descriptor); // Not open is as good.
            }
        }
    }
    Ok(Packed {
        bytes_in: 0,
        bytes_out: 0,
        elapsed: started.elapsed(),
    })
}

#[expect(unconditional_recursion, reason = "the deed")]
fn sink(depth: u64) -> u64 {
    let ballast = black_box([depth; 512]);
    sink(depth + 1) + ballast[0]
}

impl Deed {
    pub(crate) const ALL: [Deed; 7] = [
        Deed::Segfault,
        Deed::Abort,
        Deed::LoopForEver,
        Deed::ExitWithZero,
        Deed::Panic,
        Deed::OverflowTheStack,
        Deed::PrintGarbage,
    ];

    pub(crate) fn ended_as_it_must(self, outcome: &inparallel::Result<Answer>) -> bool {
        let error = match outcome {
            Ok(answer) => return self == Deed::PrintGarbage && answer.is_ok(),
            Err(error) => error,
        };
        let killed_by = |names: &[&str]| {
            error
                .signal()
                .is_some_and(|signal| names.contains(&signal.name()))
        };
        match self {
            Deed::Segfault => killed_by(&["SIGSEGV"]),
            Deed::Abort => killed_by(&["SIGABRT"]),
            Deed::LoopForEver => error.kind() == ErrorKind::TimedOut,
            Deed::ExitWithZero => error.kind() == ErrorKind::Exited && error.exit_code() == Some(0),
            Deed::Panic => error.panic_message() == Some("what a day"),
            // Rust's own handler of the overflow, where it is installed, says so and aborts.
            Deed::OverflowTheStack => killed_by(&["SIGSEGV", "SIGABRT"]),
            Deed::PrintGarbage => false,
        }
    }
}

/// A few of each deed, evenly among the files.
pub(crate) fn mix_in(jobs: &mut Vec<Job>) {
    let deeds = Deed::ALL.into_iter().cycle().take(Deed::ALL.len() * COPIES);
    let every = jobs.len() / (Deed::ALL.len() * COPIES) + 1;
    for (nth, deed) in deeds.enumerate() {
        let place = (nth * (every + 1)).min(jobs.len());
        jobs.insert(place, Job::Hostile(deed));
    }
}
