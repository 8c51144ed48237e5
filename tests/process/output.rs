//! What tasks print: nothing lost, nothing twice, and nobody blocked.

use std::io::{Read, Write};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use inparallel::{ErrorKind, StartMethod, Stderr, task};

use crate::harness::{self, ISOLATED, Role, role};
use crate::place::{Host, Place};
use crate::tasks::double;

trials! {
    warm on ISOLATED => {
        printed_lines_appear_once,
        error_has_the_last_four_kib_of_stderr,
        text_after_the_last_complete_line_is_kept,
        stderr_goes_where_it_is_asked_to_go,
        nobody_who_reads_the_programs_stderr_blocks_no_future,
        program_without_standard_descriptors_can_run_tasks,
    }
}

pub(crate) const ROLES: &[Role] = &[
    ("printer", printer),
    ("stderr_modes", stderr_modes),
    ("unread", unread),
    ("bare", bare),
];

fn method_of(arguments: &[String]) -> StartMethod {
    arguments[0].parse().unwrap()
}

fn output_of(mut command: Command) -> Output {
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .unwrap()
}

#[task]
fn print() {
    println!("line of the task");
    print!("rest of the task;");
    print_by_c(c"line of the task by C\n");
    print_by_c(c"rest of the task by C;");
    eprintln!("complaint of the task");
}

/// It is buffered until the process exits, since stdout is a pipe.
fn print_by_c(text: &std::ffi::CStr) {
    // SAFETY: the format takes one C string, and gets it.
    unsafe { libc::printf(c"%s".as_ptr(), text.as_ptr()) };
}

fn printer(arguments: &[String]) {
    let method = method_of(arguments);
    print!("unflushed in the program;");
    print_by_c(c"unflushed in the program by C;");
    print::with().start(method).call().wait().unwrap();
    double::with().start(method).call(1).wait().unwrap();
    println!("end of the program");
}

fn printed_lines_appear_once(method: StartMethod) {
    let output = output_of(role("printer", &[&method.to_string()]));
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    for piece in [
        "unflushed in the program;",
        "unflushed in the program by C;",
        "line of the task\n",
        "rest of the task;",
        "line of the task by C\n",
        "rest of the task by C;",
        "end of the program\n",
    ] {
        assert_eq!(text.matches(piece).count(), 1, "{piece:?} in {text:?}");
    }
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(errors.matches("complaint of the task\n").count(), 1, "{errors:?}");
}

/// `count` lines of sixteen bytes, each with its number.
fn lines(count: usize) -> String {
    (0..count).map(|number| format!("line {number:010}\n")).collect()
}

#[task]
fn complain_and_leave(count: usize) {
    std::io::stderr().write_all(lines(count).as_bytes()).unwrap();
    std::process::exit(3)
}

fn error_has_the_last_four_kib_of_stderr(method: StartMethod) {
    let complain = |count| {
        let with = complain_and_leave::with().start(method).stderr(Stderr::Capture);
        let error = with.call(count).wait().unwrap_err();
        assert_eq!(error.exit_code(), Some(3));
        error.stderr()
    };
    let all = lines(6400);
    assert_eq!(all.len(), 100 << 10);
    assert_eq!(complain(6400), all[all.len() - 4096..]);
    assert_eq!(complain(256), lines(256));
    assert_eq!(complain(257), lines(257)[16..]);
    assert_eq!(complain(0), "");
}

#[task]
fn mutter_and_die() {
    eprint!("no newline at the end");
    std::process::abort()
}

fn text_after_the_last_complete_line_is_kept(method: StartMethod) {
    let error = mutter_and_die::with()
        .start(method)
        .stderr(Stderr::Capture)
        .call()
        .wait()
        .unwrap_err();
    assert!(
        error.stderr().starts_with("no newline at the end"),
        "{:?}",
        error.stderr()
    );
    assert!(format!("{error:?}").contains("no newline at the end"));
}

const MODES: [(&str, Stderr); 4] = [
    ("tee", Stderr::Tee),
    ("capture", Stderr::Capture),
    ("inherit", Stderr::Inherit),
    ("null", Stderr::Null),
];

