//! Workers of the fork server that are made before their calls: a call has what it would have in one that is made for it.

use std::io::{Read, Seek};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use inparallel::{ErrorKind, StartMethod, Stderr, TaskContext, task};

use crate::harness::{self, FORK_SERVER};
use crate::os;
use crate::place::Host;
use crate::resting::READY_WORKERS;
use crate::tasks::{Death, double, meet, nothing, own_pid};

trials! {
    warm on FORK_SERVER => {
        call_runs_in_a_worker_that_was_ready,
        ready_workers_that_are_killed_harm_no_call,
        ready_workers_that_are_killed_at_any_moment_harm_no_call,
        ready_workers_of_a_killed_server_are_replaced,
        stopped_ready_worker_is_subject_to_the_time_limit,
        stdout_is_that_of_the_calls_moment,
        stderr_is_as_the_call_says,
        directory_and_environment_are_those_of_the_calls_moment,
        program_that_forks_itself_shares_no_ready_worker,
        many_calls_at_once_need_no_more_ready_workers,
        large_call_reaches_a_ready_worker,
        cancelled_calls_end_their_ready_workers,
        results_of_every_length_come_whole_however_long_is_waited,
        longest_result_holds_for_short_ones_too,
        attempts_are_counted_however_their_answers_come,
        death_is_told_to_who_looks_out,
        answer_that_nobody_waits_for_is_told,
        what_a_task_wrote_comes_before_its_answer,
        answer_after_the_time_limit_is_thrown_away,
        worker_that_stays_after_its_answer_is_ended,
        answers_that_are_forged_harm_nobody_else,
        idle_program_is_not_woken,
    }
    cold on FORK_SERVER => {
        variable_that_nobody_can_remove_harms_no_call,
        calls_from_many_threads_have_their_own_workers,
    }
}

/// Those that are ready now, when all are.
fn ready() -> Vec<u32> {
    let server = os::fork_server().unwrap();
    os::eventually(|| match os::children(server) {
        workers
            if workers.len() == READY_WORKERS && workers.iter().all(|pid| os::state(*pid) == Some('S')) =>
        {
            Ok(())
        }
        workers => Err(format!("{workers:?}")),
    });
    os::children(server)
}

fn pid_of_call(method: StartMethod) -> u32 {
    own_pid::with().start(method).call().wait().unwrap()
}

fn skip_without_ready_workers() {
    if READY_WORKERS == 0 {
        harness::skip("no worker is made before its call here");
    }
}

fn call_runs_in_a_worker_that_was_ready(method: StartMethod) {
    skip_without_ready_workers();
    let mut seen = Vec::new();
    for _ in 0..20 {
        let ready = ready();
        // That the server has made it is not yet that the program knows.
        let pid = pid_of_call(method);
        assert!(ready.contains(&pid), "{pid} was not ready: {ready:?}");
        assert!(!seen.contains(&pid), "{pid} ran two calls");
        seen.push(pid);
    }
}

fn ready_workers_that_are_killed_harm_no_call(method: StartMethod) {
    skip_without_ready_workers();
    for round in 0..20 {
        let ready = ready();
        for pid in &ready[..1 + round % READY_WORKERS.max(1)] {
            os::send(*pid, libc::SIGKILL);
        }
        // At once, and when the deaths are known.
        if round % 4 >= 2 {
            os::eventually(|| {
                let left = os::children(os::fork_server().unwrap());
                ready[..1]
                    .iter()
                    .all(|pid| !left.contains(pid))
                    .then_some(())
                    .ok_or(format!("{left:?}"))
            });
        }
        for x in 0..3 {
            assert_eq!(double::with().start(method).call(x).wait().unwrap(), x * 2);
        }
    }
}

/// The killer's signal and the call race. A call that had begun is the victim of a signal like any other.
fn ready_workers_that_are_killed_at_any_moment_harm_no_call(method: StartMethod) {
    skip_without_ready_workers();
    let mut survived = 0;
    for round in 0..100_u64 {
        let ready = ready();
        let killer = std::thread::spawn(move || {
            for _ in 0..round * 20 {
                std::hint::spin_loop();
            }
            ready.iter().for_each(|pid| os::send(*pid, libc::SIGKILL));
        });
        match double::with().start(method).call(round).wait() {
            Ok(value) => {
                assert_eq!(value, round * 2);
                survived += 1;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Signaled, "{error}"),
        }
        killer.join().unwrap();
        assert_eq!(double::with().start(method).call(1).wait().unwrap(), 2);
    }
    assert!(survived > 0);
}

