//! The program that `inparallel` began with: log in to many hosts at once and gather their `uname -a`.
//!
//! `cargo run --example uname -- alpha.local bravo.local`; without hosts, this machine answers a few times.

use std::process::Command;

use inparallel::{InFlight, task, waitfor};
use serde::{Deserialize, Serialize};

/// The task's own errors arrive with their type: host or program, and what was said.
#[derive(Debug, Serialize, Deserialize)]
enum ConnectError {
    NotStarted(String, String),
    Refused(String, String),
}

// `#[task]` is all it takes: a call starts the function in a process of its own and returns its result's future.
#[task]
fn uname(host: String) -> Result<String, ConnectError> {
    let (program, arguments): (_, &[&str]) = match host.as_str() {
        HERE => ("uname", &["-a"]),
        host => (
            "ssh",
            &[
                "-oBatchMode=yes",
                "-oConnectTimeout=10",
                "--",
                host,
                "uname",
                "-a",
            ],
        ),
    };
    let not_started = |why: std::io::Error| ConnectError::NotStarted(program.into(), why.to_string());
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(not_started)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(ConnectError::Refused(host, text(&output.stderr))),
    }
}

const HERE: &str = "this machine";

fn main() -> inparallel::Result<()> {
    let mut servers: Vec<String> = std::env::args().skip(1).collect();
    if servers.is_empty() {
        servers = vec![HERE.to_owned(); 6];
    }

    // Every call is under way as soon as it is made.
    let active: InFlight<_> = servers.iter().cloned().map(uname).collect();
    // Whoever is done first comes first and leaves the list. `?` is for a worker that died; what is printed is the
    // task's own Result.
    for future in waitfor(&active) {
        println!("{:?}", future.wait()?);
    }

    println!("-- the same, three at a time");
    for turn in waitfor(&active).concurrency(3)? {
        match turn {
            Some(future) => println!("{:?}", future.wait()?),
            // Room for one more. The loop ends when nothing runs and nothing is added here.
            None => servers
                .pop()
                .into_iter()
                .for_each(|server| active.push(uname(server))),
        }
    }
    Ok(())
}
