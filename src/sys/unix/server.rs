//! What passes between a program and its fork server, and what the server does with the operating system.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::select::{FdSet, pselect};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{ForkResult, Pid};

use super::process::{OurFork, Which, ended, raw_reap, signal_group, status_of};
use super::{Control, Fd, fd, os, retry, worker};
use crate::sys::ExitStatus;

/// One datagram with the descriptors that came along.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) bytes: Vec<u8>,
    pub(crate) fds: Vec<Fd>,
}

impl Control {
    /// Another descriptor of the same channel.
    pub(crate) fn duplicate(&self) -> io::Result<Fd> {
        let number = retry(|| fcntl(self.fd(), FcntlArg::F_DUPFD_CLOEXEC(3)))?;
        // SAFETY: the kernel just made this duplicate, and nobody else knows it.
        Ok(Fd::adopt(unsafe { OwnedFd::from_raw_fd(number) }))
    }

    /// Sends a launch request: the worker's calls and replies, this program's stdout of now, and its stderr.
    pub(crate) fn send_launch(
        &self,
        bytes: &[u8],
        calls: &Fd,
        replies: &Fd,
        stderr: super::SpawnStderr<'_>,
    ) -> io::Result<bool> {
        with_output(Some(stderr), |stdout, stderr| {
            let stderr = stderr.unwrap_or(stdout);
            self.send(bytes, &[calls.as_fd(), replies.as_fd(), stdout, stderr])
        })
    }

    /// Sends a request for a worker that waits: its calls and replies, its side of a gate, its stderr, and its board if it
    /// has one.
    pub(crate) fn send_prepare(&self, bytes: &[u8], lines: [&Fd; 4], board: Option<&Fd>) -> io::Result<bool> {
        let fds: Vec<_> = lines.into_iter().chain(board).map(AsFd::as_fd).collect();
        self.send(bytes, &fds)
    }
}

/// Has `send` send what a worker is to print to: this program's stdout of now, and a stderr if one is asked for. What is
/// closed here is `/dev/null` there.
pub(super) fn with_output<R>(
    stderr: Option<super::SpawnStderr<'_>>,
    send: impl FnOnce(BorrowedFd<'_>, Option<BorrowedFd<'_>>) -> io::Result<R>,
) -> io::Result<R> {
    use super::SpawnStderr::{Inherit, Null, Pipe};
    let is_open = |fd: BorrowedFd<'_>| fcntl(fd, FcntlArg::F_GETFD).is_ok();
    let (has_stdout, wants_null) = match stderr {
        Some(Null) => (is_open(standard(1)), true),
        Some(Inherit) => (is_open(standard(1)), !is_open(standard(2))),
        Some(Pipe(_)) | None => (is_open(standard(1)), false),
    };
    let null = match has_stdout && !wants_null {
        true => None,
        false => Some(fd::null()?),
    };
    let null = null.as_ref().map(AsFd::as_fd);
    let stdout = null.filter(|_| !has_stdout).unwrap_or(standard(1));
    let stderr = stderr.map(|stderr| match stderr {
        Pipe(pipe) => pipe.as_fd(),
        Inherit | Null => null.filter(|_| wants_null).unwrap_or(standard(2)),
    });
    send(stdout, stderr)
}

/// What the fork server's one wait gave.
pub(crate) enum ServerEvent {
    Request(Request),
    Ended {
        pid: i32,
        status: i32,
    },
    /// The program is gone.
    ParentGone,
}

/// The fork server's side of the operating system: one thread, one wait.
pub(crate) struct ForkServer {
    control: Control,
    waiting: SigSet,
    bond: os::Bond,
    /// Signals with a handler that a worker must not have.
    handlers: Vec<c_int>,
    /// The limit of descriptors that the program had.
    files: (libc::rlim_t, libc::rlim_t),
}

impl ForkServer {
    /// Makes this process ready to serve; it must have one thread.
    pub(crate) fn new(control: Control) -> io::Result<ForkServer> {
        let mut blocked = SigSet::empty();
        blocked.add(Signal::SIGCHLD);
        blocked.add(Signal::SIGTERM);
        blocked.thread_set_mask()?;
        worker::set_handler(libc::SIGCHLD, noted as *const () as libc::sighandler_t);
        worker::set_handler(libc::SIGTERM, told_to_end as *const () as libc::sighandler_t);
        worker::set_handler(libc::SIGPIPE, libc::SIG_IGN);
        // What the program left open for those whom it executes is not for a process that stays.
        fd::close_all_others(&[control.fd().raw()]);
        // It passes descriptors on for many workers at a time. They get the program's limit back.
        let files = getrlimit(Resource::RLIMIT_NOFILE)?;
        // Less than the limit allows is no reason not to serve.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, files.1, files.1);
        // As an extra: usually the end of the channel tells first.
        os::die_with_thread(libc::SIGTERM, nix::unistd::getppid());
        // A low number, whatever it was in the program: `pselect` cannot wait on a high one.
        let low = retry(|| fcntl(control.fd(), FcntlArg::F_DUPFD_CLOEXEC(3)))?;
        drop(control);
        // SAFETY: the kernel just made this duplicate, and nobody else knows it.
        let control = Control::new(Fd::adopt(unsafe { OwnedFd::from_raw_fd(low) }));
        Ok(ForkServer {
            control,
            waiting: SigSet::empty(),
            bond: os::Bond::new()?,
            handlers: Vec::new(),
            files,
        })
    }

