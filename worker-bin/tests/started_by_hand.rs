//! The worker's executable in the hands of someone who is not `inparallel`: it says what it is, or refuses. It never
//! falls through to `main` with a worker's environment, and never hangs.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

const VARIABLE: &str = "INPARALLEL_WORKER";
const COOKIE: &str = "00112233445566778899aabbccddeeff";
/// The status of a process that was to become a worker and could not.
const REFUSED: i32 = 121;
/// Generous: it only ever passes where the worker hangs.
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn started_by_hand_it_says_what_it_is() {
    let ended = end_of(worker().stdin(Stdio::null()));
    assert_eq!(ended.status.code(), Some(2), "{ended:?}");
    assert_eq!(ended.stdout, "");
    assert!(
        ended
            .stderr
            .contains("this is a worker: a program that uses inparallel starts it"),
        "{ended:?}"
    );
    assert!(ended.stderr.lines().count() <= 2, "{ended:?}");
}

#[test]
fn arguments_change_nothing() {
    for argument in ["--help", "--version", "worker", "--worker=7"] {
        let ended = end_of(worker().arg(argument).stdin(Stdio::null()));
        assert_eq!(ended.status.code(), Some(2), "{argument}: {ended:?}");
    }
}

#[test]
fn rubbish_in_the_variable_is_refused() {
    let cookie_too_long = format!("1 worker {COOKIE}0 7 8 9");
    let huge = "x".repeat(100_000);
    for value in [
        "",
        " ",
        "1",
        "0",
        "yes",
        "\u{e4}\u{f6}\u{fc} \u{1f980}",
        "1 worker",
        "1 server",
        "1 worker 7 8 9",
        "1 nobody 00112233445566778899aabbccddeeff 7 8 9",
        "2 worker 00112233445566778899aabbccddeeff 7 8 9",
        "1 worker 00112233445566778899aabbccddeeff",
        "1 worker 00112233445566778899aabbccddeeff 7",
        "1 worker 00112233445566778899aabbccddeeff 7 8",
        "1 worker 00112233445566778899aabbccddeeff 7 8 9 10",
        "1 worker 00112233445566778899aabbccddeeff 7 7 7",
        "1 worker not-a-number 7 8 9",
        "1 worker 00112233445566778899aabbccddeeff seven 8 9",
        "1 worker 00112233445566778899aabbccddeeff -1 -1 -1",
        "1 worker 00112233445566778899aabbccddeeff 99999999999999999999 8 9",
        "1 worker 00112233445566778899aabbccddeeff 2147483647 2147483646 2147483645",
        "1  worker 00112233445566778899aabbccddeeff 7 8 9",
        "1 worker 00112233445566778899aabbccddeeff 7 8 9\n",
        "1 server 00112233445566778899aabbccddeeff",
        "1 server 00112233445566778899aabbccddeeff 7 8",
        cookie_too_long.as_str(),
        huge.as_str(),
    ] {
        // Pipes are open at 7, 8 and 9, so that only the text can be what is wrong.
        let (_peer, input) = UnixStream::pair().unwrap();
        refused(
            &format!("{value:.80?}"),
            &end_of(&mut with_descriptors(value, input)),
        );
    }
}

#[test]
fn a_value_that_is_not_text_is_refused() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let ended = end_of(
        worker()
            .env(VARIABLE, OsStr::from_bytes(b"1 worker \xff\xfe 7 8 9"))
            .stdin(Stdio::null()),
    );
    refused("not UTF-8", &ended);
}

#[test]
fn descriptors_that_are_not_open_are_refused() {
    for role in ROLES {
        refused(
            role,
            &end_of(worker().env(VARIABLE, value_for(role)).stdin(Stdio::null())),
        );
    }
}

#[test]
fn the_standard_descriptors_are_refused() {
    for value in [
        "1 worker 00112233445566778899aabbccddeeff 0 1 2",
        "1 server 00112233445566778899aabbccddeeff 0",
    ] {
        refused(
            value,
            &end_of(worker().env(VARIABLE, value).stdin(Stdio::piped())),
        );
    }
}

#[test]
fn descriptors_that_are_files_are_refused() {
    for role in ROLES {
        for path in [
            "/dev/null",
            "/dev/zero",
            env!("CARGO_BIN_EXE_worker"),
            env!("CARGO_MANIFEST_DIR"),
        ] {
            let file = File::open(path).unwrap();
            refused(
                &format!("{role}, {path}"),
                &end_of(&mut with_descriptors(value_for(role), file)),
            );
        }
    }
}

