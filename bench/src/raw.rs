//! What the kernel itself charges, without `inparallel`: the references, and the means to measure.

use std::ffi::{CString, OsStr};
use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::poll::PollTimeout;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, posix_spawn};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{ForkResult, Pid, fork, pipe2};

/// A program without Rust's runtime, and one with it. Each writes eight bytes and ends.
pub(crate) const BARE_PROGRAM: &str = env!("MINIMAL_BARE");
pub(crate) const RUST_PROGRAM: &str = env!("MINIMAL_RUST");

/// `fork`, eight bytes through a pipe, `waitpid`: the least that a fresh process can cost.
#[expect(
    clippy::disallowed_methods,
    reason = "the kernel's own price is what is measured"
)]
pub(crate) fn fork_and_answer() -> io::Result<Duration> {
    let started = Instant::now();
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    // SAFETY: the child calls `write` and `_exit`, both async-signal-safe, and touches no lock of another thread.
    let pid = match unsafe { fork() }? {
        ForkResult::Child => {
            let status = i32::from(nix::unistd::write(&writer, &ANSWER.to_ne_bytes()) != Ok(ANSWER_LEN));
            // SAFETY: it ends the process at once, without the handlers and destructors that are the parent's.
            unsafe { libc::_exit(status) }
        }
        ForkResult::Parent { child } => child,
    };
    take_answer(reader, writer, pid)?;
    Ok(started.elapsed())
}

/// The same by `posix_spawn` of `program`, which has the pipe as its stdout.
pub(crate) fn spawn_and_answer(program: &str) -> io::Result<Duration> {
    let path = CString::new(OsStr::new(program).as_bytes())?;
    let started = Instant::now();
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    let mut actions = PosixSpawnFileActions::init()?;
    actions.add_dup2(writer.as_raw_fd(), 1)?;
    let no_environment: [CString; 0] = [];
    let pid = posix_spawn(
        path.as_c_str(),
        &actions,
        &PosixSpawnAttr::init()?,
        &[&path],
        &no_environment,
    )?;
    take_answer(reader, writer, pid)?;
    Ok(started.elapsed())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the pid is that of a reference process, unknown to any supervisor"
)]
fn take_answer(reader: OwnedFd, writer: OwnedFd, pid: Pid) -> io::Result<()> {
    drop(writer);
    let mut answer = [0; ANSWER_LEN];
    let read = std::fs::File::from(reader).read_exact(&mut answer);
    match waitpid(pid, None)? {
        WaitStatus::Exited(_, 0) if u64::from_ne_bytes(answer) == ANSWER => read,
        status => Err(io::Error::other(format!(
            "the reference process ended in {status:?}, answer {answer:?}"
        ))),
    }
}

/// A helper process that stays small while this one grows: where the raw fork of a small process is measured.
pub(crate) struct SmallProcess {
    process: Child,
    requests: ChildStdin,
    answers: ChildStdout,
}

impl SmallProcess {
    /// The argument that makes this program serve as one.
    pub(crate) const ARGUMENT: &str = "--serve-as-small-process";

    pub(crate) fn start() -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut process = command
            .arg(Self::ARGUMENT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        match (process.stdin.take(), process.stdout.take()) {
            (Some(requests), Some(answers)) => Ok(SmallProcess {
                process,
                requests,
                answers,
            }),
            _ => Err(io::Error::other("the small process has no pipes")),
        }
    }

    /// What a raw fork costs there, just now.
    pub(crate) fn fork_and_answer(&mut self) -> io::Result<Duration> {
        self.requests.write_all(&[1])?;
        let mut nanoseconds = [0; 8];
        self.answers.read_exact(&mut nanoseconds)?;
        Ok(Duration::from_nanos(u64::from_ne_bytes(nanoseconds)))
    }

    /// Eight bytes there and back.
    pub(crate) fn round_trip(&mut self) -> io::Result<Duration> {
        let started = Instant::now();
        self.requests.write_all(&[0])?;
        let mut answer = [0; 8];
        self.answers.read_exact(&mut answer)?;
        Ok(started.elapsed())
    }

    /// The helper's whole life: it ends with its requests.
    pub(crate) fn serve() -> io::Result<()> {
        let (mut requests, mut answers) = (io::stdin(), io::stdout());
        let mut request = [0];
        while requests.read(&mut request)? > 0 {
            let elapsed = match request {
                [0] => 0,
                _ => fork_and_answer()?.as_nanos() as u64,
            };
            answers.write_all(&elapsed.to_ne_bytes())?;
            answers.flush()?;
        }
        Ok(())
    }
}

impl Drop for SmallProcess {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Touched memory in pages of 4 KiB, what a `fork` has to copy the tables of.
pub(crate) struct Resident {
    start: NonNull<libc::c_void>,
    len: usize,
}

impl Resident {
    /// `None` for nothing.
    pub(crate) fn new(mebibytes: usize) -> io::Result<Option<Self>> {
        let Some(len) = NonZeroUsize::new(mebibytes << 20) else {
            return Ok(None);
        };
        let (rw, private) = (
            ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
            MapFlags::MAP_PRIVATE,
        );
        // SAFETY: the kernel chooses the place, so that nothing is replaced.
        let start = unsafe { mmap_anonymous(None, len, rw, private) }?;
        let resident = Resident {
            start,
            len: len.get(),
        };
        // SAFETY: the range is the mapping above, and the advice changes no content.
        unsafe { madvise(start, resident.len, MmapAdvise::MADV_NOHUGEPAGE) }?;
        for offset in (0..resident.len).step_by(4096) {
            let page = start.as_ptr().wrapping_byte_add(offset).cast::<u8>();
            // SAFETY: the offset is within the mapping, which is writable and known to nobody else.
            unsafe { page.write_volatile(1) };
        }
        Ok(Some(resident))
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and nothing points into it any more.
        let unmapped = unsafe { munmap(self.start, self.len) };
        unmapped.expect("a mapping that was made can be unmapped");
    }
}

/// CPU time of this process, all threads, user and system.
pub(crate) fn cpu_time() -> io::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into())
}

/// How often a thread of this process went to sleep by itself.
pub(crate) fn voluntary_switches() -> io::Result<i64> {
    Ok(getrusage(UsageWho::RUSAGE_SELF)?.voluntary_context_switches())
}

/// Lets time pass without work.
pub(crate) fn rest(time: Duration) -> io::Result<()> {
    let limit = PollTimeout::try_from(time).map_err(|_| io::Error::other("too long a rest for poll"))?;
    nix::poll::poll(&mut [], limit)?;
    Ok(())
}

const ANSWER: u64 = 42;
const ANSWER_LEN: usize = size_of::<u64>();
