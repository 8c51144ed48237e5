//! Calls that are values: kept, sent, read back, found by name. And the results of many, side by side.

use std::time::Duration;

use futures_core::Stream;
use inparallel::{Call, ErrorKind, Limiter, Options, StartMethod, Tasks, Until, as_completed, task, wait};

use crate::harness::{ALL, POOLS, PROGRAM, REMOTE};
use crate::place::{Host, Place};
use crate::pools::{LONG, end, kind, let_threads_end, pool, stay};
use crate::task_context::block_on;
use crate::tasks::{Death, die, double, own_pid};

trials! {
    warm on ALL => { call_read_back_is_the_same_call }
    warm on POOLS => {
        call_read_back_runs_in_chunks,
        call_is_an_argument_and_a_result,
        tasks_are_found_by_name,
        results_and_errors_are_told_apart,
        some_of_many_in_time,
        map_is_a_stream,
        map_that_hangs_is_woken_by_its_time_limit,
    }
    warm on REMOTE => { killed_task_is_told_from_others }
    warm on PROGRAM => { call_that_means_nothing_elsewhere_is_not_serialized, map_under_tokio }
}

fn encoded<T>(call: &Call<T>) -> Result<Vec<u8>, String> {
    let bytes = bincode::serde::encode_to_vec(call, bincode::config::standard());
    bytes.map_err(|error| error.to_string())
}

fn read_back<T>(bytes: &[u8]) -> Result<Call<T>, String> {
    let call = bincode::serde::decode_from_slice(bytes, bincode::config::standard());
    call.map(|(call, _)| call).map_err(|error| error.to_string())
}

fn travel<T>(call: &Call<T>) -> Call<T> {
    read_back(&encoded(call).unwrap()).unwrap()
}

fn call_read_back_is_the_same_call(method: StartMethod) {
    let call = double::with()
        .start(method)
        .grace(LONG)
        .priority(3)
        .call_later(21);
    let back = travel(&travel(&call));
    assert_eq!(
        (back.name(), format!("{back:?}")),
        (call.name(), format!("{call:?}"))
    );
    assert_eq!(back.clone().start().wait().unwrap(), 42);
    assert_eq!(call.start().wait().unwrap(), 42);
}

fn call_read_back_runs_in_chunks(method: StartMethod) {
    let pool = pool(method, 1);
    let map = pool.map(|x| travel(&double::later(x)), 0..20);
    let map = map.chunk_size(10).unwrap();
    assert!(map.map(Result::unwrap).eq((0..20).map(|x| x * 2)));
    end(pool);
}

#[task]
fn start_it(call: Call<u64>, method: String) -> (u64, Call<u64>) {
    let here = call.clone().with(Options::new().start(method.parse().unwrap()));
    (here.start().wait().unwrap(), call)
}

fn call_is_an_argument_and_a_result(method: StartMethod) {
    let pool = pool(method, 1);
    let call = start_it::later(double::later(4), method.to_string());
    let (value, call) = pool.submit(call).unwrap().wait().unwrap();
    assert_eq!(value, 8);
    assert_eq!(pool.submit(call).unwrap().wait().unwrap(), 8);
    end(pool);
}

struct Shy;

impl serde::Serialize for Shy {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("shy"))
    }
}

impl<'de> serde::Deserialize<'de> for Shy {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Shy, D::Error> {
        Ok(Shy)
    }
}

#[task]
fn take_shy(shy: Shy) {
    let Shy = shy;
}

