//! Resources that run out, and programs that cannot be workers.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::sync::Arc;

use inparallel::{ErrorKind, StartMethod, TaskFuture};

use crate::harness::{self, ISOLATED, Role, SPAWN, role, scratch};
use crate::os;
use crate::place::{Host, Place};
use crate::tasks::{double, meet};

trials! {
    warm on ISOLATED => {
        calls_beyond_the_descriptor_limit_fail_alone,
    }
    cold on ISOLATED => {
        calls_beyond_the_process_limit_fail_alone,
        first_call_without_a_descriptor_to_spare_is_an_error,
        program_whose_file_was_deleted_goes_on,
    }
    warm on SPAWN => {
        worker_of_another_build_is_refused,
        other_program_in_place_of_the_worker_is_a_named_error,
        program_that_cannot_be_executed_is_a_launch_error,
        worker_variable_by_itself_runs_nothing,
    }
}

pub(crate) const ROLES: &[Role] = &[("crowd", crowd), ("undead", undead)];

/// Starts `count` tasks that wait; each of them arrives, or its future ends in an error, and says so.
fn start_many(
    host_mouth: &Arc<File>,
    place: &Place,
    method: StartMethod,
    count: usize,
) -> Vec<TaskFuture<u32>> {
    let listen = |future: TaskFuture<u32>| {
        let mouth = Arc::clone(host_mouth);
        future.on_done(move |result| {
            if result.is_err() {
                (&*mouth).write_all(b"failed\n").unwrap();
            }
        });
        future
    };
    (0..count)
        .map(|_| listen(meet::with().start(method).call(place.clone())))
        .collect()
}

/// 1. There is room for some workers. 2. Many are asked for. 3. Some live, the others fail by name. 4. Then all is well.
fn calls_beyond_the_descriptor_limit_fail_alone(method: StartMethod) {
    let count = 60;
    let mut host = Host::new();
    let mouth = Arc::new(host.mouth());
    // The thread for callbacks is there before the limit is.
    double::with().start(method).call(1).on_done(|_| {});
    let before = os::limit(libc::RLIMIT_NOFILE).0;
    let used = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    os::set_limit(libc::RLIMIT_NOFILE, used + 60);
    let futures = start_many(&mouth, &host.place(), method, count);
    let said: Vec<_> = (0..count).map(|_| host.hear()).collect();
    let failed = said.iter().filter(|line| *line == "failed").count();
    assert!((1..count).contains(&failed), "{failed} of {count} failed");
    host.release(count - failed);
    let mut errors = Vec::new();
    for future in futures {
        errors.extend(future.wait().err());
    }
    assert_eq!(errors.len(), failed);
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Launch, "{error}");
        assert_eq!(
            error.io_error().unwrap().raw_os_error(),
            Some(libc::EMFILE),
            "{error}"
        );
        assert!(error.to_string().contains("open files"), "{error}");
    }
    assert_eq!(double::with().start(method).call(2).wait().unwrap(), 4);
    os::set_limit(libc::RLIMIT_NOFILE, before);
    let futures: Vec<_> = (0..40).map(|x| double::with().start(method).call(x)).collect();
    for (future, x) in futures.into_iter().zip(0..) {
        assert_eq!(future.wait().unwrap(), x * 2);
    }
}

/// Runs as a user who may have few processes: the fork server has that limit too, as it was when it started.
fn crowd(arguments: &[String]) {
    let method: StartMethod = arguments[0].parse().unwrap();
    let place = Place::at(&arguments[1]);
    os::set_limit(libc::RLIMIT_NPROC, 12);
    let mouth = File::options().append(true).open(place.file("said")).unwrap();
    let futures = start_many(&Arc::new(mouth), &place, method, CROWD);
    let errors: Vec<_> = futures
        .into_iter()
        .filter_map(|future| future.wait().err())
        .collect();
    for error in &errors {
        assert_eq!(error.kind(), ErrorKind::Launch, "{error}");
        assert_eq!(
            error.io_error().unwrap().raw_os_error(),
            Some(libc::EAGAIN),
            "{error}"
        );
        assert!(error.to_string().contains("limit of processes"), "{error}");
    }
    assert!(inparallel::wait_idle(std::time::Duration::from_secs(100)));
    assert_eq!(double::with().start(method).call(2).wait().unwrap(), 4);
    place.say(&errors.len().to_string());
}