#[test]
fn channels_without_a_handshake_are_refused() {
    for role in ROLES {
        let (peer, input) = UnixStream::pair().unwrap();
        refused(
            &format!("{role}: silent socket"),
            &end_of(&mut with_descriptors(value_for(role), input)),
        );
        drop(peer);

        let (peer, input) = UnixStream::pair().unwrap();
        drop(peer);
        refused(
            &format!("{role}: closed socket"),
            &end_of(&mut with_descriptors(value_for(role), input)),
        );

        let (input, writer) = std::io::pipe().unwrap();
        refused(
            &format!("{role}: silent pipe"),
            &end_of(&mut with_descriptors(value_for(role), input)),
        );
        drop(writer);

        let (input, writer) = std::io::pipe().unwrap();
        drop(writer);
        refused(
            &format!("{role}: closed pipe"),
            &end_of(&mut with_descriptors(value_for(role), input)),
        );
    }
}

#[test]
fn channels_with_garbage_are_refused() {
    let forged_length = [&u64::MAX.to_le_bytes()[..], &[0x55; 40]].concat();
    let garbage: [(&str, &[u8]); 7] = [
        ("one byte", b"x"),
        ("a line of text", b"GET / HTTP/1.1\r\n\r\n"),
        ("zeros", &[0; 4096]),
        ("ones", &[0xff; 4096]),
        ("a forged length", &forged_length),
        ("a short length and no more", &[8, 0, 0, 0, 0, 0, 0, 0]),
        ("noise", &noise()),
    ];
    for role in ROLES {
        for (what, bytes) in garbage {
            for is_left_open in [false, true] {
                let (input, mut writer) = std::io::pipe().unwrap();
                writer.write_all(bytes).unwrap();
                let writer = is_left_open.then_some(writer);
                let ended = end_of(&mut with_descriptors(value_for(role), input));
                drop(writer);
                refused(
                    &format!("{role}: pipe with {what}, left open: {is_left_open}"),
                    &ended,
                );
            }
            let (mut peer, input) = UnixStream::pair().unwrap();
            peer.write_all(bytes).unwrap();
            let ended = end_of(&mut with_descriptors(value_for(role), input));
            drop(peer);
            refused(&format!("{role}: socket with {what}"), &ended);
        }
    }
}

#[test]
fn a_lifeline_that_is_already_cut_ends_it() {
    // Whatever is noticed first, the cut lifeline or the missing handshake: it does not live on.
    let (input, writer) = std::io::pipe().unwrap();
    drop(writer);
    let ended = end_of(&mut with_descriptors(value_for("worker"), input));
    assert!(!ended.status.success(), "{ended:?}");
}

#[derive(Debug)]
struct Ended {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

fn refused(what: &str, ended: &Ended) {
    assert_eq!(ended.status.code(), Some(REFUSED), "{what}: {ended:?}");
    assert_eq!(ended.stdout, "", "{what}");
    let says_why = ended
        .stderr
        .contains("was started as a worker and cannot be one: ");
    assert!(says_why && ended.stderr.lines().count() == 1, "{what}: {ended:?}");
}

const ROLES: [&str; 2] = ["worker", "server"];

fn value_for(role: &str) -> &'static str {
    match role {
        "worker" => "1 worker 00112233445566778899aabbccddeeff 7 8 9",
        _ => "1 server 00112233445566778899aabbccddeeff 7",
    }
}

fn worker() -> Command {
    Command::new(env!("CARGO_BIN_EXE_worker"))
}

/// The worker with one descriptor at 7, 8 and 9. A shell puts it there: all that Rust opens is closed by `exec`.
fn with_descriptors(value: &str, at_seven: impl Into<OwnedFd>) -> Command {
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "exec \"$0\" 7<&0 8<&0 9<&0 0</dev/null",
        env!("CARGO_BIN_EXE_worker"),
    ]);
    command.env(VARIABLE, value).stdin(Stdio::from(at_seven.into()));
    command
}

/// Runs it to its end; fails if it does not end.
fn end_of(command: &mut Command) -> Ended {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (tx, rx) = mpsc::channel();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let reader = thread::spawn(move || {
        let texts = (text_of(stdout), text_of(stderr));
        // Nobody listens any more where the limit has passed.
        let _ = tx.send(());
        texts
    });
    let is_hung = rx.recv_timeout(LIMIT).is_err();
    if is_hung {
        child.kill().unwrap();
    }
    let (stdout, stderr) = reader.join().unwrap();
    let ended = Ended {
        status: wait(child),
        stdout,
        stderr,
    };
    assert!(
        !is_hung,
        "hangs: {:?} {ended:?}",
        command.get_envs().collect::<Vec<_>>()
    );
    ended
}

fn wait(mut child: Child) -> ExitStatus {
    child.wait().unwrap()
}

fn text_of(stream: Option<impl Read>) -> String {
    let mut text = String::new();
    stream.unwrap().read_to_string(&mut text).unwrap();
    text
}

/// The same bytes in every run, and of no pattern.
fn noise() -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(10_000).collect()
}
