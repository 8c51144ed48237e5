//! What every trial ends with: nothing that it started is left in its process or below it.

use std::collections::BTreeMap;
use std::time::Duration;

use inparallel::StartMethod;

use crate::resting::wait_for_rest;
use crate::{os, tasks};

/// What there is in the process, and in its fork server, before a trial.
pub(crate) struct Baseline {
    descriptors: BTreeMap<String, usize>,
    of_server: Option<BTreeMap<String, usize>>,
}

impl Baseline {
    /// Runs a task by `method` first, so that what lives as long as the program does not count.
    pub(crate) fn after_warm_up(method: Option<StartMethod>) -> Baseline {
        if let Some(method) = method {
            // With a limit: for `Thread` that is what the supervisor is there for.
            let warm_up = tasks::nothing::with().start(method).timeout(LONG * 10);
            warm_up.call().wait().unwrap();
            assert!(inparallel::wait_idle(LONG));
        }
        let of_server = os::fork_server().map(settled);
        Baseline {
            descriptors: descriptors(std::process::id()),
            of_server,
        }
    }

    /// Panics with what is left; `is_warm`: descriptors count too.
    pub(crate) fn compare(self, is_warm: bool) {
        assert!(inparallel::wait_idle(LONG), "tasks still run after the trial");
        let own = std::process::id();
        let server = os::fork_server();
        let children: Vec<_> = os::children(own)
            .into_iter()
            .filter(|pid| Some(*pid) != server)
            .collect();
        assert!(
            children.is_empty(),
            "children are left: {}",
            descriptions(&children)
        );
        let of_server = server.map(settled);
        if is_warm && (cfg!(inparallel_no_pidfd) || server.is_some()) {
            // The thread that waited for a process closes its pipe a moment after it has told; so does the program with the
            // far ends of a worker that it has made ready.
            os::eventually(|| match descriptors(own) {
                now if now == self.descriptors => Ok(()),
                now => Err(format!("descriptors: {now:?}, before: {:?}", self.descriptors)),
            });
        } else if is_warm {
            let now = descriptors(own);
            assert_eq!(now, self.descriptors, "descriptors after and before the trial");
        }
        // After a trial that began cold there is nothing to compare with, but workers must be gone.
        if let Some(now) = of_server
            && let Some(before) = self.of_server
        {
            assert_eq!(
                now, before,
                "the fork server's descriptors after and before the trial"
            );
        }
        check_threads();
    }
}

/// Without the memory that is kept for the next large arguments for a while; `bytes.rs` shows that it goes.
fn descriptors(pid: u32) -> BTreeMap<String, usize> {
    let mut descriptors = os::descriptors(pid);
    let spares = descriptors.remove("/memfd:inparallel-arguments (deleted)");
    assert!(
        spares.unwrap_or_default() <= 8,
        "{spares:?} of them are no spares"
    );
    descriptors
}

/// The fork server's descriptors once nobody has anything to do.
fn settled(server: u32) -> BTreeMap<String, usize> {
    wait_for_rest(server);
    os::descriptors(server)
}

/// A joined thread is in /proc for a moment longer.
fn check_threads() {
    os::eventually(|| {
        let mut extra = os::threads();
        extra.retain(|name| !OWN_THREADS.contains(&name.as_str()));
        if cfg!(inparallel_no_pidfd) && os::fork_server().is_some() {
            // The one that waits for the fork server.
            let waiter = extra.iter().position(|name| name == "inparallel-wait");
            waiter.map(|waiter| extra.remove(waiter));
        }
        // The main thread carries the program's name.
        if extra.len() == 1 {
            Ok(())
        } else {
            Err(format!("threads are left: {extra:?}"))
        }
    });
}

fn descriptions(pids: &[u32]) -> String {
    pids.iter().map(|pid| os::describe(*pid)).collect()
}

/// The library's own threads, which live as long as the program. The kernel keeps 15 characters of a name.
const OWN_THREADS: &[&str] = &["inparallel", "inparallel-stde", "inparallel-call"];

const LONG: Duration = Duration::from_secs(30);
