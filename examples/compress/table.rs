//! The account at the end: what went in and out, what failed and why, and where the time went.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::Answer;
use crate::hostile::Deed;

const SLOWEST: usize = 5;
const EXAMPLES: usize = 3;

pub(crate) struct Table {
    packed: u64,
    bytes_in: u64,
    bytes_out: u64,
    task_time: Duration,
    slowest: Vec<(Duration, u64, PathBuf)>,
    /// The tasks' own errors, by what they say: the file is accounted for.
    refused: BTreeMap<String, Vec<PathBuf>>,
    /// The machinery's errors, by kind: the file was not done.
    failed: BTreeMap<String, Vec<PathBuf>>,
    unreadable: Vec<String>,
    hostile: Vec<(Deed, bool, String)>,
}

impl Table {
    pub(crate) fn new(unreadable: Vec<String>) -> Self {
        Table {
            packed: 0,
            bytes_in: 0,
            bytes_out: 0,
            task_time: Duration::ZERO,
            slowest: Vec::new(),
            refused: BTreeMap::new(),
            failed: BTreeMap::new(),
            unreadable,
            hostile: Vec::new(),
        }
    }

    pub(crate) fn file(&mut self, path: PathBuf, outcome: inparallel::Result<Answer>) {
        match outcome {
            Ok(Ok(packed)) => {
                self.packed += 1;
                self.bytes_in += packed.bytes_in;
                self.bytes_out += packed.bytes_out;
                self.task_time += packed.elapsed;
                self.slowest.push((packed.elapsed, packed.bytes_in, path));
                self.slowest.sort_by_key(|(elapsed, ..)| Reverse(*elapsed));
                self.slowest.truncate(SLOWEST);
            }
            Ok(Err(error)) => {
                let what = format!("{:?}: {}", error.step, error.reason);
                self.refused.entry(what).or_default().push(path);
            }
            Err(error) => self.failed.entry(ending(&error)).or_default().push(path),
        }
    }

    pub(crate) fn hostile(&mut self, deed: Deed, outcome: inparallel::Result<Answer>) {
        let said = match &outcome {
            Ok(_) => "gave its result".to_owned(),
            Err(error) => ending(error),
        };
        self.hostile.push((deed, deed.ended_as_it_must(&outcome), said));
    }

    pub(crate) fn all_as_it_should_be(&self) -> bool {
        self.failed.is_empty() && self.hostile.iter().all(|(_, as_it_must, _)| *as_it_must)
    }

    pub(crate) fn print(&self, wall: Duration, jobs: usize) {
        let failed: usize = self.failed.values().map(Vec::len).sum();
        let refused: usize = self.refused.values().map(Vec::len).sum();
        println!();
        println!(
            "files      {} compressed, {refused} refused by the task, {failed} failed",
            thousands(self.packed)
        );
        let ratio = self.bytes_in as f64 / self.bytes_out.max(1) as f64;
        println!(
            "bytes      {} in, {} out ({ratio:.2} to 1)",
            thousands(self.bytes_in),
            thousands(self.bytes_out)
        );
        let (wall, tasks) = (wall.as_secs_f64(), self.task_time.as_secs_f64());
        let share = 100.0 * tasks / (wall * jobs as f64);
        println!(
            "time       {wall:.2} s for {tasks:.2} s of work in the tasks ({:.2} times as fast, {share:.0} % of {jobs} at a time)",
            tasks / wall
        );
        for (elapsed, len, path) in &self.slowest {
            let seconds = elapsed.as_secs_f64();
            println!(
                "slow       {seconds:6.2} s {:>12} bytes  {path:?}",
                thousands(*len)
            );
        }
        for text in &self.unreadable {
            println!("unread     {text}");
        }
        self.print_paths("refused", &self.refused);
        self.print_paths("failed", &self.failed);
        self.print_hostile();
    }

    fn print_paths(&self, head: &str, by_kind: &BTreeMap<String, Vec<PathBuf>>) {
        for (kind, paths) in by_kind {
            println!("{head:10} {:4} {kind}", paths.len());
            for path in paths.iter().take(EXAMPLES) {
                println!("                {path:?}");
            }
        }
    }

    fn print_hostile(&self) {
        let mut lines: BTreeMap<String, (usize, bool)> = BTreeMap::new();
        for (deed, as_it_must, said) in &self.hostile {
            let line = lines
                .entry(format!("{:17} {said}", format!("{deed:?}")))
                .or_insert((0, *as_it_must));
            line.0 += 1;
        }
        for (text, (count, as_it_must)) in lines {
            println!(
                "hostile    {count:4} {text}{}",
                if as_it_must { "" } else { "  <- WRONG" }
            );
        }
    }
}

/// How the machinery says that a task ended, without what differs from task to task.
fn ending(error: &inparallel::Error) -> String {
    let detail = error
        .signal()
        .map(|signal| signal.to_string())
        .or(error.exit_code().map(|code| format!("status {code}")))
        .or(error.limit().map(|limit| format!("{limit:?}")))
        .or(error.panic_message().map(|message| format!("{message:?}")))
        .unwrap_or_else(|| error.to_string());
    format!("{:?}: {detail}", error.kind())
}

/// 1234567 as 1,234,567.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
