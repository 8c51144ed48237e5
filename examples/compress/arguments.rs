//! The command line. Every refusal names the argument, its value, and what to write instead.

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::Duration;

use inparallel::StartMethod;

const HELP: &str = "\
compress [FOLDER] [OPTION..]

Compresses every regular file below FOLDER, one process per file, and throws the bytes away.

  --hostile        mixes in tasks that crash, hang, exit, panic and print garbage
  --start METHOD   fork, forkserver, spawn, thread or inline (default: the platform's)
  --limit SECONDS  time limit of one file (default: 30)
  --level N        zstd's compression level, 1 to 22 (default: 19)
  --jobs N         files at a time (default: one per core)
  --out DIR        keeps what was compressed, below DIR";

/// What was asked for.
pub(crate) struct Arguments {
    pub(crate) folder: Option<PathBuf>,
    pub(crate) hostile: bool,
    pub(crate) start: StartMethod,
    pub(crate) limit: Duration,
    pub(crate) level: i32,
    pub(crate) jobs: usize,
    pub(crate) out: Option<PathBuf>,
}

/// `None`: help was asked for, and given.
pub(crate) fn parse(mut given: impl Iterator<Item = OsString>) -> Result<Option<Arguments>, Box<dyn Error>> {
    let mut arguments = Arguments {
        folder: None,
        hostile: false,
        start: StartMethod::default(),
        limit: Duration::from_secs(30),
        level: 19,
        jobs: available_parallelism().map_or(1, usize::from),
        out: None,
    };
    while let Some(argument) = given.next() {
        let mut value = |wanted: &str| match given.next() {
            Some(value) => Ok(value),
            None => Err(format!("{} needs a value: {wanted}", argument.display())),
        };
        match argument.to_str() {
            Some("--help" | "-h") => {
                println!("{HELP}");
                return Ok(None);
            }
            Some("--hostile") => arguments.hostile = true,
            Some("--start") => {
                let method = value("a start method")?;
                // The library's own message names the value and the known ones.
                arguments.start = method
                    .to_string_lossy()
                    .parse()
                    .map_err(|error| format!("--start: {error}"))?;
            }
            Some("--limit") => {
                let wanted = "give seconds, more than 0 and at most 1000000";
                let seconds: f64 = number("--limit", &value(wanted)?, wanted, |&n| n > 0.0 && n <= 1e6)?;
                // At least what a clock can tell from zero.
                arguments.limit = Duration::from_secs_f64(seconds).max(Duration::from_nanos(1));
            }
            Some("--level") => {
                let wanted = "give a whole number from 1 to 22";
                arguments.level = number("--level", &value(wanted)?, wanted, |n| (1..=22).contains(n))?;
            }
            Some("--jobs") => {
                let wanted = "give a whole number from 1 to 10000";
                arguments.jobs = number("--jobs", &value(wanted)?, wanted, |n| (1..=10_000).contains(n))?;
            }
            Some("--out") => arguments.out = Some(value("a folder")?.into()),
            Some(text) if text.starts_with('-') => {
                return Err(format!(
                    "{text}: no such option; --help lists them (a folder of that name: ./{text})"
                )
                .into());
            }
            _ => {
                if let Some(first) = arguments.folder.replace(argument.clone().into()) {
                    let (first, second) = (first.display(), argument.display());
                    return Err(format!("FOLDER: both {first} and {second} given; give one").into());
                }
            }
        }
    }
    check(&arguments)?;
    Ok(Some(arguments))
}

fn check(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    if arguments.hostile && !arguments.start.is_isolated() {
        let method = arguments.start;
        let remedy = "use fork, forkserver or spawn, or leave --hostile out";
        return Err(format!(
            "--start: {method} shares this process, which no hostile task would spare; {remedy}"
        )
        .into());
    }
    if let Some(folder) = &arguments.folder {
        let found = std::fs::metadata(folder)
            .map_err(|error| format!("FOLDER: {}: {error}; give a folder that exists", folder.display()))?;
        if !found.is_dir() {
            return Err(format!(
                "FOLDER: {} is no folder; give the one it lies in",
                folder.display()
            )
            .into());
        }
    }
    if let Some(out) = &arguments.out {
        create(out)
            .map_err(|error| format!("--out: {}: {error}; give a folder to write to", out.display()))?;
    }
    Ok(())
}

fn create(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)
}

fn number<N: std::str::FromStr>(
    argument: &str,
    value: &OsStr,
    wanted: &str,
    fits: impl Fn(&N) -> bool,
) -> Result<N, String> {
    let parsed = value.to_str().and_then(|text| text.parse().ok()).filter(fits);
    parsed.ok_or_else(|| {
        format!(
            "{argument}: {:?} cannot be used; {wanted}",
            value.display().to_string()
        )
    })
}

impl fmt::Display for Arguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Arguments {
            start,
            level,
            jobs,
            limit,
            ..
        } = self;
        write!(
            f,
            "level {level}, start method {start}, {jobs} at a time, limit {limit:?}"
        )
    }
}