/// Prints what the error of a task says of its stderr.
fn stderr_modes(arguments: &[String]) {
    let mode = MODES.iter().find(|mode| mode.0 == arguments[1]).unwrap().1;
    let error = complain_and_leave::with()
        .start(method_of(arguments))
        .stderr(mode)
        .call(6400)
        .wait()
        .unwrap_err();
    print!("{}", error.stderr());
}

fn stderr_goes_where_it_is_asked_to_go(method: StartMethod) {
    let all = lines(6400);
    let tail = &all[all.len() - 4096..];
    for (name, mode) in MODES {
        let output = output_of(role("stderr_modes", &[&method.to_string(), name]));
        assert!(output.status.success(), "{name}: {output:?}");
        let (passed_on, kept) = match mode {
            Stderr::Tee => (all.as_str(), tail),
            Stderr::Capture => ("", tail),
            Stderr::Inherit => (all.as_str(), ""),
            _ => ("", ""),
        };
        assert!(
            String::from_utf8(output.stderr).unwrap() == passed_on,
            "{name}: what was passed on"
        );
        assert!(
            String::from_utf8(output.stdout).unwrap() == kept,
            "{name}: what was kept"
        );
    }
}

#[task]
fn complain(count: usize) -> usize {
    std::io::stderr().write_all(lines(count).as_bytes()).unwrap();
    count
}

#[task]
fn complain_without_end(place: Place) {
    place.arrive();
    loop {
        std::io::stderr().write_all(lines(1000).as_bytes()).unwrap();
    }
}

/// Its stderr is a full pipe that nobody reads.
fn unread(arguments: &[String]) {
    let method = method_of(arguments);
    let place = Place::at(&arguments[1]);
    let mut futures: Vec<_> = (0..20)
        .map(|_| complain::with().start(method).call(1000))
        .collect();
    futures.push(complain::with().start(method).stderr(Stderr::Null).call(1));
    for future in futures {
        future.wait().unwrap();
    }
    // A task that is blocked by it can still be ended, and others run.
    let limit = Duration::from_millis(300);
    let late = complain_without_end::with()
        .start(method)
        .timeout(limit)
        .call(place.clone());
    let blocked = complain_without_end::with().start(method).call(place);
    assert_eq!(double::with().start(method).call(4).wait().unwrap(), 8);
    assert_eq!(late.wait().unwrap_err().kind(), ErrorKind::TimedOut);
    assert!(blocked.cancel());
    assert_eq!(blocked.wait().unwrap_err().kind(), ErrorKind::Cancelled);
    println!("all ended");
}

fn nobody_who_reads_the_programs_stderr_blocks_no_future(method: StartMethod) {
    let host = Host::new();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let size = nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_GETPIPE_SZ).unwrap();
    writer.write_all(&vec![b'.'; size as usize]).unwrap();
    let mut command = role("unread", &[&method.to_string(), host.path()]);
    let mut program = command.stdout(Stdio::piped()).stderr(writer).spawn().unwrap();
    drop(command);
    let mut text = String::new();
    program.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "all ended\n");
    assert!(program.wait().unwrap().success());
    drop(reader);
}

/// Has no standard descriptors, so that pipes of the library may get their numbers.
fn bare(arguments: &[String]) {
    let method = method_of(arguments);
    let place = Place::at(&arguments[1]);
    crate::os::close_range(0, 2);
    let results: Result<Vec<_>, _> = (0..3)
        .map(|x| double::with().start(method).call(x))
        .map(|future| future.wait())
        .collect();
    let complaint = complain::with().start(method).call(10).wait();
    let death = complain_and_leave::with()
        .start(method)
        .call(10)
        .wait()
        .map_err(|error| error.kind());
    place.say(&format!("{results:?} {complaint:?} {death:?}"));
}

fn program_without_standard_descriptors_can_run_tasks(method: StartMethod) {
    let mut host = Host::new();
    let status = harness::role("bare", &[&method.to_string(), host.path()])
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(host.hear(), "Ok([0, 2, 4]) Ok(10) Err(Exited)");
}
