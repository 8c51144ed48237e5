//! Which program this is: its build id, its place in memory, its file.

use std::ffi::OsString;
use std::sync::OnceLock;

/// The identity of this build: the linker's build id, or what tells the file apart where there is none.
pub(crate) fn build_id() -> &'static [u8] {
    &image().build_id
}

/// Where the program is mapped, from its first to behind its last byte.
pub(crate) fn image_range() -> (usize, usize) {
    image().range
}

/// The file to execute for another process of this program. On Linux the running file itself, even if its path was
/// replaced or deleted meanwhile.
pub(crate) fn file_of_program() -> std::io::Result<OsString> {
    super::os::file_of_program()
}

/// Whether the process has more rights than the one who started it: then nothing from the environment may run code.
pub(crate) fn is_privileged() -> bool {
    super::os::is_privileged()
}

fn image() -> &'static super::os::Image {
    static IMAGE: OnceLock<super::os::Image> = OnceLock::new();
    IMAGE.get_or_init(super::os::image)
}

/// Tells a file apart from its successors at the same path.
pub(super) fn file_identity() -> Vec<u8> {
    use std::os::unix::fs::MetadataExt;
    let metadata = file_of_program().and_then(std::fs::metadata);
    let numbers = metadata.map(|m| {
        [
            m.dev(),
            m.ino(),
            m.size(),
            m.mtime() as u64,
            m.mtime_nsec() as u64,
        ]
    });
    // Without any identity no worker is ever trusted: an empty one matches an empty one only.
    numbers
        .map(|numbers| numbers.iter().flat_map(|number| number.to_le_bytes()).collect())
        .unwrap_or_default()
}
