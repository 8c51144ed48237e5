//! The stand-alone worker: what `Options::program` may name in place of the program itself.
//!
//! A program that uses `inparallel` starts it and hands it its channels; `init` then serves them and never returns.

use std::process::ExitCode;

fn main() -> ExitCode {
    inparallel::init();
    eprintln!("this is a worker: a program that uses inparallel starts it, and it runs that program's tasks");
    eprintln!("started by hand it has nothing to do; to use it, name its path in `Options::program`");
    ExitCode::from(2)
}
