//! Which files: those of one folder, largest first, so that no big one is left alone at the end.

use std::cmp::Reverse;
use std::fmt;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use crate::table::thousands;

/// Where a run without FOLDER looks, in this order.
const LIKELY: [&str; 6] = [
    "/usr/share/doc",
    "/usr/share",
    "/usr/include",
    "/usr/lib/python3",
    "/usr/lib",
    "/System/Library",
];
const ENOUGH_FILES: usize = 2_000;
/// So that a run without FOLDER takes about a minute on two cores.
const MOST_FILES: usize = 5_000;
const MOST_BYTES: u64 = 256 << 20;

/// The files of one folder.
pub(crate) struct Found {
    pub(crate) folder: PathBuf,
    pub(crate) files: Vec<(PathBuf, u64)>,
    /// What could not be looked into, each with its reason.
    pub(crate) unreadable: Vec<String>,
    /// How many there are, if `files` has not all of them.
    capped_from: Option<usize>,
}

/// Every regular file below `folder`; links are not followed.
pub(crate) fn below(folder: &Path) -> Found {
    let (mut files, mut unreadable) = (Vec::new(), Vec::new());
    for entry in WalkDir::new(folder).sort_by_file_name() {
        match entry.and_then(|entry| Ok((entry.metadata()?, entry))) {
            Ok((metadata, entry)) if metadata.is_file() => files.push((entry.into_path(), metadata.len())),
            Ok(_) => {}
            Err(error) => unreadable.push(error.to_string()),
        }
    }
    files.sort_by_key(|(_, len)| Reverse(*len));
    Found {
        folder: folder.to_owned(),
        files,
        unreadable,
        capped_from: None,
    }
}

/// The first likely folder with thousands of files, and of those an even choice that takes about a minute.
pub(crate) fn below_default() -> Result<Found, String> {
    let mut found = LIKELY
        .iter()
        .map(|folder| below(Path::new(folder)))
        .find(|found| found.files.len() >= ENOUGH_FILES)
        .ok_or(format!(
            "FOLDER: not given, and none of {LIKELY:?} has {ENOUGH_FILES} files; name one"
        ))?;
    let count = found.files.len();
    let bytes: u64 = found.files.iter().map(|(_, len)| len).sum();
    let share = (MOST_FILES as f64 / count as f64).min(MOST_BYTES as f64 / bytes as f64);
    if share < 1.0 {
        // Every so many, which leaves the mix of sizes as it is.
        let mut taken = 0.0;
        found.files.retain(|_| {
            let before = taken as u64;
            taken += share;
            taken as u64 > before
        });
        found.capped_from = Some(count);
    }
    Ok(found)
}

/// Where `--out` puts what `file` became: the same place below `out`, with `.zst` added to the name.
pub(crate) fn target(out: &Path, folder: &Path, file: &Path) -> PathBuf {
    let mut target = out
        .join(file.strip_prefix(folder).unwrap_or(file))
        .into_os_string();
    target.push(".zst");
    target.into()
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} files",
            self.folder.display(),
            thousands(self.files.len() as u64)
        )?;
        match self.capped_from {
            Some(all) => write!(
                f,
                " of its {} (capped; name the folder to take all)",
                thousands(all as u64)
            ),
            None => Ok(()),
        }
    }
}