const CROWD: usize = 20;

/// The limit counts the processes of one user, and root has none: so this takes a user that nobody else is.
fn calls_beyond_the_process_limit_fail_alone(method: StartMethod) {
    if !nix::unistd::geteuid().is_root() {
        harness::skip("only root can become a user whose processes nobody else counts");
    }
    let mut host = Host::new();
    std::fs::set_permissions(host.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    for name in ["said", "go", "held"] {
        std::fs::set_permissions(host.place().file(name), std::fs::Permissions::from_mode(0o666)).unwrap();
    }
    let mut command = role("crowd", &[&method.to_string(), host.path()]);
    let user = 61_000 + std::process::id() % 1000;
    let mut program = match command.uid(user).gid(user).spawn() {
        Ok(program) => program,
        Err(error) => harness::skip(&format!("another user cannot run the test's program: {error}")),
    };
    let failed = (0..CROWD).filter(|_| host.hear() == "failed").count();
    assert!((1..CROWD).contains(&failed), "{failed} of {CROWD} failed");
    host.release(CROWD - failed);
    assert_eq!(host.hear(), failed.to_string());
    let status = program.wait().unwrap();
    assert!(status.success(), "{status}");
}

fn first_call_without_a_descriptor_to_spare_is_an_error(method: StartMethod) {
    let before = os::limit(libc::RLIMIT_NOFILE).0;
    // From none to as many as a call needs, the supervisor's own among them.
    let used = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64 - 1;
    let mut failed = 0;
    for spare in 0..40 {
        os::set_limit(libc::RLIMIT_NOFILE, used + spare);
        match double::with().start(method).call(2).wait() {
            Ok(value) => assert_eq!(value, 4),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Launch, "{spare} to spare: {error}");
                failed += 1;
            }
        }
        assert!(inparallel::wait_idle(std::time::Duration::from_secs(100)));
    }
    os::set_limit(libc::RLIMIT_NOFILE, before);
    assert!((1..39).contains(&failed), "{failed} failed");
    assert_eq!(double::with().start(method).call(2).wait().unwrap(), 4);
}

/// Says whether tasks still run when its own file is gone from its folder.
fn undead(arguments: &[String]) {
    let method: StartMethod = arguments[0].parse().unwrap();
    std::fs::remove_file(&arguments[1]).unwrap();
    std::fs::write(&arguments[1], "not a program").unwrap();
    assert_eq!(double::with().start(method).call(2).wait().unwrap(), 4);
}

/// As when a program is replaced by an update while it runs.
fn program_whose_file_was_deleted_goes_on(method: StartMethod) {
    let path = scratch().join("copy");
    std::fs::copy("/proc/self/exe", &path).unwrap();
    let mut command = std::process::Command::new(&path);
    let status = command
        .args(["--role", "undead", &method.to_string()])
        .arg(&path)
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
}

/// A copy of this program whose build id says that it is another one.
fn other_build() -> PathBuf {
    let mut bytes = std::fs::read("/proc/self/exe").unwrap();
    // An ELF note: length of the name, length of the id, type 3, and the name.
    let is_head = |window: &[u8]| {
        window[..4] == [4, 0, 0, 0] && window[5..8] == [0; 3] && window[8..] == *b"\x03\0\0\0GNU\0"
    };
    let at = bytes
        .windows(16)
        .position(is_head)
        .expect("the linker writes a build id");
    bytes[at + 16] ^= 0xff;
    executable("other-build", &bytes)
}