fn ready_workers_of_a_killed_server_are_replaced(method: StartMethod) {
    for _ in 0..3 {
        let (server, before) = (os::fork_server().unwrap(), ready());
        os::send(server, libc::SIGKILL);
        loop {
            match own_pid::with().start(method).call().wait() {
                Ok(pid) if !before.contains(&pid) => break,
                // A worker of the old server lives a moment longer than that.
                Ok(_) => {}
                // A call that had begun is lost with the server.
                Err(error) => assert_eq!(error.kind(), ErrorKind::Lost, "{error}"),
            }
        }
        os::eventually(|| {
            (os::fork_server().is_some_and(|now| now != server))
                .then_some(())
                .ok_or("no server".into())
        });
        let now = ready();
        assert!(now.iter().all(|pid| !before.contains(pid)), "{now:?}");
    }
}

/// It has the call from the moment that it is given, whether it reads it or not.
fn stopped_ready_worker_is_subject_to_the_time_limit(method: StartMethod) {
    skip_without_ready_workers();
    ready().iter().for_each(|pid| os::stop(*pid));
    let future = double::with()
        .start(method)
        .timeout(Duration::from_millis(50))
        .call(1);
    assert_eq!(future.wait().unwrap_err().kind(), ErrorKind::TimedOut);
    let future = double::with().start(method).call(1);
    assert!(future.cancel());
    assert_eq!(future.wait().unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(double::with().start(method).call(2).wait().unwrap(), 4);
}

#[task]
fn print(line: String) {
    println!("{line}");
    eprintln!("{line} to stderr");
}

/// 1. A program turns its stdout to a file. 2. The next task prints there, and not to where its worker was made. 3. Nobody
///    keeps the file open that was the stdout before.
fn stdout_is_that_of_the_calls_moment(method: StartMethod) {
    let own = nix::unistd::dup(std::io::stdout()).unwrap();
    let turn_to = |fd: std::os::fd::BorrowedFd<'_>| {
        // SAFETY: dup2 onto the standard descriptor takes two integers.
        assert_eq!(unsafe { libc::dup2(fd.as_raw_fd(), 1) }, 1);
    };
    let print = |line: &str| {
        print::with()
            .start(method)
            .stderr(Stderr::Capture)
            .call(line.into())
            .wait()
            .unwrap()
    };
    for round in 0..10 {
        nothing::with().start(method).call().wait().unwrap();
        let _ = READY_WORKERS > 0 && ready().is_empty();
        let (first, second) = (os::unnamed_file(), os::unnamed_file());
        let (reader, writer) = nix::unistd::pipe().unwrap();
        turn_to(first.as_fd());
        print("one");
        turn_to(second.as_fd());
        print("two");
        turn_to(writer.as_fd());
        drop(writer);
        print("three");
        turn_to(own.as_fd());
        for (mut file, text) in [(first, "one\n"), (second, "two\n")] {
            let mut content = String::new();
            file.rewind().unwrap();
            file.read_to_string(&mut content).unwrap();
            assert_eq!(content, text, "round {round}");
        }
        // Ends, since no worker that waits has it.
        let mut content = String::new();
        std::fs::File::from(reader).read_to_string(&mut content).unwrap();
        assert_eq!(content, "three\n");
    }
}

#[task]
fn complain_and_exit() {
    eprint!("complaint");
    std::process::exit(3);
}

fn stderr_is_as_the_call_says(method: StartMethod) {
    let own = nix::unistd::dup(std::io::stderr()).unwrap();
    for mode in [Stderr::Capture, Stderr::Inherit, Stderr::Null, Stderr::Tee].repeat(3) {
        let mut file = os::unnamed_file();
        // SAFETY: dup2 onto the standard descriptor takes two integers.
        assert_eq!(unsafe { libc::dup2(file.as_raw_fd(), 2) }, 2);
        let result = complain_and_exit::with().start(method).stderr(mode).call().wait();
        let error = result.unwrap_err();
        if mode == Stderr::Tee {
            os::eventually(|| {
                (file.metadata().unwrap().len() > 0)
                    .then_some(())
                    .ok_or("nothing".into())
            });
        }
        // SAFETY: as above.
        assert_eq!(unsafe { libc::dup2(own.as_raw_fd(), 2) }, 2);
        let mut content = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut content).unwrap();
        let (is_kept, is_shown) = match mode {
            Stderr::Capture => (true, false),
            Stderr::Tee => (true, true),
            Stderr::Inherit => (false, true),
            _ => (false, false),
        };
        assert_eq!(error.exit_code(), Some(3), "{mode:?}");
        assert_eq!(error.stderr(), if is_kept { "complaint" } else { "" }, "{mode:?}");
        assert_eq!(content, if is_shown { "complaint" } else { "" }, "{mode:?}");
    }
}

