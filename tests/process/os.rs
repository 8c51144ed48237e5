//! What the trials need of the operating system: a look into /proc, signals, and ways to come to harm.

use std::collections::BTreeMap;
use std::fs;
use std::fs::File;
use std::os::fd::{FromRawFd, OwnedFd};

use nix::sys::signal::{self, SigHandler, Signal};
use nix::unistd::Pid;

pub(crate) use crate::resting::{children, eventually, fork_server, state};

/// Everything below a process, parents first.
pub(crate) fn descendants(pid: u32) -> Vec<u32> {
    let mut found = children(pid);
    let mut next = 0;
    while next < found.len() {
        found.extend(children(found[next]));
        next += 1;
    }
    found
}

/// How many descriptors of which kind a process has open.
pub(crate) fn descriptors(pid: u32) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        // The one that this loop reads the folder with is gone by then.
        let Ok(target) = fs::read_link(entry.unwrap().path()) else {
            continue;
        };
        let target = target.display().to_string();
        let kind = target
            .split_once(":[")
            .map_or(target.clone(), |(kind, _)| kind.to_owned());
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}

/// The names of this process's threads.
pub(crate) fn threads() -> Vec<String> {
    let threads = fs::read_dir("/proc/self/task").unwrap();
    let names = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("comm")).ok());
    names.map(|name| name.trim_end().to_owned()).collect()
}

/// What a process is and what its threads wait for, for a person.
pub(crate) fn describe(pid: u32) -> String {
    let title = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let title = String::from_utf8_lossy(&title).replace('\0', " ");
    let state = state(pid).unwrap_or('-');
    let mut text = format!("  {pid} {state} {title:?}\n");
    let threads = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    for path in threads.map(|thread| thread.path()) {
        let read = |name: &str| {
            fs::read_to_string(path.join(name))
                .unwrap_or_default()
                .trim_end()
                .to_owned()
        };
        text += &format!(
            "      {} in {}, system call {}\n",
            read("comm"),
            read("wchan"),
            read("syscall")
        );
    }
    text
}

/// The highest memory use of this process so far, in KiB.
pub(crate) fn peak_memory() -> u64 {
    of_status("VmHWM:").trim_end_matches(" kB").parse().unwrap()
}

pub(crate) fn thread_count() -> usize {
    of_status("Threads:").parse().unwrap()
}

fn of_status(field: &str) -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let value = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    value.trim().to_owned()
}

pub(crate) fn send(pid: u32, number: i32) {
    // It may have ended before.
    let _ = signal::kill(
        Pid::from_raw(pid.cast_signed()),
        Signal::try_from(number).unwrap(),
    );
}

/// Whether no process has this number, not even a zombie.
pub(crate) fn is_gone(pid: u32) -> bool {
    signal::kill(Pid::from_raw(pid.cast_signed()), None) == Err(nix::errno::Errno::ESRCH)
}

/// Stops a process, and waits until it is stopped.
pub(crate) fn stop(pid: u32) {
    send(pid, libc::SIGSTOP);
    eventually(|| match state(pid) {
        Some('T') => Ok(()),
        state => Err(format!("process {pid} does not stop: {state:?}")),
    });
}

pub(crate) fn raise(number: i32) {
    signal::raise(Signal::try_from(number).unwrap()).unwrap();
}

pub(crate) fn ignore(number: Signal) {
    // SAFETY: to ignore a signal runs no code.
    unsafe { signal::signal(number, SigHandler::SigIgn) }.unwrap();
}

pub(crate) fn set_default(number: Signal) {
    // SAFETY: no handler runs by it.
    unsafe { signal::signal(number, SigHandler::SigDfl) }.unwrap();
}

/// Touches memory that is not there.
pub(crate) fn fault() -> ! {
    // SAFETY: it is not, and that is the purpose: nothing is mapped in the first page, so the kernel ends the process.
    unsafe { std::ptr::without_provenance_mut::<u8>(16).write_volatile(1) };
    unreachable!("the kernel ends the process")
}

pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no precondition.
    unsafe { libc::_exit(code) }
}

/// Closes descriptors that belong to others, as a task of bad manners does.
pub(crate) fn close_range(first: u32, last: u32) {
    // SAFETY: it takes integers. Their owners in this process are never used again but by calls that fail.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
}

/// The descriptors of unnamed pipes in this process.
pub(crate) fn pipes() -> Vec<i32> {
    let entries: Vec<_> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let is_pipe = |path: &std::path::PathBuf| {
        fs::read_link(path).is_ok_and(|target| target.display().to_string().starts_with("pipe:["))
    };
    entries
        .into_iter()
        .filter(is_pipe)
        .map(|path| path.file_name().unwrap().to_str().unwrap().parse().unwrap())
        .collect()
}

/// Writes to a descriptor by its number, whoever it belongs to.
pub(crate) fn write(number: i32, bytes: &[u8]) {
    // SAFETY: the pointer and the length are those of a slice; a number that is not open makes the call fail.
    unsafe { libc::write(number, bytes.as_ptr().cast(), bytes.len()) };
}

/// The soft and the hard limit.
pub(crate) fn limit(resource: u32) -> (u64, u64) {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is valid for writing for the whole call.
    assert_eq!(unsafe { libc::getrlimit(resource, &raw mut limit) }, 0);
    (limit.rlim_cur, limit.rlim_max)
}

/// Sets the soft limit.
pub(crate) fn set_limit(resource: u32, soft: u64) {
    let limit = libc::rlimit {
        rlim_cur: soft,
        rlim_max: limit(resource).1,
    };
    // SAFETY: `limit` is valid for reading for the whole call.
    assert_eq!(unsafe { libc::setrlimit(resource, &raw const limit) }, 0);
}

/// Trials crash on purpose; their cores are of no use.
pub(crate) fn forbid_core_files() {
    set_limit(libc::RLIMIT_CORE, 0);
}

/// From now on orphans below this process become its children.
pub(crate) fn become_reaper_of_orphans() {
    // SAFETY: the call takes integers.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) }, 0);
}

/// A file without a name.
pub(crate) fn unnamed_file() -> File {
    // SAFETY: the name is a C string.
    let number = unsafe { libc::memfd_create(c"output".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(number >= 0, "memfd_create: {}", std::io::Error::last_os_error());
    // SAFETY: the kernel just gave out this number, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(number) }.into()
}

/// Whether a status can be known of a child that somebody else reaped: Linux keeps it for pidfds since 6.15.
pub(crate) fn statuses_survive_reaping() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    !cfg!(inparallel_no_pidfd) && version >= (6, 15)
}

/// Whether pools hand tasks to their workers ahead, on memory that both see.
pub(crate) fn tasks_are_handed_ahead() -> bool {
    cfg!(target_os = "linux") && !cfg!(inparallel_no_pidfd)
}

/// How often a process, or a thread, slept and was woken: `path` is its folder below `/proc`.
pub(crate) fn wake_ups(path: impl AsRef<std::path::Path>) -> u64 {
    let status = fs::read_to_string(path.as_ref().join("status")).unwrap();
    let mut lines = status.lines();
    let line = lines
        .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))
        .unwrap();
    line.trim().parse().unwrap()
}

/// Of every thread of this process but the first.
pub(crate) fn wake_ups_of_other_threads() -> Vec<u64> {
    let threads = fs::read_dir("/proc/self/task").unwrap();
    let paths = threads.map(|thread| thread.unwrap().path());
    let others = paths.filter(|path| !path.ends_with(std::process::id().to_string()));
    others.map(wake_ups).collect()
}

/// A fifth of a second in which this thread asks for nothing.
pub(crate) fn rest() {
    assert_eq!(nix::poll::poll(&mut [], 200_u16).unwrap(), 0);
}
