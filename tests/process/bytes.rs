//! Large bytes on their way to a task and back, and bytes that processes share.

use std::sync::OnceLock;

use inparallel::{ErrorKind, Pool, SharedBytes, StartMethod, TaskFuture, task};
use serde::{Deserialize, Serialize};

use crate::harness::{ALL, POOLS, PROGRAM, REMOTE};
use crate::os;
use crate::place::{Host, Place};

trials! {
    warm on ALL => {
        bytes_of_every_length_arrive_and_come_back,
        shared_bytes_arrive_wherever_they_stand,
        shared_bytes_come_back,
    }
    warm on REMOTE => {
        results_take_the_place_of_arguments,
        shared_bytes_outlive_their_owners_interest,
        worker_that_dies_of_large_bytes_is_no_loss,
        worker_passes_shared_bytes_on,
    }
    warm on POOLS => {
        pool_mixes_no_bytes_up,
        four_workers_share_bytes,
        copy_of_a_worker_keeps_what_it_borrowed,
        calls_keep_their_bytes,
        worker_shows_no_task_the_memory_of_another,
    }
    cold on REMOTE => {
        worker_that_may_not_look_is_sent_the_bytes,
        worker_that_asks_for_what_it_has_is_stopped,
        calls_behind_one_that_is_sent_again_keep_their_order,
        worker_of_a_pool_that_asks_for_what_it_has_is_stopped,
    }
    cold on PROGRAM => {
        memory_of_arguments_is_given_back,
        bytes_travel_where_descriptors_are_used_up,
    }
}

const MIB: usize = 1 << 20;

/// Bytes that are no others, shifted or cut.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn digest(bytes: &[u8]) -> u64 {
    let chunks = bytes.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    chunks.fold(bytes.len() as u64, |sum, word| sum.rotate_left(5) ^ word)
}

#[task]
fn digest_of(before: u8, bytes: &[u8], after: &str) -> (u8, u64, String) {
    (before, digest(bytes), after.to_owned())
}

/// What a worker of the pool makes of them.
fn digested(pool: &Pool, bytes: &[u8]) -> u64 {
    let future = pool.submit(digest_of::later(0, bytes, "")).unwrap();
    future.wait().unwrap().1
}

#[task]
fn echo(bytes: Vec<u8>) -> Vec<u8> {
    bytes
}

fn bytes_of_every_length_arrive_and_come_back(method: StartMethod) {
    let edges = [64 << 10, 256 << 10, MIB, 4 * MIB];
    let around = edges
        .into_iter()
        .flat_map(|edge| [edge - 9, edge - 8, edge - 1, edge, edge + 1]);
    for (seed, len) in [0, 1, 5000]
        .into_iter()
        .chain(around)
        .chain([9 * MIB + 3])
        .enumerate()
    {
        let bytes = noise(len, seed as u64);
        let sent = digest_of::with().start(method).call(1, &bytes, "after");
        let sent = sent.wait().unwrap();
        assert_eq!(sent, (1, digest(&bytes), "after".to_owned()), "{len} bytes");
        let back = echo::with().start(method).call(bytes.clone()).wait().unwrap();
        assert!(back == bytes, "{len} bytes there and back");
    }
}

/// The second argument backwards, cut or continued to `len`. The first one begins with the attempt that comes to that.
#[task]
fn turned(context: &inparallel::TaskContext, other: Vec<u8>, mut bytes: Vec<u8>, len: usize) -> Vec<u8> {
    if context.attempt() < other[0].into() {
        std::process::abort();
    }
    bytes.reverse();
    bytes.resize(len, other[1]);
    bytes
}

