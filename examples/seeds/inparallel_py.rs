//! inparallel: log in to a list of servers and gather their `uname` outputs.

use std::collections::VecDeque;
use std::error::Error;
use std::process::Command;

// from inparallel import task, waitfor
use inparallel::{InFlight, task, waitfor};

// @task
// def getOS(server):
//     with SSHClient() as ssh:
//         ssh.connect(server, username='root', password='root')
//         sin, sout, serr = ssh.exec_command('uname -a')
//         return sout.read()
#[task]
fn get_os(server: String, is_here: bool) -> String {
    let mut command = Command::new(if is_here { "uname" } else { "ssh" });
    match is_here {
        true => command.arg("-a"),
        false => command.args(["-oBatchMode=yes", "--", &server, "uname", "-a"]),
    };
    let output = command.output().expect("the command can be started");
    format!("{server}: {}", String::from_utf8_lossy(&output.stdout).trim())
}

pub(crate) fn run(hosts: Vec<String>) -> Result<(), Box<dyn Error>> {
    // servers = ['alpha.local', 'bravo.local', ...]
    let names = [
        "alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliet", "kilo",
        "lima",
    ];
    // Nobody has these: this machine answers for them, unless others are named.
    let is_here = hosts.is_empty();
    let all: VecDeque<String> = match is_here {
        true => names.iter().map(|name| format!("{name}.local")).collect(),
        false => hosts.into(),
    };

    // active_futures = []
    // while len(servers) > 0:
    //     active_futures.append(getOS(servers.pop(0))
    let mut servers = all.clone();
    let active_futures = InFlight::new();
    while let Some(server) = servers.pop_front() {
        active_futures.push(get_os(server, is_here));
    }

    // for future in waitfor(active_futures):
    //     print(future.result())
    for future in waitfor(&active_futures) {
        println!("{}", future.wait()?);
    }

    // active_futures = []
    // for future in waitfor(active_futures, concurrency_factor=3):
    let mut servers = all;
    let active_futures = InFlight::new();
    for future in waitfor(&active_futures).concurrency(3)? {
        // if future is not None:
        //     print(future.result())
        if let Some(future) = future {
            println!("{}", future.wait()?);
        // else:
        //     if len(servers) > 0:
        //         active_futures.append(getOS(servers.pop(0)))
        } else if let Some(server) = servers.pop_front() {
            active_futures.push(get_os(server, is_here));
        }
    }
    Ok(())
}