fn call_that_means_nothing_elsewhere_is_not_serialized(_: StartMethod) {
    let limiter = Limiter::new(1);
    let error = encoded(&double::with().limit(&limiter).call_later(1)).unwrap_err();
    assert!(error.contains("limit"), "{error}");
    let error = encoded(&take_shy::later(Shy)).unwrap_err();
    assert!(error.contains("shy"), "{error}");
    // Bytes that are no call, or that of another program, or cut off.
    let bytes = encoded(&double::later(1)).unwrap();
    for len in 0..bytes.len() {
        read_back::<u64>(&bytes[..len]).unwrap_err();
    }
    let build_id = bytes.iter().position(|byte| *byte != 0).unwrap() + 3;
    let mut other = bytes.clone();
    other[build_id] ^= 0xff;
    let error = read_back::<u64>(&other).unwrap_err();
    assert!(error.contains("another build"), "{error}");
    for at in 0..bytes.len() {
        let mut broken = bytes.clone();
        broken[at] ^= 0x55;
        // Whatever it is: it must not be undefined. It is not started.
        let _ = read_back::<u64>(&broken);
    }
}

#[task]
fn both(a: u32, b: String) -> String {
    format!("{a}{b}")
}

fn tasks_are_found_by_name(method: StartMethod) {
    let pool = pool(method, 1);
    let tasks = Tasks::new()
        .with("double", double::later)
        .with("both", |(a, b): (u32, String)| both::later(a, b))
        .with("both of 7", |b: String| both::later(7, b));
    assert!(tasks.names().eq(["both", "both of 7", "double"]));
    assert!(format!("{tasks:?}").contains("u64 -> u64"));
    let call: Call<u64> = tasks.call("double", 4u64).unwrap();
    assert_eq!(pool.submit(call).unwrap().wait().unwrap(), 8);
    let call: Call<String> = tasks.call("both", (1u32, "x".to_owned())).unwrap();
    assert_eq!(pool.submit(call).unwrap().wait().unwrap(), "1x");
    let call: Call<String> = tasks.call("both of 7", "y".to_owned()).unwrap();
    assert_eq!(pool.submit(call).unwrap().wait().unwrap(), "7y");
    let error = tasks.call::<u64, u64>("duoble", 4).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("both, both of 7, double"), "{error}");
    let error = tasks.call::<u32, u64>("double", 4).unwrap_err();
    assert!(error.to_string().contains("u64 -> u64"), "{error}");
    // A later one takes the place of the earlier.
    let tasks = tasks.with("double", |x: u64| double::later(x * 10));
    let call: Call<u64> = tasks.call("double", 4u64).unwrap();
    assert_eq!(pool.submit(call).unwrap().wait().unwrap(), 80);
    end(pool);
}

#[task]
fn check(x: u32) -> u32 {
    assert!(x != 2, "not {x}");
    x
}

fn results_and_errors_are_told_apart(method: StartMethod) {
    let pool = pool(method, 2);
    let results: Vec<_> = pool.map(check::later, 0..4).collect();
    let by_input: Vec<_> = (0..4).zip(results).collect();
    let (good, bad): (Vec<_>, Vec<_>) = by_input.into_iter().partition(|(_, result)| result.is_ok());
    assert!(good.iter().map(|(x, _)| *x).eq([0, 1, 3]));
    assert_eq!(bad.len(), 1);
    let (x, error) = (bad[0].0, bad[0].1.as_ref().unwrap_err());
    assert_eq!((x, error.panic_message()), (2, Some("not 2")));
    end(pool);
}

fn some_of_many_in_time(method: StartMethod) {
    let mut host = Host::new();
    let pool = pool(method, 3);
    let held: Vec<_> = (0..2)
        .map(|x| pool.submit(stay::later(host.place(), x)).unwrap())
        .collect();
    host.arrivals(2);
    let mut futures = held;
    futures.push(pool.submit(number::later(7)).unwrap());
    let waited = wait(futures, Until::FirstDone, Some(LONG));
    let values: Vec<_> = waited
        .done
        .into_iter()
        .map(|future| future.wait().unwrap())
        .collect();
    assert_eq!((values, waited.pending.len()), (vec![7], 2));
    let waited = wait(waited.pending, Until::FirstDone, Some(Duration::from_millis(10)));
    assert!(waited.done.is_empty());
    host.release(2);
    let mut rest: Vec<_> = as_completed(waited.pending)
        .map(|future| future.wait().unwrap())
        .collect();
    rest.sort_unstable();
    assert_eq!(rest, [0, 1]);
    end(pool);
}

