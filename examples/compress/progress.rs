//! How far it is: a bar on a terminal, otherwise a line per tenth.

use std::io::{IsTerminal, stderr};

use indicatif::{ProgressBar, ProgressStyle};

/// Counts bytes, since files differ by a factor of a million.
pub(crate) struct Progress {
    files: (usize, usize),
    bytes: (u64, u64),
    /// `None`: not a terminal. It has no thread of its own (no steady tick), so that `Fork` stays possible.
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(crate) fn new(files: usize, bytes: u64) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let style =
                ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {msg} files, {eta} left");
            ProgressBar::new(bytes).with_style(style.expect("the template is a constant that was tried"))
        });
        Progress {
            files: (0, files),
            bytes: (0, bytes),
            bar,
        }
    }

    pub(crate) fn file_done(&mut self, len: u64) {
        let tenth = |(done, all): (u64, u64)| done * 10 / all.max(1);
        let before = tenth(self.bytes);
        self.files.0 += 1;
        self.bytes.0 += len;
        let (done, all) = self.files;
        match &self.bar {
            Some(bar) => {
                bar.set_message(format!("{done}/{all}"));
                bar.set_position(self.bytes.0);
            }
            None if tenth(self.bytes) > before => {
                eprintln!("{:3} % {done}/{all} files", tenth(self.bytes) * 10)
            }
            None => {}
        }
    }

    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
