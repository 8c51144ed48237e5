//! Compresses every file below a folder, one process per file, and says how each of them ended.
//!
//! `cargo run --release --example compress -- [FOLDER] [--hostile]`; `--help` lists the rest.
//!
//! It exits with 1 if a file's worker died, ran out of time or could not be started, or if a hostile task ended in
//! another way than it must. A file that vanished or cannot be read is the task's own `Err`: counted, no failure.

mod arguments;
mod files;
mod hostile;
mod progress;
mod table;

use std::collections::HashMap;
use std::error::Error;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{fs, io};

use inparallel::{InFlight, Stderr, TaskFuture, task, waitfor};
use serde::{Deserialize, Serialize};

use arguments::Arguments;
use files::Found;
use hostile::Deed;
use progress::Progress;
use table::Table;

/// What a worker gives back: sizes and its own clock. The compressed bytes never travel.
#[derive(Debug, Serialize, Deserialize)]
struct Packed {
    bytes_in: u64,
    bytes_out: u64,
    elapsed: Duration,
}

/// The task's own error: the file was not to be had. The machinery's is [`inparallel::Error`].
#[derive(Debug, Serialize, Deserialize)]
struct FileError {
    step: Step,
    reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum Step {
    Read,
    Compress,
    Write,
}

impl FileError {
    fn at(step: Step) -> impl FnOnce(io::Error) -> FileError {
        move |error| FileError {
            step,
            reason: error.to_string(),
        }
    }
}

/// What both kinds of task give, so that one list can hold them.
type Answer = Result<Packed, FileError>;

/// Runs in a process of its own. Paths travel as [`OsString`]: serde refuses a `PathBuf` that is not UTF-8.
#[task]
fn compress(file: OsString, level: i32, write_to: Option<OsString>) -> Answer {
    let started = Instant::now();
    let plain = fs::read(&file).map_err(FileError::at(Step::Read))?;
    let packed = zstd::bulk::compress(&plain, level).map_err(FileError::at(Step::Compress))?;
    if let Some(target) = write_to {
        let folder = Path::new(&target).parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(FileError::at(Step::Write))?;
        fs::write(&target, &packed).map_err(FileError::at(Step::Write))?;
    }
    Ok(Packed {
        bytes_in: plain.len() as u64,
        bytes_out: packed.len() as u64,
        elapsed: started.elapsed(),
    })
}

enum Job {
    File { path: PathBuf, len: u64 },
    Hostile(Deed),
}

impl Job {
    fn start(&self, arguments: &Arguments, folder: &Path) -> TaskFuture<Answer> {
        match self {
            Job::File { path, .. } => {
                let target = arguments
                    .out
                    .as_ref()
                    .map(|out| files::target(out, folder, path).into_os_string());
                compress::with()
                    .start(arguments.start)
                    .timeout(arguments.limit)
                    .call(path.clone().into_os_string(), arguments.level, target)
            }
            // Their last words belong to the table, not to the screen.
            Job::Hostile(deed) => hostile::misbehave::with()
                .start(arguments.start)
                .timeout(hostile::LIMIT)
                .stderr(Stderr::Capture)
                .call(*deed),
        }
    }
}

fn main() -> ExitCode {
    let outcome = arguments::parse(std::env::args_os().skip(1)).and_then(|arguments| match arguments {
        Some(arguments) => run(&arguments),
        None => Ok(true),
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("compress: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    let found = match &arguments.folder {
        Some(folder) => files::below(folder),
        None => files::below_default()?,
    };
    println!("{found}, {}", arguments);
    let Found {
        folder,
        files,
        unreadable,
        ..
    } = found;
    let bytes = files.iter().map(|(_, len)| len).sum();
    let mut progress = Progress::new(files.len(), bytes);
    let mut jobs: Vec<Job> = files
        .into_iter()
        .map(|(path, len)| Job::File { path, len })
        .collect();
    if arguments.hostile {
        hostile::mix_in(&mut jobs);
    }

    let mut table = Table::new(unreadable);
    let started = Instant::now();
    let mut jobs = jobs.into_iter();
    let mut job_of = HashMap::new();
    let running = InFlight::new();
    for turn in waitfor(&running).concurrency(arguments.jobs)? {
        let Some(done) = turn else {
            // There is room for one more.
            if let Some(job) = jobs.next() {
                let future = job.start(arguments, &folder);
                job_of.insert(future.id(), job);
                running.push(future);
            }
            continue;
        };
        let job = job_of
            .remove(&done.id())
            .expect("every future on the list was noted when it was started");
        let outcome = done.wait();
        match job {
            Job::File { path, len } => {
                progress.file_done(len);
                table.file(path, outcome);
            }
            Job::Hostile(deed) => table.hostile(deed, outcome),
        }
    }
    progress.finish();
    table.print(started.elapsed(), arguments.jobs);
    Ok(table.all_as_it_should_be())
}
