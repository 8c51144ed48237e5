//! Making, signalling and reaping processes.
//!
//! Everything between a fork and the first task stands in [`fork_worker`] and in `worker.rs`: it takes no lock and
//! allocates nothing until the copy is set up.

use std::cell::{Cell, RefCell};
use std::ffi::{CString, OsStr, OsString, c_int};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{ForkResult, Pid};

use super::{Fd, fd};
use crate::sys::ExitStatus;

/// A process that we made and have not reaped, so that its pid is surely its own.
#[derive(Debug)]
pub(crate) struct Child {
    pid: Pid,
    /// Readable once the process has ended.
    exit: Fd,
    /// Whether `exit` is a pidfd.
    is_pidfd: bool,
    /// Without a pidfd: the thread that waits for the process.
    waiter: RefCell<Option<JoinHandle<()>>>,
}

impl Child {
    /// Takes charge of a process that was just made. When that cannot be done, it is killed and reaped.
    fn watch(pid: Pid, means: Means) -> io::Result<Child> {
        let pipe = match means {
            Means::Pidfd(room) => {
                drop(room);
                if let Some(pidfd) = super::os::pidfd(pid) {
                    return Ok(Child {
                        pid,
                        exit: Fd::adopt(pidfd),
                        is_pidfd: true,
                        waiter: RefCell::default(),
                    });
                }
                // Another thread has taken the room.
                fd::pipe()
            }
            Means::Pipe(pipe) => Ok(pipe),
        };
        if ended(Which::One(pid)).is_err() {
            // It has ended, and somebody else has reaped it, while this thread waited for its turn: a program that ignores
            // SIGCHLD has the kernel do that. What is left of its group holds the number, or nobody had time to take it.
            let _ = nix::sys::signal::killpg(pid, Signal::SIGKILL);
        }
        match pipe.and_then(|pipe| wait_in_thread(pid, pipe)) {
            Ok((exit, waiter)) => Ok(Child {
                pid,
                exit,
                is_pidfd: false,
                waiter: RefCell::new(Some(waiter)),
            }),
            Err(error) => {
                signal_group(pid, true);
                // Whatever its status, the process is not ours to report any more.
                let _ = wait_for(pid, 0);
                Err(error)
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw().cast_unsigned()
    }

    /// Readable once the process has ended.
    pub(crate) fn exit(&self) -> &Fd {
        &self.exit
    }

    /// Asks the process group to end, or kills it.
    pub(crate) fn signal(&self, kill: bool) {
        if !self.signal_by_pidfd(kill) {
            signal_group(self.pid, kill);
        }
    }

    /// A pidfd names this process's group even if somebody else has reaped its leader.
    fn signal_by_pidfd(&self, kill: bool) -> bool {
        self.is_pidfd && super::os::signal_by_pidfd(&self.exit, kill)
    }

    /// If the process has ended: kills what is left of its group, and reaps it.
    pub(crate) fn try_reap(&self) -> Option<ExitStatus> {
        match ended(Which::One(self.pid)) {
            Ok(None) => None,
            Ok(Some(pid)) => {
                // The leader is a zombie that holds the group's number: nobody else can have it.
                signal_group(pid, true);
                self.join_waiter();
                Some(reap(pid).unwrap_or_else(|| self.kept()))
            }
            // Somebody else reaped it: the group's number may be a stranger's now, but not to a pidfd.
            Err(_) => {
                self.signal_by_pidfd(true);
                self.join_waiter();
                Some(self.kept())
            }
        }
    }

    /// Kills the group and waits for the leader's end: for a process that nobody will watch any more.
    pub(crate) fn end(&self) {
        self.signal(true);
        // Whatever its status, nobody asks.
        let _ = wait_for(self.pid, 0);
        self.join_waiter();
    }

    /// When the process has ended. The waiter has seen that too or is about to, so that this takes no time; after it, its
    /// descriptor and its thread are gone.
    fn join_waiter(&self) {
        if let Some(waiter) = self.waiter.take() {
            // It does not panic.
            let _ = waiter.join();
        }
    }

    fn kept(&self) -> ExitStatus {
        super::os::status_kept_by(self.is_pidfd.then_some(&self.exit))
    }
}

/// What it takes to watch a process that does not exist yet: without a descriptor to spare there is none to watch.
enum Means {
    /// Room for a pidfd, kept by one of this process.
    Pidfd(Fd),
    /// For a thread that waits, where the kernel has no pidfds.
    Pipe((Fd, Fd)),
}

impl Means {
    fn reserve() -> io::Result<Means> {
        Ok(match super::os::pidfd(nix::unistd::getpid()) {
            Some(room) => Means::Pidfd(Fd::adopt(room)),
            None => Means::Pipe(fd::pipe()?),
        })
    }
}

/// Without pidfds a thread waits for each process, and writes a byte when it has ended. An end of the pipe would come late
/// where a process that somebody else made holds a copy of the writer.
fn wait_in_thread(pid: Pid, (reader, writer): (Fd, Fd)) -> io::Result<(Fd, JoinHandle<()>)> {
    HAD_WAITERS.store(true, Ordering::Relaxed);
    WAITERS.fetch_add(1, Ordering::AcqRel);
    let waiter = std::thread::Builder::new()
        .name("inparallel-waiter".into())
        .stack_size(64 << 10)
        .spawn(move || {
            SigSet::all().thread_block().ok();
            // An error means that somebody else reaped it: it has ended in any case.
            let _ = wait_for(pid, libc::WNOWAIT);
            WAITERS.fetch_sub(1, Ordering::AcqRel);
            // An empty pipe takes a byte; if nobody reads it, nobody asks.
            let _ = writer.write(&[1]);
        });
    if waiter.is_err() {
        WAITERS.fetch_sub(1, Ordering::AcqRel);
    }
    Ok((reader, waiter?))
}

/// How many threads there are beside the caller's, `own` others, and those that wait for processes.
pub(crate) fn other_threads(own: usize) -> io::Result<usize> {
    let began = Instant::now();
    // Waiters come and go with the workers, and one that has left the count is still a thread for a moment.
    let patience = if HAD_WAITERS.load(Ordering::Relaxed) {
        LONGEST_LOOK
    } else {
        Duration::ZERO
    };
    let mut looks = 0;
    loop {
        let count = super::os::count_threads()?;
        let others = count.saturating_sub(1 + own + WAITERS.load(Ordering::Acquire));
        if others == 0 || (looks >= MOST_LOOKS && began.elapsed() >= patience) {
            return Ok(others);
        }
        looks += 1;
        std::thread::yield_now();
    }
}

/// How often threads are counted when there seem to be foreign ones.
const MOST_LOOKS: u64 = 20;

/// How long, at least, where there have been waiters.
const LONGEST_LOOK: Duration = Duration::from_millis(100);

/// What the forked copy is connected to. Its `replies` go to the function that runs in it.
pub(crate) struct Forked<'a> {
    pub(crate) replies: &'a Fd,
    pub(crate) lifeline: &'a Fd,
    pub(crate) stderr: SpawnStderr<'a>,
}

/// Where a new process writes its stderr.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SpawnStderr<'a> {
    Pipe(&'a Fd),
    Inherit,
    Null,
}

/// Forks the calling process. The copy runs `run` with where to reply and how setting itself up went, and ends; it never
/// returns from here, not even by a panic.
///
/// The caller has made sure that no thread is alive that could hold a lock which the copy needs.
pub(crate) fn fork_worker(plumbing: &Forked<'_>, run: impl FnOnce(Fd, io::Result<()>)) -> io::Result<Child> {
    // A program that ignores SIGCHLD has the kernel reap its children: the copy must not end before it is watched.
    let gate = if super::worker::is_ignored(libc::SIGCHLD) {
        Some(fd::pipe()?)
    } else {
        None
    };
    let means = Means::reserve()?;
    // Until the copy is watched no handler of the program runs in this thread, which could reap it.
    let mask = SigSet::all().thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_SETMASK)?;
    let ours = OurFork::begin();
    // SAFETY: the copy has this thread only. Until its handlers, descriptors and group are set up, it calls nothing but
    // async-signal-safe functions: sigaction, setpgid, getpgrp, close, open, dup2, fcntl, read, sigprocmask
    // (`wait_at`, `set_up_fork`, `die_with_writer`), and outside of Linux pthread_create (`die_with_writer`, which says
    // why). What runs after that may need locks of other threads; that there are none is what the caller has checked.
    let forked = unsafe { nix::unistd::fork() };
    drop(ours);
    let watched = match forked {
        Ok(ForkResult::Child) => {
            let _never_return = Escape;
            if let Some((reader, writer)) = &gate {
                wait_at(reader, writer);
            }
            let ready = super::worker::set_up_fork(plumbing);
            run(fd::inherit_own(plumbing.replies.raw()), ready);
            super::worker::exit_now(0)
        }
        Ok(ForkResult::Parent { child }) => {
            // Both sides make the group, so that it exists for whoever comes first. Too late is fine.
            let _ = nix::unistd::setpgid(child, child);
            Child::watch(child, means)
        }
        Err(error) => Err(error.into()),
    };
    mask.thread_set_mask().ok();
    // The gate opens: its writer goes.
    drop(gate);
    watched
}