#[task]
fn surroundings() -> (PathBuf, Option<String>) {
    (
        std::env::current_dir().unwrap(),
        std::env::var("READY_WORKERS_TRIAL").ok(),
    )
}

fn directory_and_environment_are_those_of_the_calls_moment(method: StartMethod) {
    let before = std::env::current_dir().unwrap();
    let of_call = || surroundings::with().start(method).call().wait().unwrap();
    assert_eq!(of_call(), (before.clone(), None));
    for round in ["one", "two"] {
        std::env::set_current_dir(harness::scratch()).unwrap();
        // SAFETY: the library's threads do not read the environment.
        unsafe { std::env::set_var("READY_WORKERS_TRIAL", round) };
        let scratch = std::env::current_dir().unwrap();
        assert_eq!(of_call(), (scratch.clone(), Some(round.to_owned())));
        assert_eq!(of_call(), (scratch, Some(round.to_owned())));
        std::env::set_current_dir(&before).unwrap();
        // SAFETY: as above.
        unsafe { std::env::remove_var("READY_WORKERS_TRIAL") };
        assert_eq!(of_call(), (before.clone(), None));
    }
}

/// What Wine hands on, for one: a name with the sign in it, which the fork server inherits.
fn variable_that_nobody_can_remove_harms_no_call(method: StartMethod) {
    // SAFETY: this is the program's only thread, and the text stays.
    assert_eq!(unsafe { libc::putenv(c"=C:=D".as_ptr().cast_mut()) }, 0);
    assert!(std::env::vars_os().any(|(name, _)| name == "=C:"));
    directory_and_environment_are_those_of_the_calls_moment(method);
}

/// 1. Workers are ready. 2. The program forks without this library. 3. Both call: each has workers of its own.
fn program_that_forks_itself_shares_no_ready_worker(method: StartMethod) {
    for _ in 0..3 {
        nothing::with().start(method).call().wait().unwrap();
        let before = ready();
        // SAFETY: this thread is the program's only one; the library's own hold nothing that the copy needs.
        match unsafe { nix::unistd::fork() }.unwrap() {
            nix::unistd::ForkResult::Child => {
                let pids: Vec<_> = (0..3)
                    .map(|_| own_pid::with().start(method).call().wait())
                    .collect();
                let is_own = pids
                    .iter()
                    .all(|pid| pid.as_ref().is_ok_and(|pid| !before.contains(pid)));
                os::exit_now(if is_own { 0 } else { 1 });
            }
            nix::unistd::ForkResult::Parent { child } => {
                for _ in 0..3 {
                    pid_of_call(method);
                }
                let status = nix::sys::wait::waitpid(child, None).unwrap();
                assert_eq!(status, nix::sys::wait::WaitStatus::Exited(child, 0));
            }
        }
    }
}

fn many_calls_at_once_need_no_more_ready_workers(method: StartMethod) {
    let mut host = Host::new();
    for count in [1, READY_WORKERS, READY_WORKERS + 1, 40] {
        let futures: Vec<_> = (0..count)
            .map(|_| meet::with().start(method).call(host.place()))
            .collect();
        let mut arrived = host.arrivals(count);
        host.release(count);
        let mut pids: Vec<_> = futures.into_iter().map(|future| future.wait().unwrap()).collect();
        arrived.sort_unstable();
        pids.sort_unstable();
        assert_eq!(pids, arrived);
        pids.dedup();
        assert_eq!(pids.len(), count);
    }
}

#[task]
fn length(text: String) -> usize {
    text.len()
}

fn large_call_reaches_a_ready_worker(method: StartMethod) {
    for size in [1 << 10, 4 << 10, 5 << 10, 60 << 10, 70 << 10, 3 << 20] {
        let _ = READY_WORKERS > 0 && ready().is_empty();
        assert_eq!(
            length::with()
                .start(method)
                .call("x".repeat(size))
                .wait()
                .unwrap(),
            size
        );
    }
}