fn executable(name: &str, content: &[u8]) -> PathBuf {
    let path = scratch().join(name);
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn worker_of_another_build_is_refused(method: StartMethod) {
    let error = double::with()
        .start(method)
        .program(other_build())
        .call(2)
        .wait()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongBinary, "{error}");
    assert!(error.to_string().contains("build id"), "{error}");
    // A faithful copy is as good as the program itself.
    let copy = executable("same-build", &std::fs::read("/proc/self/exe").unwrap());
    assert_eq!(
        double::with().start(method).program(copy).call(2).wait().unwrap(),
        4
    );
}

/// Large arguments, so that the program is still writing them when the other one ends.
fn other_program_in_place_of_the_worker_is_a_named_error(method: StartMethod) {
    let script = |name: &str, text: &str| executable(name, format!("#!/bin/sh\n{text}\n").as_bytes());
    // The variable is: version, role, cookie, and the descriptors of calls, replies and lifeline.
    let reads_a_little = "set -- $INPARALLEL_WORKER; head -c 100 /proc/self/fd/$4 >/dev/null; exit 3";
    let talks =
        "set -- $INPARALLEL_WORKER; echo 'How do you do? I am no worker.' >/proc/self/fd/$5; exec cat";
    for (program, kinds) in [
        (
            PathBuf::from("/bin/true"),
            [ErrorKind::Launch, ErrorKind::WrongBinary],
        ),
        (
            PathBuf::from("/bin/false"),
            [ErrorKind::Launch, ErrorKind::WrongBinary],
        ),
        (
            PathBuf::from("/bin/cat"),
            [ErrorKind::Launch, ErrorKind::WrongBinary],
        ),
        (
            script("reads-a-little", reads_a_little),
            [ErrorKind::Launch, ErrorKind::WrongBinary],
        ),
        (
            script("talks", talks),
            [ErrorKind::Protocol, ErrorKind::WrongBinary],
        ),
    ] {
        let futures: Vec<_> = (0..10)
            .map(|_| {
                length::with()
                    .start(method)
                    .program(&program)
                    .call("x".repeat(1 << 20))
            })
            .collect();
        for future in futures {
            let error = future.wait().unwrap_err();
            assert!(kinds.contains(&error.kind()), "{}: {error}", program.display());
        }
    }
}

#[inparallel::task]
fn length(text: String) -> usize {
    text.len()
}

fn program_that_cannot_be_executed_is_a_launch_error(method: StartMethod) {
    let plain = scratch().join("plain");
    std::fs::write(&plain, "text").unwrap();
    for (program, number) in [
        (scratch().join("nowhere"), libc::ENOENT),
        (scratch(), libc::EACCES),
        (plain, libc::EACCES),
        (executable("broken", b"\x7fELF but no more"), libc::ENOEXEC),
    ] {
        let error = double::with()
            .start(method)
            .program(&program)
            .call(2)
            .wait()
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Launch, "{error}");
        assert_eq!(error.io_error().unwrap().raw_os_error(), Some(number), "{error}");
        assert!(error.to_string().contains(program.to_str().unwrap()), "{error}");
    }
}

/// Whoever may set a variable must not make the program do what it would not do otherwise, nor hang.
fn worker_variable_by_itself_runs_nothing(_: StartMethod) {
    let zeros = "0".repeat(32);
    for value in [
        String::new(),
        "1".to_owned(),
        format!("1 worker {zeros}"),
        format!("1 worker {zeros} 0 1 2"),
        format!("1 worker {zeros} 3 4 5"),
        format!("1 worker {zeros} 77 78 79"),
        format!("1 server {zeros} 0"),
        format!("1 server {zeros} -1"),
        format!("1 server {zeros} 99999999999"),
        format!("2 worker {zeros} 3 4 5"),
        "1 boss 0 0".to_owned(),
    ] {
        let mut command = std::process::Command::new("/proc/self/exe");
        let output = command
            .arg("--list")
            .env("INPARALLEL_WORKER", &value)
            .stdin(std::process::Stdio::piped());
        let output = output.output().unwrap();
        assert_eq!(output.status.code(), Some(121), "{value:?}: {output:?}");
        assert!(output.stdout.is_empty());
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(
            text.contains("was started as a worker and cannot be one"),
            "{value:?}: {text}"
        );
    }
}