/// In the copy: waits until the original has closed the gate's writer, by intention or by its end.
fn wait_at(reader: &Fd, writer: &Fd) {
    drop(fd::inherit_own(writer.raw()));
    // Nothing is written: this is the end, or an error, after which waiting makes no sense either.
    let _ = reader.read(&mut [0]);
}

/// While this lives, a fork of this thread is one of ours, which closes what it must itself.
pub(super) struct OurFork(());

impl OurFork {
    pub(super) fn begin() -> OurFork {
        IS_OURS.set(true);
        OurFork(())
    }
}

impl Drop for OurFork {
    fn drop(&mut self) {
        IS_OURS.set(false);
    }
}

thread_local! {
    static IS_OURS: Cell<bool> = const { Cell::new(false) };
}

/// Ends the process when it is dropped: no panic unwinds a forked copy into its caller's code.
struct Escape;

impl Drop for Escape {
    fn drop(&mut self) {
        super::worker::exit_now(101);
    }
}

/// How to execute a program as a worker or server.
pub(crate) struct Spawn<'a> {
    pub(crate) program: &'a OsStr,
    /// What the process calls itself in a list of processes.
    pub(crate) title: &'a str,
    /// What it finds in [`BOOT_VARIABLE`](super::BOOT_VARIABLE).
    pub(crate) boot: &'a super::Boot<'a>,
    pub(crate) environment: &'a [(OsString, OsString)],
    pub(crate) stderr: SpawnStderr<'a>,
}

