//! Workers that do their worst to what connects them to the program: each ends in a named error, never in a hang.

use std::time::Duration;

use inparallel::{ErrorKind, StartMethod, task};
use serde::{Deserialize, Serialize};

use crate::harness::ISOLATED;
use crate::os;
use crate::place::{Host, Place};
use crate::tasks::double;

trials! {
    warm on ISOLATED => {
        garbage_in_every_pipe_breaks_the_protocol,
        forged_lengths_take_no_memory,
        frame_without_end_is_told_by_the_workers_end,
        second_answer_is_not_heard,
        worker_that_closes_every_descriptor_and_returns_is_named,
        worker_that_closes_every_descriptor_and_stays_is_killed,
        closed_standard_descriptors_harm_nothing,
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Forgery {
    Noise,
    LongMessage,
    LongPayload,
    NoEnd,
    NotAMessage,
}

impl Forgery {
    fn bytes(self) -> Vec<u8> {
        // magic, length of the message, length of the payload
        let head = |message: u32, payload: u64| {
            let magic: u32 = 0x4c52_5049;
            [
                &magic.to_le_bytes()[..],
                &message.to_le_bytes(),
                &payload.to_le_bytes(),
            ]
            .concat()
        };
        match self {
            Forgery::Noise => b"\xde\xad\xbe\xef".repeat(200),
            Forgery::LongMessage => head(u32::MAX, 0),
            Forgery::LongPayload => [head(8, u64::MAX), vec![0; 8]].concat(),
            Forgery::NoEnd => [head(8, (1 << 30) - 1), vec![0; 100]].concat(),
            Forgery::NotAMessage => [head(64, 0), vec![0xff; 64]].concat(),
        }
    }
}

#[task]
fn forge(place: Place, forgery: Forgery, then_wait: bool) -> u32 {
    let bytes = forgery.bytes();
    for number in os::pipes() {
        os::write(number, &bytes);
    }
    if then_wait {
        place.wait_for_go();
    }
    7
}

fn garbage_in_every_pipe_breaks_the_protocol(method: StartMethod) {
    for forgery in [Forgery::Noise, Forgery::LongMessage, Forgery::NotAMessage] {
        for then_wait in [true, false] {
            let host = Host::new();
            let beside = double::with().start(method).call(1);
            let error = forge::with()
                .start(method)
                .call(host.place(), forgery, then_wait)
                .wait()
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Protocol, "{forgery:?}: {error}");
            assert_eq!(beside.wait().unwrap(), 2);
        }
    }
}

fn forged_lengths_take_no_memory(method: StartMethod) {
    let host = Host::new();
    let before = os::peak_memory();
    let error = forge::with()
        .start(method)
        .call(host.place(), Forgery::LongPayload, true)
        .wait()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResultTooLarge, "{error}");
    let future =
        forge::with()
            .start(method)
            .max_result(u64::MAX)
            .call(host.place(), Forgery::LongPayload, true);
    assert!(future.cancel());
    assert_eq!(future.wait().unwrap_err().kind(), ErrorKind::Cancelled);
    let future =
        forge::with()
            .start(method)
            .max_result(u64::MAX)
            .call(host.place(), Forgery::LongPayload, false);
    let error = future.wait().unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Exited | ErrorKind::Protocol),
        "{error}"
    );
    assert!(
        os::peak_memory() - before < 64 << 10,
        "from {before} to {} KiB",
        os::peak_memory()
    );
}

/// What the worker says after it counts as a part of the frame.
fn frame_without_end_is_told_by_the_workers_end(method: StartMethod) {
    let host = Host::new();
    let before = os::peak_memory();
    let error = forge::with()
        .start(method)
        .call(host.place(), Forgery::NoEnd, false)
        .wait()
        .unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Exited | ErrorKind::Protocol),
        "{error}"
    );
    let limit = Duration::from_millis(300);
    let future = forge::with()
        .start(method)
        .timeout(limit)
        .call(host.place(), Forgery::NoEnd, true);
    assert_eq!(future.wait().unwrap_err().kind(), ErrorKind::TimedOut);
    assert!(
        os::peak_memory() - before < 64 << 10,
        "from {before} to {} KiB",
        os::peak_memory()
    );
}

/// A handler of the task's speaks once more when its answer is out.
#[task]
fn speak_twice() -> u32 {
    extern "C" fn speak() {
        for number in os::pipes() {
            os::write(number, &Forgery::Noise.bytes());
        }
    }
    struct AtTheEnd;
    impl Drop for AtTheEnd {
        fn drop(&mut self) {
            speak();
        }
    }
    // The answer is written on this thread; another one speaks meanwhile or after.
    std::thread::spawn(|| {
        let _end = AtTheEnd;
    });
    5
}

/// Whichever comes first: an answer, or noise in its place or within it.
fn second_answer_is_not_heard(method: StartMethod) {
    for _ in 0..20 {
        match speak_twice::with().start(method).call().wait() {
            Ok(value) => assert_eq!(value, 5),
            Err(error) => assert!(
                matches!(error.kind(), ErrorKind::Protocol | ErrorKind::Exited),
                "{error}"
            ),
        }
    }
}

#[task]
fn close_everything(place: Place, then_wait: bool) -> u32 {
    place.say("closing");
    os::close_range(3, u32::MAX);
    if then_wait {
        place.wait_for_go();
    }
    7
}

fn worker_that_closes_every_descriptor_and_returns_is_named(method: StartMethod) {
    let host = Host::new();
    let error = close_everything::with()
        .start(method)
        .call(host.place(), false)
        .wait()
        .unwrap_err();
    // std aborts a process in which the descriptor of an owner is gone.
    let kinds = [ErrorKind::Exited, ErrorKind::Protocol, ErrorKind::Signaled];
    assert!(kinds.contains(&error.kind()), "{error}");
    assert_eq!(double::with().start(method).call(1).wait().unwrap(), 2);
}

fn worker_that_closes_every_descriptor_and_stays_is_killed(method: StartMethod) {
    let host = Host::new();
    let error = close_everything::with()
        .start(method)
        .call(host.place(), true)
        .wait()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    assert!(error.to_string().contains("closed its channel"), "{error}");
    assert_eq!(double::with().start(method).call(1).wait().unwrap(), 2);
}

#[task]
fn close_standard_descriptors(reuse: bool) -> u32 {
    println!("garbage \u{1f5d1} on stdout");
    eprintln!("garbage on stderr");
    os::close_range(0, 2);
    if reuse {
        // They get the numbers 0 to 2.
        let files: Vec<_> = (0..3)
            .map(|_| std::fs::File::open("/dev/null").unwrap())
            .collect();
        println!("into a file that is open for reading only");
        std::mem::forget(files);
    }
    println!("nobody hears this");
    eprintln!("nor this");
    6
}

fn closed_standard_descriptors_harm_nothing(method: StartMethod) {
    for reuse in [false, true] {
        assert_eq!(
            close_standard_descriptors::with()
                .start(method)
                .call(reuse)
                .wait()
                .unwrap(),
            6
        );
    }
}