fn cancelled_calls_end_their_ready_workers(method: StartMethod) {
    let mut host = Host::new();
    for is_running in [false, true].repeat(10) {
        let future = meet::with().start(method).call(host.place());
        if is_running {
            host.arrival();
        }
        assert!(future.cancel());
        assert_eq!(future.wait().unwrap_err().kind(), ErrorKind::Cancelled);
        assert!(inparallel::wait_idle(Duration::from_secs(100)));
        while host.has_news() {
            host.hear();
        }
    }
}

#[task]
fn many(count: usize) -> Result<Vec<u8>, Vec<u8>> {
    let bytes = vec![count as u8; count];
    if count % 2 == 0 { Ok(bytes) } else { Err(bytes) }
}

fn results_of_every_length_come_whole_however_long_is_waited(method: StartMethod) {
    for count in (0..12).chain(200..240).chain([5_000, 100_001]) {
        let call = many::with().start(method);
        let future = match count % 3 {
            0 => call.call(count),
            1 => call.spin(Duration::ZERO).call(count),
            _ => {
                let future = call.call(count);
                // Its answer is there before anybody looks out.
                os::eventually(|| future.is_done().then_some(()).ok_or("it runs".into()));
                future
            }
        };
        let bytes = vec![count as u8; count];
        let expected = if count % 2 == 0 { Ok(bytes) } else { Err(bytes) };
        assert_eq!(future.wait().unwrap(), expected);
    }
}

fn longest_result_holds_for_short_ones_too(method: StartMethod) {
    for _ in 0..10 {
        let _ = READY_WORKERS > 0 && ready().is_empty();
        let error = many::with()
            .start(method)
            .max_result(50)
            .call(100)
            .wait()
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResultTooLarge, "{error}");
    }
}

#[task]
fn fail_until(last: u32, context: &TaskContext) -> Result<u32, u32> {
    let attempt = context.attempt();
    if attempt < last { Err(attempt) } else { Ok(attempt) }
}

fn attempts_are_counted_however_their_answers_come(method: StartMethod) {
    for round in 0..30 {
        let _ = READY_WORKERS > 0 && round % 2 == 0 && ready().is_empty();
        let call = fail_until::with().start(method).retries(2).retry_errors();
        assert_eq!(call.clone().call(3).wait().unwrap(), Ok(3));
        assert_eq!(call.call(4).wait().unwrap(), Err(3));
    }
}

#[task]
fn fall(how: Death) -> u32 {
    how.happen()
}

fn death_is_told_to_who_looks_out(method: StartMethod) {
    for death in [Death::Abort, Death::Exit(4)].repeat(10) {
        let _ = READY_WORKERS > 0 && ready().is_empty();
        let error = fall::with().start(method).call(death).wait().unwrap_err();
        match death {
            Death::Exit(code) => assert_eq!(error.exit_code(), Some(code)),
            _ => assert_eq!(error.kind(), ErrorKind::Signaled),
        }
    }
}

fn answer_that_nobody_waits_for_is_told(method: StartMethod) {
    let (tx, rx) = std::sync::mpsc::channel();
    for x in 0..20 {
        let _ = READY_WORKERS > 0 && ready().is_empty();
        let future = double::with().start(method).call(x);
        let tx = tx.clone();
        future.on_done(move |result| tx.send(*result.as_ref().unwrap()).unwrap());
        assert_eq!(rx.recv_timeout(Duration::from_secs(60)), Ok(x * 2));
    }
}

#[task]
fn say(text: String) {
    eprint!("{text}");
}

/// Into the stderr of this program, by way of the one that each worker has.
fn what_a_task_wrote_comes_before_its_answer(method: StartMethod) {
    let own = nix::unistd::dup(std::io::stderr()).unwrap();
    let file = os::unnamed_file();
    // SAFETY: dup2 onto the standard descriptor takes two integers.
    assert_eq!(unsafe { libc::dup2(file.as_raw_fd(), 2) }, 2);
    let count = 10;
    for number in 0..count {
        let _ = READY_WORKERS > 0 && ready().is_empty();
        say::with()
            .start(method)
            .stderr(Stderr::Tee)
            .call(format!("{number}\n"))
            .wait()
            .unwrap();
    }
    let expected: String = (0..count).map(|number| format!("{number}\n")).collect();
    os::eventually(|| {
        let mut content = String::new();
        let mut file = &file;
        file.rewind().unwrap();
        file.read_to_string(&mut content).unwrap();
        (content == expected).then_some(()).ok_or(content)
    });
    // SAFETY: as above.
    assert_eq!(unsafe { libc::dup2(own.as_raw_fd(), 2) }, 2);
}