/// Executes a program in a process group of its own, with default signal handlers and no signal blocked.
pub(crate) fn spawn(spawn: &Spawn<'_>) -> io::Result<Child> {
    let mut actions = PosixSpawnFileActions::init()?;
    let null = fd::null()?;
    actions.add_dup2(super::os::as_raw(&null), 0)?;
    match spawn.stderr {
        SpawnStderr::Pipe(pipe) => actions.add_dup2(pipe.raw(), 2)?,
        SpawnStderr::Inherit => {}
        SpawnStderr::Null => actions.add_dup2(super::os::as_raw(&null), 2)?,
    }
    let mut kept = Vec::new();
    for fd in spawn.boot.descriptors() {
        kept.extend(super::os::pass(&mut actions, fd)?);
    }
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_pgroup(Pid::from_raw(0))?;
    let mut defaults = SigSet::all();
    defaults.remove(Signal::SIGKILL);
    defaults.remove(Signal::SIGSTOP);
    attributes.set_sigdefault(&defaults)?;
    attributes.set_sigmask(&SigSet::empty())?;
    attributes.set_flags(
        PosixSpawnFlags::POSIX_SPAWN_SETPGROUP
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK,
    )?;
    let means = Means::reserve()?;
    let program = c_string(spawn.program.as_bytes())?;
    let arguments = [c_string(spawn.title.as_bytes())?];
    let mut environment = Vec::with_capacity(spawn.environment.len() + 1);
    for (name, value) in spawn.environment {
        environment.push(c_string(&[name.as_bytes(), b"=", value.as_bytes()].concat())?);
    }
    environment.push(c_string(
        format!("{}={}", super::BOOT_VARIABLE, spawn.boot.text()).as_bytes(),
    )?);
    let pid = nix::spawn::posix_spawn(
        program.as_c_str(),
        &actions,
        &attributes,
        &arguments,
        &environment,
    )?;
    drop(kept);
    Child::watch(pid, means)
}

fn c_string(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a zero byte in a path or variable"))
}

/// Asks a process group to end, or kills it. The caller holds its leader unreaped.
pub(super) fn signal_group(leader: Pid, kill: bool) {
    let signal = if kill { Signal::SIGKILL } else { Signal::SIGTERM };
    // A group whose members are all gone is what is wanted.
    let _ = nix::sys::signal::killpg(leader, signal);
    if kill {
        // The leader may not have made its group yet.
        let _ = nix::sys::signal::kill(leader, signal);
    } else {
        // A stopped process does not notice that it is asked to end.
        let _ = nix::sys::signal::killpg(leader, Signal::SIGCONT);
    }
}

