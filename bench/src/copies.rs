//! Copies of this program: one for each workload and each plot, and those that a workload asks for.
//!
//! The one that measures writes what it found to a file, not to its stdout, which its workers have too.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::catalogue::{WORKLOADS, Workload};
use crate::plots::{PLOTS, Plot, Series};
use crate::raw::helper::Helper;
use crate::report::Line;
use crate::rounds::{Scale, microseconds};
use crate::work::startup;
use crate::{Fallible, leaks};

/// What this process is to do as a copy; `None` if it is the program itself.
pub(crate) fn serve(arguments: &[String]) -> Option<Fallible<()>> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [Helper::ARGUMENT] => Some(Helper::serve().map_err(Into::into)),
        [startup::ARGUMENT] => Some(startup::serve()),
        [MEASURE, name, file, scale] => Some(answer(name, file, scale_of(scale))),
        _ => None,
    }
}

/// Runs a workload in a copy, and sees that nothing of it is left.
pub(crate) fn measure(workload: &Workload, scale: Scale) -> Vec<Line> {
    let seen: Result<Vec<Line>, String> = ask(workload.name, scale);
    let mut lines = seen.unwrap_or_else(|error| vec![Line::failed(workload.name, error)]);
    if let Err(error) = await_orphans() {
        lines.push(Line::failed(format!("{} (leak)", workload.name), error));
    }
    lines
}

/// The same for what a plot shows.
pub(crate) fn take_series(plot: &Plot, scale: Scale) -> Result<Vec<Series>, String> {
    let series = ask(plot.name, scale)?;
    await_orphans().map_err(|error| error.to_string())?;
    Ok(series)
}

/// From now on processes whose parent has ended become children of this one, so that they are found.
pub(crate) fn inherit_orphans() -> io::Result<()> {
    Ok(prctl::set_child_subreaper(true)?)
}

fn ask<T: DeserializeOwned>(name: &str, scale: Scale) -> Result<T, String> {
    let folder = ScratchFolder::new(name).map_err(|error| error.to_string())?;
    let file = folder.0.join("seen.json");
    let mut command = Command::new(std::env::current_exe().map_err(|error| error.to_string())?);
    command
        .args([MEASURE, name])
        .arg(&file)
        .arg(scale.pick(QUICK, FULL))
        // What it would have removed goes with the folder if it is killed.
        .env("TMPDIR", &folder.0);
    let copy = command.spawn().map_err(|error| error.to_string())?;
    let limit = Duration::from_secs(scale.pick(60, 900));
    match wait(copy, limit).map_err(|error| error.to_string())? {
        Some(status) if status.success() => {
            let seen = fs::read(&file).map_err(|error| error.to_string())?;
            serde_json::from_slice::<Result<T, String>>(&seen).map_err(|error| error.to_string())?
        }
        Some(status) => Err(format!("its process ended with {status}")),
        None => Err(format!("nothing after {limit:?}, killed")),
    }
}

/// The copy's side: measures and writes.
fn answer(name: &str, file: &str, scale: Scale) -> Fallible<()> {
    if let Some(workload) = WORKLOADS.iter().find(|workload| workload.name == name) {
        return write(file, lines_of(workload, scale));
    }
    let plot = PLOTS
        .iter()
        .find(|plot| plot.name == name)
        .ok_or("no such plot")?;
    write(file, (plot.measure)(scale).map_err(|error| error.to_string()))
}

fn lines_of(workload: &Workload, scale: Scale) -> Result<Vec<Line>, String> {
    let before = leaks::Held::once_warm(workload.name).map_err(|error| error.to_string())?;
    let mut lines = (workload.measure)(workload.name, scale).map_err(|error| error.to_string())?;
    if let Err(error) = before.check() {
        lines.push(Line::failed(format!("{} (leak)", workload.name), error));
    }
    Ok(lines)
}

fn write<T: Serialize>(file: &str, seen: Result<T, String>) -> Fallible<()> {
    fs::write(file, serde_json::to_vec(&seen)?)?;
    Ok(())
}

/// Waits for the end of a child; `None` if it had to be killed.
#[expect(
    clippy::disallowed_methods,
    reason = "the child is held unreaped until the watch over it has ended"
)]
pub(crate) fn wait(mut child: Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let pid = Pid::from_raw(child.id() as i32);
    let (ended, end) = channel::<()>();
    let watch = std::thread::spawn(move || {
        let is_late = end.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
        // An error is that of a child which has ended just now.
        is_late && kill(pid, Signal::SIGKILL).is_ok()
    });
    while let Err(errno) = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
        if errno != nix::Error::EINTR {
            return Err(errno.into());
        }
    }
    drop(ended);
    let is_killed = watch.join().unwrap_or(false);
    let status = child.wait()?;
    Ok((!is_killed).then_some(status))
}

/// Reaps what was left to this process. What does not end by itself is a leak, and is killed.
#[expect(
    clippy::disallowed_methods,
    reason = "this process supervises nothing: each child it has was left to it"
)]
fn await_orphans() -> Fallible<()> {
    let mut left = Vec::new();
    let mut patience = ORPHANS_MAY_TAKE;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Err(nix::Error::ECHILD) if left.is_empty() => return Ok(()),
            Err(nix::Error::ECHILD) => {
                return Err(format!("left behind and killed: {}", left.join(", ")).into());
            }
            Err(errno) => return Err(errno.into()),
            Ok(WaitStatus::StillAlive) => {
                leaks::rest(MOMENT)?;
                patience = patience.saturating_sub(MOMENT);
                if patience.is_zero() {
                    for pid in leaks::children()? {
                        left.push(format!("{pid} {}", leaks::command_of(pid)));
                        kill(Pid::from_raw(pid), Signal::SIGKILL)?;
                    }
                    // What a killed one leaves behind comes to us in turn.
                    patience = MOMENT * 10;
                }
            }
            Ok(_) => {}
        }
    }
}

/// A folder for what a copy writes.
struct ScratchFolder(PathBuf);

impl ScratchFolder {
    fn new(name: &str) -> io::Result<Self> {
        let name = format!("inparallel-bench-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path)?;
        Ok(ScratchFolder(path))
    }
}

impl Drop for ScratchFolder {
    fn drop(&mut self) {
        // What is left of it is the system's to clear away.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Where a copy writes what it needs for itself.
pub(crate) fn scratch_file(name: &str) -> PathBuf {
    std::env::temp_dir().join(name)
}

/// Runs another copy to its end and gives what it wrote to its stdout: a number.
pub(crate) fn number_from_copy(argument: &str) -> Fallible<f64> {
    let output = Command::new(std::env::current_exe()?).arg(argument).output()?;
    match output.status.success() {
        true => Ok(microseconds(Duration::from_nanos(
            String::from_utf8(output.stdout)?.trim().parse()?,
        ))),
        false => Err(format!(
            "a copy ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        )
        .into()),
    }
}

fn scale_of(word: &str) -> Scale {
    match word {
        QUICK => Scale::Quick,
        _ => Scale::Full,
    }
}

const MEASURE: &str = "--measure";
const QUICK: &str = "quick";
const FULL: &str = "full";

/// Workers and the fork server see that their program is gone within this time.
const ORPHANS_MAY_TAKE: Duration = Duration::from_secs(10);
const MOMENT: Duration = Duration::from_millis(5);
