//! The least ordinary Rust program: eight bytes to its stdout.

use std::io::Write;

fn main() -> std::io::Result<()> {
    let mut stdout = std::io::stdout();
    stdout.write_all(&42_u64.to_ne_bytes())?;
    stdout.flush()
}