/// Which children to look at.
#[derive(Debug, Clone, Copy)]
pub(super) enum Which {
    One(Pid),
    Any,
}

/// A child that has ended and is not reaped yet, if there is one now.
pub(super) fn ended(which: Which) -> io::Result<Option<Pid>> {
    let (kind, id) = match which {
        Which::One(pid) => (libc::P_PID, pid.as_raw() as libc::id_t),
        Which::Any => (libc::P_ALL, 0),
    };
    loop {
        // SAFETY: all zeros is a valid siginfo_t.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: `info` is valid for writing for the whole call.
        let result = unsafe {
            libc::waitid(
                kind,
                id,
                &raw mut info,
                libc::WEXITED | libc::WNOHANG | libc::WNOWAIT,
            )
        };
        if result == 0 {
            // SAFETY: waitid fills in the pid of a child, or leaves it zero.
            let pid = unsafe { info.si_pid() };
            return Ok((pid != 0).then(|| Pid::from_raw(pid)));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Blocks until a child has ended; reaps it unless `flags` says to leave it.
fn wait_for(pid: Pid, flags: c_int) -> io::Result<()> {
    loop {
        // SAFETY: all zeros is a valid siginfo_t.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let id = pid.as_raw() as libc::id_t;
        // SAFETY: `info` is valid for writing for the whole call.
        let result = unsafe { libc::waitid(libc::P_PID, id, &raw mut info, libc::WEXITED | flags) };
        if result == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Takes the status of a child that has ended.
pub(super) fn reap(pid: Pid) -> Option<ExitStatus> {
    raw_reap(pid).map(status_of)
}

pub(super) fn raw_reap(pid: Pid) -> Option<c_int> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is valid for writing for the whole call.
        let result = unsafe { libc::waitpid(pid.as_raw(), &raw mut status, libc::WNOHANG) };
        if result == pid.as_raw() {
            return Some(status);
        }
        if result == 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return None;
        }
    }
}

/// What a raw wait status says.
pub(super) fn status_of(status: c_int) -> ExitStatus {
    if libc::WIFSIGNALED(status) {
        ExitStatus::Signaled {
            signal: libc::WTERMSIG(status),
            core: libc::WCOREDUMP(status),
        }
    } else {
        ExitStatus::Exited(libc::WEXITSTATUS(status))
    }
}

/// The user and the groups that the process acts for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Identity {
    ids: [u32; 4],
    groups: Vec<u32>,
}

/// Who this process is now.
pub(crate) fn identity() -> Identity {
    let ids = [
        nix::unistd::getuid().as_raw(),
        nix::unistd::geteuid().as_raw(),
        nix::unistd::getgid().as_raw(),
        nix::unistd::getegid().as_raw(),
    ];
    Identity {
        ids,
        groups: super::os::groups(),
    }
}

/// Counts the forks between the first program and this process: what was made in one generation belongs to it alone.
#[inline]
pub(crate) fn generation() -> u64 {
    GENERATION.load(Ordering::Relaxed)
}

/// How many copies this process has made of itself since [`watch_forks`].
pub(crate) fn forks() -> u64 {
    FORKS.load(Ordering::Relaxed)
}

/// From now on every `fork` of the C library is counted, also those that users make themselves.
pub(crate) fn watch_forks() {
    extern "C" fn in_the_copy() {
        GENERATION.fetch_add(1, Ordering::Relaxed);
        WAITERS.store(0, Ordering::Relaxed);
        // A copy that the program makes itself would keep workers alive by holding what tells them of its parent's end.
        if !IS_OURS.get() {
            fd::close_all_but(&[]);
        }
    }
    extern "C" fn in_the_original() {
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
    // No `Once`: a copy that is made while another thread is in it would wait for ever.
    if !WATCHED.swap(true, Ordering::Relaxed) {
        // SAFETY: the handlers touch atomics and close descriptors, which is allowed in a copy.
        unsafe { libc::pthread_atfork(None, Some(in_the_original), Some(in_the_copy)) };
    }
}

static WATCHED: AtomicBool = AtomicBool::new(false);
static FORKS: AtomicU64 = AtomicU64::new(0);
static GENERATION: AtomicU64 = AtomicU64::new(0);
static WAITERS: AtomicUsize = AtomicUsize::new(0);
static HAD_WAITERS: AtomicBool = AtomicBool::new(false);
