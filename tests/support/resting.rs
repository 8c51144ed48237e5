//! When a program and its fork server have nothing to do: before that, what they hold is not what stays.

use std::fs;
use std::time::{Duration, Instant};

/// As in `src/sys`.
pub(crate) const READY_WORKERS: usize = if cfg!(inparallel_no_linux) { 0 } else { 2 };

/// Waits until neither the fork server nor a thread of this program has anything to do (which until then may hold a worker's
/// ends of what it has just sent), and there are no workers but those that are ready for calls to come: none if there was no
/// call of its start method, else a fixed number, which is made when nothing else is to be done.
pub(crate) fn wait_for_rest(server: u32) {
    eventually(|| {
        let workers = children(server);
        let as_many_as_stay = [0, READY_WORKERS].contains(&workers.len());
        if as_many_as_stay && state(server) == Some('S') && other_threads_sleep() {
            Ok(())
        } else {
            Err(format!(
                "the fork server or a thread of the program does not rest; the server's workers: {workers:?}"
            ))
        }
    });
}

/// The children of a process, zombies too.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace()
                .map(|pid| pid.parse().unwrap())
                .collect::<Vec<_>>()
        })
        .collect()
}

/// This program's fork server, if it has one.
pub(crate) fn fork_server() -> Option<u32> {
    children(std::process::id()).into_iter().find(|pid| {
        let title = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&title).contains("[inparallel fork server]")
    })
}

/// The letter of `ps` for a process: `R`, `S`, `T`, `Z`.
pub(crate) fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Whether all threads of this process but the calling one sleep.
fn other_threads_sleep() -> bool {
    let own = fs::read_link("/proc/thread-self").unwrap();
    let threads = fs::read_dir("/proc/self/task").unwrap();
    let others = threads
        .filter_map(Result::ok)
        .filter(|thread| Some(&*thread.file_name()) != own.file_name());
    let stats = others.filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
    let mut states = stats.filter_map(|stat| stat.rsplit(") ").next()?.chars().next());
    states.all(|state| state == 'S')
}

/// For what comes true soon, where nothing tells of it: looks again and again, and fails after a long while. Everything
/// else waits on pipes.
#[expect(
    clippy::disallowed_methods,
    reason = "nothing tells of what is looked for here"
)]
pub(crate) fn eventually(look: impl Fn() -> Result<(), String>) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Err(what) = look() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}