/// By the program, which has decided before it asks: the task's own clock may say so earlier.
#[task]
fn return_when_asked_to_end() -> u32 {
    static IS_ASKED: AtomicBool = AtomicBool::new(false);
    extern "C" fn asked(_: libc::c_int) {
        IS_ASKED.store(true, Ordering::Relaxed);
    }
    // SAFETY: the handler stores a number, which may be done at any moment.
    unsafe { libc::signal(libc::SIGTERM, asked as *const () as libc::sighandler_t) };
    while !IS_ASKED.load(Ordering::Relaxed) {
        std::hint::spin_loop();
    }
    7
}

/// Also where a thread looks out for it all the time.
fn answer_after_the_time_limit_is_thrown_away(method: StartMethod) {
    for _ in 0..10 {
        let _ = READY_WORKERS > 0 && ready().is_empty();
        let call = return_when_asked_to_end::with().start(method);
        let call = call.grace(Duration::from_secs(60));
        let mut future = call.timeout(Duration::from_millis(20)).call();
        let result = loop {
            match future.wait_timeout(Duration::from_micros(30)) {
                Ok(None) => {}
                Ok(Some(value)) => break Ok(value),
                Err(error) => break Err(error.kind()),
            }
        };
        assert_eq!(result, Err(ErrorKind::TimedOut));
    }
}

/// Is stopped before, while or after it answers.
#[task]
fn stop_at_some_time() -> u32 {
    std::thread::spawn(|| os::stop(std::process::id()));
    7
}

fn worker_that_stays_after_its_answer_is_ended(method: StartMethod) {
    for _ in 0..20 {
        let mut future = stop_at_some_time::with().start(method).kill_on_drop().call();
        if let Some(value) = future.wait_timeout(Duration::from_millis(50)).unwrap() {
            assert_eq!(value, 7);
        }
    }
    assert!(inparallel::wait_idle(Duration::from_secs(60)));
}

/// Writes into all that the process shares with others.
#[task]
fn scribble(word: u32) -> u32 {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for line in maps.lines().filter(|line| line.contains("memfd:inparallel")) {
        let (range, _) = line.split_once(' ').unwrap();
        let (from, to) = range.split_once('-').unwrap();
        let [from, to] = [from, to].map(|hex| usize::from_str_radix(hex, 16).unwrap());
        for at in (from..to).step_by(size_of::<u32>()) {
            // SAFETY: the mapping is there and may be written; what it is used for is what is tried out.
            unsafe { (at as *mut u32).write_volatile(word) };
        }
    }
    7
}

fn answers_that_are_forged_harm_nobody_else(method: StartMethod) {
    for word in (0..40).chain([u32::MAX, 1 << 31, 0x0303_0303]) {
        let _ = READY_WORKERS > 0 && ready().is_empty();
        let result = scribble::with()
            .start(method)
            .timeout(Duration::from_secs(60))
            .call(word)
            .wait();
        // It may say what it likes, and what it says is an answer or none.
        if let Err(error) = result {
            let kinds = [
                ErrorKind::ResultNotDecodable,
                ErrorKind::ResultTooLarge,
                ErrorKind::Exited,
            ];
            assert!(kinds.contains(&error.kind()), "{word}: {error}");
        }
    }
    assert_eq!(double::with().start(method).call(2).wait().unwrap(), 4);
}

/// Neither the program nor the server nor a worker that is ready runs while nothing is called.
fn idle_program_is_not_woken(method: StartMethod) {
    nothing::with().start(method).call().wait().unwrap();
    let workers = if READY_WORKERS > 0 { ready() } else { Vec::new() };
    let switches = || {
        let mut counts = os::wake_ups_of_other_threads();
        let others = workers.iter().copied().chain(os::fork_server());
        counts.extend(others.map(|pid| os::wake_ups(format!("/proc/{pid}"))));
        counts
    };
    // The last words of the call may still be on their way.
    os::rest();
    let before = switches();
    os::rest();
    assert_eq!(switches(), before);
}

fn calls_from_many_threads_have_their_own_workers(method: StartMethod) {
    let threads: Vec<_> = (0..4)
        .map(|_| std::thread::spawn(move || (0..25).map(|_| pid_of_call(method)).collect::<Vec<_>>()))
        .collect();
    let mut pids: Vec<u32> = threads
        .into_iter()
        .flat_map(|thread| thread.join().unwrap())
        .collect();
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), 100);
}
