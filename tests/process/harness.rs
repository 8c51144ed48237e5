//! Runs trials one by one, each on the main thread of a process of its own, under a time limit.
//!
//! ```text
//! harness (may have threads)  ->  `--trial NAME` (one thread)  ->  what the trial starts
//! ```
//!
//! The harness is the reaper of all orphans below it, so that it sees every process that a trial leaves behind. It
//! answers the arguments of the standard harness that cargo and cargo nextest use.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use inparallel::StartMethod;
use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::{leak_check, os};

/// One behaviour.
pub(crate) struct Trial {
    pub(crate) name: &'static str,
    /// None: it concerns no start method.
    pub(crate) methods: &'static [StartMethod],
    /// Whether a task has run by the start method before, so that what lives as long as the program is there.
    pub(crate) is_warm: bool,
    pub(crate) run: fn(StartMethod),
}

/// A process that a trial needs beside its own: a name and what it does with its arguments.
pub(crate) type Role = (&'static str, fn(&[String]));

/// Declares the trials of a module: each name is a function of the start method.
macro_rules! trials {
    ($($kind:ident on $methods:expr => { $($name:ident),* $(,)? })*) => {
        pub(crate) const TRIALS: &[$crate::harness::Trial] = &[$($(
            $crate::harness::Trial {
                name: stringify!($name),
                methods: $methods,
                is_warm: trials!(@ $kind),
                run: $name,
            },
        )*)*];
    };
    (@ warm) => { true };
    (@ cold) => { false };
}

/// A process for each task.
pub(crate) const ISOLATED: &[StartMethod] = &[StartMethod::Fork, StartMethod::ForkServer, StartMethod::Spawn];
/// A process for each task, and arguments that are serialized.
pub(crate) const REMOTE: &[StartMethod] = &[StartMethod::ForkServer, StartMethod::Spawn];
/// What a pool's workers can be.
pub(crate) const POOLS: &[StartMethod] = &[StartMethod::ForkServer, StartMethod::Spawn, StartMethod::Thread];
pub(crate) const FORK: &[StartMethod] = &[StartMethod::Fork];
pub(crate) const FORK_SERVER: &[StartMethod] = &[StartMethod::ForkServer];
pub(crate) const SPAWN: &[StartMethod] = &[StartMethod::Spawn];
pub(crate) const IN_PROCESS: &[StartMethod] = &[StartMethod::Thread, StartMethod::Inline];
pub(crate) const ALL: &[StartMethod] = &StartMethod::all();
pub(crate) const PROGRAM: &[StartMethod] = &[];

pub(crate) fn main(trials: &[&'static [Trial]], roles: &[&'static [Role]]) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("--trial") => {
            perform(trials, &arguments[1]);
            return ExitCode::SUCCESS;
        }
        Some("--role") => {
            let role = roles
                .iter()
                .flat_map(|roles| *roles)
                .find(|role| role.0 == arguments[1]);
            (role.unwrap_or_else(|| panic!("no role {}", arguments[1])).1)(&arguments[2..]);
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    let asked = match Asked::parse(&arguments) {
        Ok(asked) => asked,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    let names: Vec<String> = all(trials).map(|(name, ..)| name).collect();
    let chosen: Vec<&String> = names.iter().filter(|name| asked.chooses(name)).collect();
    if asked.list {
        // Nothing is ever ignored by name.
        for name in chosen.iter().filter(|_| !asked.only_ignored) {
            println!("{name}: test");
        }
        if !asked.is_terse {
            println!("\n{} tests, 0 benchmarks", chosen.len());
        }
        return ExitCode::SUCCESS;
    }
    let chosen = if asked.only_ignored { Vec::new() } else { chosen };
    run(&chosen, names.len() - chosen.len(), asked.no_capture)
}

fn all(trials: &[&'static [Trial]]) -> impl Iterator<Item = (String, &'static Trial, StartMethod)> {
    trials.iter().flat_map(|trials| trials.iter()).flat_map(|trial| {
        let of = |group: String, method| (format!("{group}::{}", trial.name), trial, method);
        let mut named: Vec<_> = trial
            .methods
            .iter()
            .map(|method| of(method.to_string(), *method))
            .collect();
        if named.is_empty() {
            named.push(of("program".to_owned(), StartMethod::default()));
        }
        named
    })
}

/// In the trial's own process.
fn perform(trials: &[&'static [Trial]], name: &str) {
    let (_, trial, method) = all(trials)
        .find(|(known, ..)| known == name)
        .expect("the harness names a trial");
    let before = leak_check::Baseline::after_warm_up(trial.is_warm.then_some(method));
    (trial.run)(method);
    before.compare(trial.is_warm);
}

/// Ends a trial that cannot show anything on this machine.
pub(crate) fn skip(reason: &str) -> ! {
    println!("skipped: {reason}");
    std::process::exit(SKIPPED)
}

/// A folder for the files of the running trial; it is removed after it.
pub(crate) fn scratch() -> PathBuf {
    std::env::var_os(SCRATCH)
        .expect("a trial is started by the harness")
        .into()
}

/// This program in a role of its own.
pub(crate) fn role(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command
        .args(["--role", name])
        .args(arguments)
        .stdin(Stdio::null());
    command
}

fn run(names: &[&String], filtered_out: usize, no_capture: bool) -> ExitCode {
    os::become_reaper_of_orphans();
    os::forbid_core_files();
    let began = Instant::now();
    let (mut passed, mut ignored, mut failures) = (0, 0, Vec::new());
    println!("\nrunning {} tests", names.len());
    for (number, name) in names.iter().enumerate() {
        print!("test {name} ... ");
        std::io::stdout().flush().unwrap();
        let outcome = run_one(name, number, no_capture);
        match outcome {
            Outcome::Passed => {
                passed += 1;
                println!("ok");
            }
            Outcome::Skipped(reason) => {
                ignored += 1;
                println!("ignored, {reason}");
            }
            Outcome::Failed(what) => {
                println!("FAILED");
                failures.push((name, what));
            }
        }
    }
    if !failures.is_empty() {
        println!("\nfailures:");
        for (name, what) in &failures {
            println!("\n---- {name} ----\n{what}");
        }
        println!("\nfailures:");
        for (name, _) in &failures {
            println!("    {name}");
        }
    }
    println!(
        "\ntest result: {}. {passed} passed; {} failed; {ignored} ignored; 0 measured; {filtered_out} filtered out; \
         finished in {:.2}s\n",
        if failures.is_empty() { "ok" } else { "FAILED" },
        failures.len(),
        began.elapsed().as_secs_f64()
    );
    if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(101)
    }
}

enum Outcome {
    Passed,
    Skipped(String),
    Failed(String),
}

fn run_one(name: &str, number: usize, no_capture: bool) -> Outcome {
    let scratch = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{number}", std::process::id()));
    std::fs::create_dir_all(&scratch).unwrap();
    let mut output = os::unnamed_file();
    let outcome = supervise(name, &scratch, (!no_capture).then_some(&output));
    // A trial may have left files that only it may remove; the folder lies below target/.
    let _ = std::fs::remove_dir_all(&scratch);
    let mut text = Vec::new();
    output.rewind().unwrap();
    output.read_to_end(&mut text).unwrap();
    let text = String::from_utf8_lossy(&text);
    match outcome {
        Err(what) => Outcome::Failed(format!("{text}{what}")),
        Ok(Some(SKIPPED)) => {
            let reason = text.lines().find_map(|line| line.strip_prefix("skipped: "));
            Outcome::Skipped(reason.unwrap_or("see its output").to_owned())
        }
        Ok(_) => Outcome::Passed,
    }
}

/// Starts the trial and waits until it and everything it started is gone.
fn supervise(name: &str, scratch: &std::path::Path, output: Option<&File>) -> Result<Option<i32>, String> {
    let mut command = Command::new("/proc/self/exe");
    command
        .args(["--trial", name])
        .env(SCRATCH, scratch)
        .stdin(Stdio::null());
    if let Some(output) = output {
        let copy = || Stdio::from(OwnedFd::from(output.try_clone().unwrap()));
        command.stdout(copy()).stderr(copy());
    }
    // Never waited for by this handle: the reaper below takes every child.
    let trial = Pid::from_raw(
        command
            .spawn()
            .map_err(|error| format!("start the trial: {error}"))?
            .id()
            .cast_signed(),
    );
    let ended = reap_everybody();

    let limit = std::env::var("TRIAL_LIMIT_SECS")
        .ok()
        .and_then(|text| text.parse().ok())
        .map(Duration::from_secs);
    let limit = limit.unwrap_or(LIMIT);
    let deadline = Instant::now() + limit;
    let status = loop {
        match ended.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok((pid, status)) if pid == trial => break status,
            Ok(_) => {}
            Err(_) => {
                return Err(give_up(
                    &ended,
                    &format!("{name} hung: it did not end within {limit:?}"),
                ));
            }
        }
    };
    // The fork server and orphans notice the end of the program, and end.
    let deadline = Instant::now() + LIMIT_FOR_ORPHANS;
    loop {
        match ended.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(_) => {}
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                return Err(give_up(
                    &ended,
                    &format!("{name} left processes behind ({status:?})"),
                ));
            }
        }
    }
    match status {
        WaitStatus::Exited(_, code) if code == 0 || code == SKIPPED => Ok(Some(code)),
        other => Err(format!("the trial's process ended with {other:?}")),
    }
}