#[task]
fn number(x: u32) -> u32 {
    x
}

#[task]
fn last_words(place: Place) {
    eprintln!("first line\nlast line");
    place.arrive();
    place.wait_for_go();
}

fn killed_task_is_told_from_others(method: StartMethod) {
    let mut host = Host::new();
    let options = Options::new().stderr(inparallel::Stderr::Capture);
    let pool = inparallel::Pool::builder()
        .workers(1)
        .start(method)
        .options(options)
        .build()
        .unwrap();
    let future = pool.submit(last_words::later(host.place())).unwrap();
    let pid = host.arrival();
    crate::os::send(pid, libc::SIGKILL);
    let error = future.wait().unwrap_err();
    assert_eq!((error.kind(), error.pid()), (ErrorKind::Signaled, Some(pid)));
    assert_eq!(error.signal().unwrap().name(), "SIGKILL");
    assert_eq!(error.stderr(), "first line\nlast line\n");
    let died = pool.submit(die::later(host.place(), Death::ExitNow(3))).unwrap();
    assert_eq!(died.wait().unwrap_err().exit_code(), Some(3));
    assert_ne!(pool.submit(own_pid::later()).unwrap().wait().unwrap(), pid);
    end(pool);
}

async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    std::future::poll_fn(|context| std::pin::Pin::new(&mut *stream).poll_next(context)).await
}

fn map_is_a_stream(method: StartMethod) {
    let pool = pool(method, 2);
    let mut map = pool.map(double::later, 0..3000);
    // Some by iterating, the rest awaited.
    assert_eq!(map.next().unwrap().unwrap(), 0);
    block_on(async {
        for x in 1..3000 {
            assert_eq!(next(&mut map).await.unwrap().unwrap(), x * 2);
        }
        assert!(next(&mut map).await.is_none());
    });
    end(pool);
}

/// Nothing ever comes of it, so that only the limit can wake whoever awaits it; also if it was iterated before.
fn map_that_hangs_is_woken_by_its_time_limit(method: StartMethod) {
    for is_iterated in [false, true] {
        let mut limit = Duration::from_millis(100);
        loop {
            let mut host = Host::new();
            let pool = pool(method, 2);
            let place = host.place();
            let item = |x| match x {
                0 => number::later(0),
                x => stay::later(place.clone(), x),
            };
            let mut map = pool.map(item, 0..2).timeout(limit).unwrap();
            let first = if is_iterated {
                map.next()
            } else {
                block_on(next(&mut map))
            };
            let second = block_on(next(&mut map)).unwrap();
            assert_eq!(kind(second), Err(ErrorKind::TimedOut));
            assert!(block_on(next(&mut map)).is_none());
            drop(map);
            end(pool);
            let_threads_end(&mut host, method, 1);
            // On a busy machine the limit may be too short for the first.
            if first.unwrap().is_ok() {
                break;
            }
            limit *= 2;
        }
    }
}

fn map_under_tokio(method: StartMethod) {
    let pool = pool(method, 2);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    let maps = (0..3).map(|start| {
        let pool = pool.clone();
        runtime.spawn(async move {
            let mut map = pool.map(double::later, start..start + 500).unordered();
            let mut sum = 0;
            while let Some(result) = next(&mut map).await {
                sum += result.unwrap();
            }
            sum
        })
    });
    let maps: Vec<_> = maps.collect();
    for (map, start) in maps.into_iter().zip(0..) {
        let wanted: u64 = (start..start + 500).map(|x| x * 2).sum();
        assert_eq!(runtime.block_on(map).unwrap(), wanted);
    }
    drop(runtime);
    end(pool);
}
