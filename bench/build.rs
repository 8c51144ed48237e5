//! Builds the program that `raw/fork.rs` spawns. It is no `[[bin]]`, since `cargo run` builds only the one it runs.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    let variable =
        |name: &str| env::var(name).unwrap_or_else(|_| panic!("{name}: not set; run this through cargo"));
    let source = "minimal/rust.rs";
    let program = Path::new(&variable("OUT_DIR")).join("minimal-rust");
    println!("cargo::rerun-if-changed={source}");
    println!("cargo::rustc-env=MINIMAL_RUST={}", program.display());
    let status = Command::new(variable("RUSTC"))
        .args([
            "--edition=2024",
            "-O",
            "-Cpanic=abort",
            "--target",
            &variable("TARGET"),
            source,
            "-o",
        ])
        .arg(&program)
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "{source}: rustc could not build it"
    );
}