/// Reaps children on a thread until none is left.
fn reap_everybody() -> Receiver<(Pid, WaitStatus)> {
    let (tx, rx) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        loop {
            match waitpid(None, None) {
                Ok(status) => {
                    let pid = status.pid().expect("no child is stopped without being asked for");
                    if tx.send((pid, status)).is_err() {
                        return;
                    }
                }
                Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    });
    rx
}

/// Describes and kills everything below this process.
fn give_up(ended: &Receiver<(Pid, WaitStatus)>, what: &str) -> String {
    let below = os::descendants(std::process::id());
    let report = below.iter().map(|pid| os::describe(*pid)).collect::<String>();
    let report = format!("{what}; still there:\n{report}");
    // Whoever is killed may leave orphans.
    while !os::descendants(std::process::id()).is_empty() {
        for pid in os::descendants(std::process::id()) {
            os::send(pid, libc::SIGKILL);
        }
        while ended.recv_timeout(Duration::from_millis(200)).is_ok() {}
    }
    report
}

/// What was asked for on the command line.
#[derive(Default)]
struct Asked {
    filters: Vec<String>,
    skips: Vec<String>,
    is_exact: bool,
    list: bool,
    is_terse: bool,
    no_capture: bool,
    only_ignored: bool,
}

impl Asked {
    fn parse(arguments: &[String]) -> Result<Asked, String> {
        let mut asked = Asked::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let (name, mut value) = match argument.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
                _ => (argument.as_str(), None),
            };
            let mut value = || {
                value
                    .take()
                    .or_else(|| arguments.next().cloned())
                    .ok_or(format!("{name}: no value"))
            };
            match name {
                "--exact" => asked.is_exact = true,
                "--list" => asked.list = true,
                "--nocapture" | "--no-capture" => asked.no_capture = true,
                "--ignored" => asked.only_ignored = true,
                "--skip" => asked.skips.push(value()?),
                "--format" => asked.is_terse = value()? == "terse",
                // Of no meaning here: trials run one by one, and nothing is ignored.
                "--test-threads" | "--color" | "--logfile" | "-Z" => _ = value()?,
                "--quiet" | "-q" | "--include-ignored" | "--show-output" | "--test" | "--bench" => {}
                _ if name.starts_with('-') => return Err(format!("{name}: no such option")),
                _ => asked.filters.push(argument.clone()),
            }
        }
        Ok(asked)
    }

    fn chooses(&self, name: &str) -> bool {
        let matches = |filter: &String| {
            if self.is_exact {
                name == filter
            } else {
                name.contains(filter.as_str())
            }
        };
        (self.filters.is_empty() || self.filters.iter().any(matches)) && !self.skips.iter().any(matches)
    }
}

const SCRATCH: &str = "INPARALLEL_TEST_SCRATCH";

/// The exit status of a trial that can show nothing here.
const SKIPPED: i32 = 77;

/// No trial takes more than a few seconds on an idle machine. `TRIAL_LIMIT_SECS` is another limit.
const LIMIT: Duration = Duration::from_secs(120);
const LIMIT_FOR_ORPHANS: Duration = Duration::from_secs(30);