    /// After the preload: from here on the server is as its workers will find it, and prints nowhere.
    pub(crate) fn settle(&mut self) -> io::Result<()> {
        self.handlers = worker::handled_signals();
        let null = fd::null()?;
        worker::dup2(os::as_raw(&null), 1)?;
        worker::dup2(os::as_raw(&null), 2)
    }

    /// The next thing to do, when it comes.
    pub(crate) fn next(&mut self) -> io::Result<ServerEvent> {
        loop {
            if let Ok(Some(pid)) = ended(Which::Any) {
                // The zombie holds its group's number while what is left of the group is killed.
                signal_group(pid, true);
                if let Some(status) = raw_reap(pid) {
                    return Ok(ServerEvent::Ended {
                        pid: pid.as_raw(),
                        status,
                    });
                }
            }
            if TOLD_TO_END.load(Ordering::Relaxed) {
                return Ok(ServerEvent::ParentGone);
            }
            let mut readable = FdSet::new();
            readable.insert(self.control.fd().as_fd());
            // Signals arrive only in here: none is missed between the checks above and the wait.
            match pselect(None, &mut readable, None, None, None, &self.waiting) {
                Ok(_) => {}
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            }
            return match self.control.receive() {
                Ok(Some(request)) => Ok(ServerEvent::Request(request)),
                Ok(None) => continue,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(ServerEvent::ParentGone),
                Err(error) => Err(error),
            };
        }
    }

    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.control.send(bytes, &[]).map(|_| ())
    }

    /// Forks a worker that runs `run` with its calls, its replies and how setting it up went, and ends.
    pub(crate) fn fork(&self, fds: Vec<Fd>, run: impl FnOnce(&Fd, Fd, io::Result<()>)) -> io::Result<i32> {
        let fds = four(fds)?;
        let keep: Vec<RawFd> = fds.iter().map(Fd::raw).chain(self.bond.descriptor()).collect();
        self.make(&keep, |ready| {
            let [calls, replies, stdout, stderr] = fds;
            run(
                &calls,
                replies,
                ready.and_then(|()| self.connect(Some(stdout), stderr)),
            );
        })
    }

    /// Forks a worker that waits for its first call: `run` gets its calls, its replies, its side of the gate, its board, and
    /// how setting it up went.
    pub(crate) fn fork_ready(
        &self,
        mut fds: Vec<Fd>,
        has_board: bool,
        run: impl FnOnce(&Fd, Fd, Fd, Option<Fd>, io::Result<()>),
    ) -> io::Result<i32> {
        let board = if has_board { fds.pop() } else { None };
        let fds = four(fds)?;
        let all = fds.iter().chain(&board).map(Fd::raw);
        let keep: Vec<RawFd> = all.chain(self.bond.descriptor()).collect();
        self.make(&keep, |ready| {
            let [calls, replies, gate, stderr] = fds;
            run(
                &calls,
                replies,
                gate,
                board,
                ready.and_then(|()| self.connect(None, stderr)),
            );
        })
    }

    /// Makes a copy that keeps these descriptors of ours, runs `run` and ends; it never returns from here.
    fn make(&self, keep: &[RawFd], run: impl FnOnce(io::Result<()>)) -> io::Result<i32> {
        let ours = OurFork::begin();
        // SAFETY: this process has one thread, so that the copy is as good as the original.
        let forked = unsafe { nix::unistd::fork() };
        drop(ours);
        match forked? {
            ForkResult::Child => {
                let _never_return = Escape;
                run(worker::set_up_served(keep, &self.handlers, &self.bond));
                worker::exit_now(0)
            }
            ForkResult::Parent { child } => {
                // Both sides make the group, so that it exists for whoever comes first. Too late is fine.
                let _ = nix::unistd::setpgid(child, child);
                Ok(child.as_raw())
            }
        }
    }

    /// In a worker: its stdout, its stderr and its limits are the program's.
    fn connect(&self, stdout: Option<Fd>, stderr: Fd) -> io::Result<()> {
        if let Some(stdout) = stdout {
            worker::dup2(stdout.raw(), 1)?;
        }
        worker::dup2(stderr.raw(), 2)?;
        // Lowering a limit cannot fail.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, self.files.0, self.files.1);
        Ok(())
    }

    /// Signals the group of a worker that is not reaped yet.
    pub(crate) fn signal(&self, pid: i32, kill: bool) {
        signal_group(Pid::from_raw(pid), kill);
    }
}

/// The descriptors that come with a launch.
fn four(fds: Vec<Fd>) -> io::Result<[Fd; 4]> {
    // The kernel drops those that do not fit into the table.
    fds.try_into()
        .map_err(|_| io::Error::from_raw_os_error(libc::EMFILE))
}

/// Ends the process when it is dropped: no panic unwinds a worker into its server's code.
struct Escape;

impl Drop for Escape {
    fn drop(&mut self) {
        worker::exit_now(101);
    }
}

/// What a raw wait status from the fork server says.
pub(crate) fn status_from_server(status: i32) -> ExitStatus {
    status_of(status)
}

/// One of the three standard descriptors.
fn standard(number: RawFd) -> BorrowedFd<'static> {
    // SAFETY: the standard descriptors belong to the process for all its life; if one was closed, calls fail.
    unsafe { BorrowedFd::borrow_raw(number) }
}

/// Its only purpose is to end the wait.
extern "C" fn noted(_: c_int) {}

extern "C" fn told_to_end(_: c_int) {
    TOLD_TO_END.store(true, Ordering::Relaxed);
}

static TOLD_TO_END: AtomicBool = AtomicBool::new(false);