fn results_take_the_place_of_arguments(method: StartMethod) {
    let lens = [0, 3 * MIB, 5 * MIB - 8, 5 * MIB, 5 * MIB + 1, 6 * MIB, 11 * MIB];
    for (attempts, len) in lens.map(|len| (1, len)).into_iter().chain([(2, 5 * MIB)]) {
        let bytes = noise(5 * MIB, len as u64);
        let mut other = noise(4 * MIB, 1);
        other[0] = attempts;
        let mut expected: Vec<_> = bytes.iter().rev().copied().collect();
        expected.resize(len, other[1]);
        let future = turned::with().start(method).retries(1).call(other, bytes, len);
        let seen = future.wait().unwrap();
        assert!(seen == expected, "{len} bytes after {attempts} attempts");
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Parcel {
    name: String,
    parts: Vec<SharedBytes>,
    more: Option<SharedBytes>,
}

#[task]
fn digests(parcel: &Parcel, last: SharedBytes) -> (String, Vec<u64>) {
    let all = parcel.parts.iter().chain(&parcel.more).chain([&last]);
    (parcel.name.clone(), all.map(|bytes| digest(bytes)).collect())
}

/// Two of the parts are the same, and one is too short to be shared.
fn parcel() -> Parcel {
    let large = SharedBytes::new(&noise(5 * MIB, 1));
    let short = SharedBytes::from(noise(100, 2));
    let filled = SharedBytes::with_len(MIB, |bytes| bytes.copy_from_slice(&noise(MIB, 3)));
    Parcel {
        name: "parcel".to_owned(),
        parts: vec![large.clone(), short, large],
        more: Some(filled),
    }
}

fn shared_bytes_arrive_wherever_they_stand(method: StartMethod) {
    let last = SharedBytes::new(&[]);
    let parcel = parcel();
    let wanted = digests::inline(&parcel, last.clone());
    assert_eq!(wanted.1.len(), 5);
    let got = digests::with().start(method).call(&parcel, last).wait();
    assert_eq!(got.unwrap(), wanted);
}

#[task]
fn returned(parcel: Parcel, len: usize) -> (Parcel, SharedBytes) {
    (parcel, SharedBytes::new(&noise(len, 9)))
}

fn shared_bytes_come_back(method: StartMethod) {
    let parcel = parcel();
    let future = returned::with().start(method).call(parcel.clone(), 3 * MIB);
    let (back, new) = future.wait().unwrap();
    assert_eq!(back, parcel);
    assert_eq!(*new, *noise(3 * MIB, 9));
}

#[task]
fn digest_at_the_signal(place: Place, bytes: SharedBytes) -> u64 {
    place.arrive();
    place.wait_for_go();
    digest(&bytes)
}

fn shared_bytes_outlive_their_owners_interest(method: StartMethod) {
    let mut host = Host::new();
    let wanted = digest(&noise(5 * MIB, 4));
    let bytes = SharedBytes::new(&noise(5 * MIB, 4));
    let future = digest_at_the_signal::with()
        .start(method)
        .call(host.place(), bytes.clone());
    // Dropped before the worker has looked, and after.
    let other = digest_at_the_signal::with()
        .start(method)
        .call(host.place(), bytes);
    host.arrivals(2);
    host.release(2);
    assert_eq!(future.wait().unwrap(), wanted);
    assert_eq!(other.wait().unwrap(), wanted);
}

#[task]
fn digest_at_the_second_attempt(
    context: &inparallel::TaskContext,
    bytes: &[u8],
    shared: SharedBytes,
) -> (u64, u64) {
    if context.attempt() == 1 {
        std::process::abort();
    }
    (digest(bytes), digest(&shared))
}

fn worker_that_dies_of_large_bytes_is_no_loss(method: StartMethod) {
    let bytes = noise(6 * MIB, 5);
    let shared = SharedBytes::new(&bytes);
    let future = digest_at_the_second_attempt::with()
        .start(method)
        .retries(1)
        .call(&bytes, shared.clone());
    assert_eq!(future.wait().unwrap(), (digest(&bytes), digest(&bytes)));
    let future = digest_at_the_second_attempt::with()
        .start(method)
        .call(&bytes, shared);
    assert_eq!(future.wait().unwrap_err().kind(), ErrorKind::Signaled);
}

#[task]
fn pass_on(
    bytes: SharedBytes,
    method: StartMethod,
    deeper: u32,
) -> Result<(u64, bool), inparallel::ErrorKind> {
    match deeper {
        0 => Ok((digest(&bytes), bytes.is_shared())),
        _ => {
            let next = pass_on::with().start(method).call(bytes, method, deeper - 1);
            next.wait().map_err(|error| error.kind())?
        }
    }
}

fn worker_passes_shared_bytes_on(method: StartMethod) {
    let bytes = noise(5 * MIB, 6);
    let future = pass_on::with()
        .start(method)
        .call(SharedBytes::new(&bytes), method, 2);
    assert_eq!(
        future.wait().unwrap(),
        Ok((digest(&bytes), cfg!(not(inparallel_no_linux))))
    );
}

fn pool(method: StartMethod, workers: usize) -> Pool {
    Pool::builder().workers(workers).start(method).build().unwrap()
}

fn end(pool: &Pool) {
    assert!(pool.shutdown(inparallel::Shutdown::Finish, None));
}

fn pool_mixes_no_bytes_up(method: StartMethod) {
    let pool = pool(method, 2);
    for round in 0..6 {
        let all: Vec<_> = (0..5)
            .map(|index| noise(4 * MIB + (round * 7 + index) * 1000, index as u64))
            .collect();
        let digests: Vec<_> = all
            .iter()
            .map(|bytes| pool.submit(digest_of::later(round as u8, bytes, "")).unwrap())
            .collect();
        let echoes: Vec<_> = all
            .iter()
            .map(|bytes| pool.submit(echo::later(bytes.clone())).unwrap())
            .collect();
        for (future, bytes) in digests.into_iter().zip(&all) {
            assert_eq!(future.wait().unwrap().1, digest(bytes));
        }
        for (future, bytes) in echoes.into_iter().zip(&all) {
            assert!(future.wait().unwrap() == *bytes);
        }
    }
    let all: Vec<_> = (0..4)
        .map(|seed| noise(if seed == 2 { 5 * MIB } else { 10 }, seed))
        .collect();
    let mapped: Vec<_> = pool.map(echo::later, all.clone()).map(Result::unwrap).collect();
    assert!(mapped == all);
    end(&pool);
}

#[task]
fn byte_at(bytes: SharedBytes, index: usize) -> u8 {
    bytes[index]
}

fn four_workers_share_bytes(method: StartMethod) {
    let pool = pool(method, 4);
    let content = noise(20 * MIB, 7);
    let bytes = SharedBytes::new(&content);
    let before = os::descriptors(std::process::id());
    let futures: Vec<(usize, TaskFuture<u8>)> = (0..40)
        .map(|index| index * MIB / 2)
        .map(|index| (index, pool.submit(byte_at::later(bytes.clone(), index)).unwrap()))
        .collect();
    for (index, future) in futures {
        assert_eq!(future.wait().unwrap(), content[index]);
    }
    let memory = |descriptors: &std::collections::BTreeMap<String, usize>| {
        descriptors.get("/memfd:inparallel (deleted)").copied()
    };
    assert_eq!(memory(&os::descriptors(std::process::id())), memory(&before));
    end(&pool);
}

static COPY: OnceLock<std::sync::Mutex<Option<TaskFuture<u64>>>> = OnceLock::new();

/// Starts a copy of its process that looks at the bytes later, when the task has long answered.
#[task]
fn leave_a_copy(place: Place, bytes: &[u8]) {
    let copy = inparallel::fork(|| {
        place.wait_for_go();
        digest(bytes)
    });
    *COPY.get_or_init(Default::default).lock().unwrap() = Some(copy);
}

#[task]
fn ask_the_copy() -> Result<u64, ErrorKind> {
    let copy = COPY.get_or_init(Default::default).lock().unwrap().take().unwrap();
    copy.wait().map_err(|error| error.kind())
}

fn copy_of_a_worker_keeps_what_it_borrowed(method: StartMethod) {
    if method == StartMethod::Thread {
        // The pool's threads make it a program that must not be forked.
        return;
    }
    let mut host = Host::new();
    let pool = pool(method, 1);
    let wanted = noise(5 * MIB, 1);
    pool.submit(leave_a_copy::later(host.place(), &wanted))
        .unwrap()
        .wait()
        .unwrap();
    for seed in 2..6 {
        let other = noise(5 * MIB, seed);
        assert_eq!(digested(&pool, &other), digest(&other));
    }
    host.release(1);
    let got = pool.submit(ask_the_copy::later()).unwrap().wait().unwrap();
    assert_eq!(got, Ok(digest(&wanted)));
    end(&pool);
}

/// How much memory of arguments this process has mapped, besides what it was given.
#[task]
fn mapped(_given: &[u8]) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let lines = maps.lines();
    lines
        .filter(|line| line.contains("memfd:inparallel-arguments"))
        .count()
}

/// Though it keeps it for the next call, which may have other bytes there.
fn worker_shows_no_task_the_memory_of_another(method: StartMethod) {
    if method == StartMethod::Thread || cfg!(inparallel_no_linux) {
        return;
    }
    let pool = pool(method, 1);
    let mapped = |given: &[u8]| pool.submit(mapped::later(given)).unwrap().wait().unwrap();
    for seed in 0..3 {
        for seed in [seed, seed + 10] {
            let bytes = noise(5 * MIB, seed);
            let got = pool.submit(echo::later(bytes.clone())).unwrap().wait().unwrap();
            assert!(got == bytes);
        }
        assert_eq!(mapped(&noise(5 * MIB, seed)), 1, "its own");
        // By the board, and by the pipe.
        assert_eq!(mapped(&[]), 0);
        pool.submit(echo::later(noise(5 * MIB, seed)))
            .unwrap()
            .wait()
            .unwrap();
        assert_eq!(mapped(&noise(MIB, seed)), 0);
    }
    end(&pool);
}

#[task]
fn start_it(call: inparallel::Call<(u8, u64, String)>) -> Result<u64, ErrorKind> {
    let result = call.start().wait();
    result.map(|(_, digest, _)| digest).map_err(|error| error.kind())
}

fn calls_keep_their_bytes(method: StartMethod) {
    let pool = pool(method, 2);
    let bytes = noise(5 * MIB, 8);
    let call = digest_of::with()
        .start(StartMethod::Inline)
        .call_later(3, &bytes, "x");
    for _ in 0..3 {
        let got = pool.submit(call.clone()).unwrap().wait().unwrap();
        assert_eq!(got.1, digest(&bytes));
    }
    // As an argument of another.
    let got = pool.submit(start_it::later(call)).unwrap().wait().unwrap();
    assert_eq!(got, Ok(digest(&bytes)));
    end(&pool);
}

#[task]
fn become_nobody() -> bool {
    nix::unistd::setuid(nix::unistd::Uid::from_raw(65534)).is_ok()
}

fn worker_that_may_not_look_is_sent_the_bytes(method: StartMethod) {
    let pool = pool(method, 1);
    if !nix::unistd::geteuid().is_root() {
        // Then nobody may look into this process, its workers neither.
        nix::sys::prctl::set_dumpable(false).unwrap();
    } else {
        assert!(pool.submit(become_nobody::later()).unwrap().wait().unwrap());
    }
    let bytes = noise(5 * MIB + 1, 9);
    let shared = SharedBytes::new(&bytes);
    for _ in 0..3 {
        let got = pool
            .submit(digest_of::later(5, &bytes, "end"))
            .unwrap()
            .wait()
            .unwrap();
        assert_eq!(got, (5, digest(&bytes), "end".to_owned()));
        let got = pool
            .submit(pass_on::later(shared.clone(), method, 0))
            .unwrap()
            .wait()
            .unwrap();
        assert_eq!(got, Ok((digest(&bytes), false)));
        let got = pool.submit(echo::later(bytes.clone())).unwrap().wait().unwrap();
        assert!(got == bytes);
    }
    end(&pool);
}

/// Says again and again that it cannot open what is attached.
#[task]
fn ask_for_bytes(_bytes: &[u8], times: usize) {
    let frame = |variant: u32| {
        let message = [&std::process::id().to_le_bytes()[..], &variant.to_le_bytes()].concat();
        let magic: u32 = 0x4c52_5049;
        let head = [
            &magic.to_le_bytes()[..],
            &(message.len() as u32).to_le_bytes(),
            &0u64.to_le_bytes(),
        ];
        [head.concat(), message].concat()
    };
    for number in os::pipes() {
        for _ in 0..times {
            // The number of `Reply::NeedsBytes`.
            os::write(number, &frame(9));
        }
    }
    std::process::exit(0);
}

fn worker_that_asks_for_what_it_has_is_stopped(method: StartMethod) {
    for len in [10, 5 * MIB] {
        let future = ask_for_bytes::with().start(method).call(&noise(len, 1), 2);
        assert_eq!(future.wait().unwrap_err().kind(), ErrorKind::Protocol);
    }
}

fn worker_of_a_pool_that_asks_for_what_it_has_is_stopped(method: StartMethod) {
    let pool = pool(method, 1);
    for len in [10, 5 * MIB] {
        for seed in 0..3 {
            let bytes = noise(len, seed);
            let got = pool.submit(digest_of::later(1, &bytes, "")).unwrap().wait();
            assert_eq!(got.unwrap().1, digest(&bytes));
        }
        let future = pool.submit(ask_for_bytes::later(&noise(len, 1), 2)).unwrap();
        assert_eq!(future.wait().unwrap_err().kind(), ErrorKind::Protocol);
    }
    end(&pool);
}

#[task]
fn twice(number: u64) -> u64 {
    number * 2
}

#[task]
fn thrice(number: u64) -> u64 {
    number * 3
}

fn calls_behind_one_that_is_sent_again_keep_their_order(method: StartMethod) {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    for seed in 0..3 {
        let pool = pool(method, 1);
        assert!(pool.submit(become_nobody::later()).unwrap().wait().unwrap());
        for number in 0..50 {
            assert_eq!(
                pool.submit(twice::later(number)).unwrap().wait().unwrap(),
                number * 2
            );
        }
        let bytes = noise(5 * MIB, seed);
        let large = pool.submit(digest_of::later(1, &bytes, "")).unwrap();
        // Of one function that the worker knows, of one that it does not, and more than stand on a board.
        let small: Vec<_> = (0..40)
            .map(|number| {
                let long = noise(300, number);
                let futures = (
                    pool.submit(twice::later(number)).unwrap(),
                    pool.submit(thrice::later(number)).unwrap(),
                    pool.submit(echo::later(long.clone())).unwrap(),
                );
                (number, long, futures)
            })
            .collect();
        assert_eq!(large.wait().unwrap().1, digest(&bytes));
        for (number, long, (two, three, echoed)) in small {
            assert_eq!(two.wait().unwrap(), number * 2);
            assert_eq!(three.wait().unwrap(), number * 3);
            assert_eq!(echoed.wait().unwrap(), long);
        }
        end(&pool);
    }
}

fn memory_of_arguments_is_given_back(_: StartMethod) {
    let pool = pool(StartMethod::default(), 1);
    let spares = || os::descriptors(std::process::id()).remove("/memfd:inparallel-arguments (deleted)");
    for seed in 0..5 {
        let bytes = noise(5 * MIB, seed);
        assert_eq!(digested(&pool, &bytes), digest(&bytes));
        // The first is used again.
        assert_eq!(
            spares(),
            cfg!(not(inparallel_no_linux)).then_some(1),
            "call {seed}"
        );
    }
    os::eventually(|| match spares() {
        None => Ok(()),
        some => Err(format!("spares: {some:?}")),
    });
    end(&pool);
}

fn bytes_travel_where_descriptors_are_used_up(_: StartMethod) {
    let pool = pool(StartMethod::default(), 1);
    pool.submit(digest_of::later(0, &[], "")).unwrap().wait().unwrap();
    let mut used_up = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        used_up.push(file);
    }
    let bytes = noise(5 * MIB, 1);
    let shared = SharedBytes::new(&bytes);
    assert!(!shared.is_shared());
    assert_eq!(digested(&pool, &bytes), digest(&bytes));
    let got = pool
        .submit(pass_on::later(shared, StartMethod::Inline, 0))
        .unwrap()
        .wait()
        .unwrap();
    assert_eq!(got, Ok((digest(&bytes), false)));
    drop(used_up);
    end(&pool);
}
