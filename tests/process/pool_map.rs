//! `Pool::map`: results, their order, back-pressure, and items that do harm.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use inparallel::{ErrorKind, Limiter, Options, Pool, StartMethod, TaskContext, task};

use crate::harness::{POOLS, PROGRAM, REMOTE};
use crate::os;
use crate::place::{Host, Place};
use crate::pools::{LONG, end, kind, let_threads_end, own_id, pool, stay};
use crate::tasks::{Death, double};

trials! {
    warm on POOLS => {
        chunks_of_any_size_give_the_same_results,
        items_that_fail_are_errors_of_their_own,
        unordered_results_are_all_there,
        starmap_takes_tuples_apart,
        no_items_are_no_results,
        items_are_taken_no_further_ahead_than_the_buffer,
        large_items_are_taken_no_further_ahead_than_chunks_have_room,
        endless_input_is_taken_as_it_is_asked_for,
        endless_input_ends_with_the_time_limit,
        item_that_hangs_ends_with_the_time_limit,
        panic_of_the_input_loses_no_item,
        map_that_is_dropped_cancels_what_it_sent,
        options_of_an_item_hold_for_it_alone,
        options_of_the_pool_hold_for_each_item,
        map_on_a_closed_pool_is_one_error,
        progress_counts_every_result,
        messages_of_items_are_no_results,
        arguments_that_cannot_be_encoded_are_errors_of_their_own,
        maps_share_a_pool,
    }
    warm on REMOTE => {
        item_that_kills_its_worker_is_the_only_error,
        item_whose_result_is_too_large_is_the_only_error,
        pool_with_retries_gives_each_item_its_own_result,
    }
    warm on PROGRAM => { wrong_settings_of_a_map_are_refused }
}

fn chunks_of_any_size_give_the_same_results(method: StartMethod) {
    let pool = pool(method, 2);
    let wanted: Vec<u64> = (0..40).map(|x| x * 2).collect();
    for size in [1, 6, 39, 40, 50, 100_000] {
        let map = pool.map(double::later, 0..40).chunk_size(size).unwrap();
        assert_eq!(
            map.collect::<Result<Vec<_>, _>>().unwrap(),
            wanted,
            "chunks of {size}"
        );
        // Fewer may be taken than a chunk has.
        let map = pool.map(double::later, 0..40).chunk_size(size).unwrap();
        let map = map.buffered(3).unwrap();
        assert_eq!(
            map.collect::<Result<Vec<_>, _>>().unwrap(),
            wanted,
            "chunks of {size}"
        );
    }
    let results = pool
        .map(double::later, 0..10_000)
        .collect::<Result<Vec<_>, _>>()
        .unwrap();
    assert!(results.into_iter().eq((0..10_000).map(|x| x * 2)));
    end(pool);
}

#[task]
fn divide(a: u32, b: u32) -> u32 {
    a / b
}

fn items_that_fail_are_errors_of_their_own(method: StartMethod) {
    let pool = pool(method, 1);
    for size in [1, 2, 10] {
        let map = pool.map(|b| divide::later(12, b), [6, 0, 4, 0, 0, 1]);
        let results: Vec<_> = map.chunk_size(size).unwrap().map(kind).collect();
        let panicked = Err(ErrorKind::Panicked);
        assert_eq!(results, [Ok(2), panicked, Ok(3), panicked, panicked, Ok(12)]);
    }
    let mut map = pool.map(|b| divide::later(12, b), [6, 0]).chunk_size(2).unwrap();
    assert_eq!(map.next().unwrap().unwrap(), 2);
    let error = map.next().unwrap().unwrap_err();
    assert!(error.task().ends_with("::divide"), "{error}");
    assert!(
        error.panic_message().unwrap().contains("divide by zero"),
        "{error}"
    );
    assert!(map.next().is_none() && map.next().is_none());
    end(pool);
}

fn unordered_results_are_all_there(method: StartMethod) {
    let mut host = Host::new();
    let pool = pool(method, 2);
    let place = host.place();
    let wait_or_not = |x| match x {
        0 => stay::later(place.clone(), 0),
        x => number::later(x),
    };
    // The first is held back, and the others come all the same.
    let mut map = pool.map(wait_or_not, 0..20).unordered().chunk_size(1).unwrap();
    let mut results: Vec<_> = map.by_ref().take(19).map(Result::unwrap).collect();
    results.sort_unstable();
    assert!(results.into_iter().eq(1..20));
    assert_eq!(host.hear(), "0");
    host.release(1);
    assert_eq!(map.next().unwrap().unwrap(), 0);
    assert!(map.next().is_none());
    end(pool);
}

#[task]
fn number(x: u32) -> u32 {
    x
}

fn starmap_takes_tuples_apart(method: StartMethod) {
    let pool = pool(method, 2);
    let map = pool.starmap(|(a, b)| divide::later(a, b), [(6, 2), (8, 4)]);
    assert_eq!(map.collect::<Result<Vec<_>, _>>().unwrap(), [3, 2]);
    end(pool);
}

fn no_items_are_no_results(method: StartMethod) {
    let pool = pool(method, 1);
    assert!(pool.map(double::later, []).next().is_none());
    assert!(
        pool.map(double::later, [])
            .unordered()
            .timeout(LONG)
            .unwrap()
            .next()
            .is_none()
    );
    // And no worker.
    assert_eq!(pool.stats().workers_made, 0);
    end(pool);
}

fn items_are_taken_no_further_ahead_than_the_buffer(method: StartMethod) {
    let pool = pool(method, 1);
    for buffered in [1, 5, 10] {
        for chunk_size in [None, Some(1), Some(3)] {
            let taken = Rc::new(Cell::new(0));
            let count = Rc::clone(&taken);
            let items = (0..30).inspect(move |_| count.set(count.get() + 1));
            let mut map = pool.map(double::later, items).buffered(buffered).unwrap();
            if let Some(size) = chunk_size {
                map = map.chunk_size(size).unwrap();
            }
            assert_eq!(taken.get(), 0, "nothing was asked for");
            for given in 0..30 {
                assert_eq!(map.next().unwrap().unwrap(), given * 2);
                // One more than the buffer lies in the hand of whoever looks whether there is another.
                let most = given as usize + buffered + 1;
                assert!(taken.get() <= most.min(30), "{} of {most}", taken.get());
            }
            assert!(map.next().is_none());
        }
    }
    end(pool);
}

#[task]
fn length(text: String) -> usize {
    text.len()
}

fn large_items_are_taken_no_further_ahead_than_chunks_have_room(method: StartMethod) {
    let pool = pool(method, 2);
    let taken = Rc::new(Cell::new(0));
    let count = Rc::clone(&taken);
    let items = (0..2000).map(move |_| {
        count.set(count.get() + 1);
        "x".repeat(32 << 10)
    });
    // A chunk has up to 1 MiB of arguments: 32 of these. Some chunks for each worker are ahead, and one item more in the hand of
    // whoever looks whether there is another.
    let most = 2 * 8 * 32 + 1;
    for (given, length) in pool.map(length::later, items).enumerate() {
        assert_eq!(length.unwrap(), 32 << 10);
        assert!(taken.get() <= given + 1 + most, "{} after {given}", taken.get());
    }
    assert_eq!(taken.get(), 2000);
    end(pool);
}

fn endless_input_is_taken_as_it_is_asked_for(method: StartMethod) {
    let pool = pool(method, 2);
    let map = pool.map(double::later, 0..);
    assert!(map.take(5_000).map(Result::unwrap).eq((0..5_000).map(|x| x * 2)));
    let map = pool.map(double::later, 0..).buffered(7).unwrap();
    assert!(map.take(100).map(Result::unwrap).eq((0..100).map(|x| x * 2)));
    end(pool);
}

/// Its consumer is slow: results are there whenever it asks for one, and it never waits.
fn endless_input_ends_with_the_time_limit(method: StartMethod) {
    let pool = pool(method, 1);
    let map = pool.map(double::later, 0..).buffered(100).unwrap();
    let map = map.timeout(Duration::from_millis(200)).unwrap();
    let mut results = Vec::new();
    for result in map {
        results.push(kind(result));
        let busy = Instant::now();
        while busy.elapsed() < Duration::from_millis(1) {}
    }
    let values = results.iter().take_while(|result| result.is_ok()).count();
    // Those that were under way may have had results out of order.
    let is_late = |result: &Result<u64, ErrorKind>| result.is_ok() || *result == Err(ErrorKind::TimedOut);
    assert!(results[values..].iter().all(is_late));
    for (result, x) in results.into_iter().zip(0..) {
        assert!(result.is_err() || result == Ok(x * 2));
    }
    end(pool);
}

/// On a busy machine the limit may be over before the first values are there: then again with a longer one.
fn item_that_hangs_ends_with_the_time_limit(method: StartMethod) {
    let mut limit = Duration::from_millis(200);
    loop {
        let mut host = Host::new();
        let pool = pool(method, 3);
        let place = host.place();
        let item = |x| match x {
            2 => stay::later(place.clone(), 2),
            x => number::later(x),
        };
        let map = pool
            .map(item, 0..3)
            .chunk_size(1)
            .unwrap()
            .timeout(limit)
            .unwrap();
        let mut results = map.collect::<Vec<_>>();
        assert_eq!(results.len(), 3);
        let error = results.pop().unwrap().unwrap_err();
        assert_eq!((error.kind(), error.limit()), (ErrorKind::TimedOut, Some(limit)));
        end(pool);
        let_threads_end(&mut host, method, 1);
        if results.into_iter().map(Result::ok).eq([Some(0), Some(1)]) {
            return;
        }
        limit *= 2;
    }
}

fn panic_of_the_input_loses_no_item(method: StartMethod) {
    let pool = pool(method, 2);
    for size in [None, Some(1), Some(4), Some(100)] {
        for (panics_in_call, nobody) in [(false, true), (true, false)] {
            let items = (0..8).inspect(move |x| assert!(*x != 3 || !nobody, "the input panics"));
            let call = move |x| {
                assert!(x != 3 || !panics_in_call, "the call panics");
                double::later(x)
            };
            let mut map = pool.map(call, items);
            if let Some(size) = size {
                map = map.chunk_size(size).unwrap();
            }
            let mut results = Vec::new();
            let mut panics = 0;
            loop {
                match catch_unwind(AssertUnwindSafe(|| map.next())) {
                    Ok(Some(result)) => results.push(result.unwrap()),
                    Ok(None) => break,
                    Err(_) => panics += 1,
                }
            }
            assert_eq!(
                (panics, results),
                (1, vec![0, 2, 4, 8, 10, 12, 14]),
                "chunks of {size:?}"
            );
        }
    }
    end(pool);
}

fn map_that_is_dropped_cancels_what_it_sent(method: StartMethod) {
    let mut host = Host::new();
    let pool = pool(method, 1);
    let place = host.place();
    let mut map = pool.map(
        |x| {
            if x == 0 {
                number::later(0)
            } else {
                stay::later(place.clone(), x)
            }
        },
        0..4,
    );
    assert_eq!(map.next().unwrap().unwrap(), 0);
    assert_eq!(host.hear(), "1");
    drop(map);
    assert!(pool.wait_idle(LONG).is_some());
    assert!(!host.has_news(), "what was cancelled in the queue ran");
    end(pool);
    let_threads_end(&mut host, method, 1);
}

/// Who travels in one chunk is one task.
fn options_of_an_item_hold_for_it_alone(method: StartMethod) {
    let limiter = Limiter::new(1);
    let pool = pool(method, 1);
    let ids = |options: Options| {
        let map = pool.map(|()| own_id::later().with(options.clone()), [(); 6]);
        let mut ids: Vec<_> = map.chunk_size(6).unwrap().map(Result::unwrap).collect();
        ids.dedup();
        ids.len()
    };
    assert_eq!(ids(Options::new()), 1);
    assert_eq!(ids(Options::new().priority(-3)), 1);
    assert_eq!(ids(Options::new().timeout(LONG)), 6);
    assert_eq!(ids(Options::new().retries(1)), 6);
    assert_eq!(ids(Options::new().limit(&limiter)), 6);
    assert_eq!(limiter.free(), 1);
    end(pool);
}

fn options_of_the_pool_hold_for_each_item(method: StartMethod) {
    let limiter = Limiter::new(1);
    for options in [
        Options::new().timeout(LONG),
        Options::new().retries(1),
        Options::new().limit(&limiter),
    ] {
        let pool = Pool::builder()
            .workers(1)
            .start(method)
            .options(options.clone())
            .build()
            .unwrap();
        let map = pool.map(|()| own_id::later(), [(); 6]).chunk_size(6).unwrap();
        let mut ids: Vec<_> = map.map(Result::unwrap).collect();
        ids.dedup();
        assert_eq!(ids.len(), 6, "{options:?}");
        end(pool);
    }
}

fn map_on_a_closed_pool_is_one_error(method: StartMethod) {
    let pool = pool(method, 1);
    pool.close();
    let results: Vec<_> = pool.map(double::later, 0..).take(10).map(kind).collect();
    assert_eq!(results, [Err(ErrorKind::Closed)]);
    // Closed in the middle: what was sent comes to its end.
    let pool = self::pool(method, 1);
    let mut map = pool.map(double::later, 0..);
    assert_eq!(map.next().unwrap().unwrap(), 0);
    pool.close();
    let rest: Vec<_> = map.map(kind).collect();
    let last = rest.iter().position(Result::is_err).unwrap();
    assert!(
        rest[last..]
            .iter()
            .all(|result| *result == Err(ErrorKind::Closed))
    );
    assert!(
        rest[..last]
            .iter()
            .eq((1..=last as u64).map(|x| Ok(x * 2)).collect::<Vec<_>>().iter())
    );
    end(pool);
}

fn progress_counts_every_result(method: StartMethod) {
    let pool = pool(method, 2);
    let (tx, rx) = std::sync::mpsc::channel();
    let map = pool
        .map(double::later, 0..500)
        .on_progress(move |done| tx.send(done).unwrap());
    assert_eq!(map.count(), 500);
    let counts: Vec<_> = rx.into_iter().collect();
    assert!(counts.is_sorted_by(|a, b| a < b), "{counts:?}");
    assert_eq!(counts.last(), Some(&500));
    end(pool);
}

/// Sends what looks like two results of a chunk.
#[task]
fn chatter(context: &TaskContext, x: u32) -> u32 {
    let words: [u8; 16] = [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 77, 2];
    context.send(&words).unwrap();
    context.progress(1, 2);
    x
}

fn messages_of_items_are_no_results(method: StartMethod) {
    let pool = pool(method, 1);
    for size in [1, 10] {
        let map = pool.map(chatter::later, 0..20).chunk_size(size).unwrap();
        assert!(map.map(Result::unwrap).eq(0..20), "chunks of {size}");
    }
    end(pool);
}

#[derive(serde::Deserialize)]
struct Shy(bool);

impl serde::Serialize for Shy {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            true => Err(serde::ser::Error::custom("shy")),
            false => serializer.serialize_bool(false),
        }
    }
}

#[task]
fn talk(shy: Shy) -> bool {
    shy.0
}

fn arguments_that_cannot_be_encoded_are_errors_of_their_own(method: StartMethod) {
    let pool = pool(method, 2);
    for size in [1, 10] {
        let shy = [false, true, true, false, false, true];
        let map = pool
            .map(|shy| talk::later(Shy(shy)), shy)
            .chunk_size(size)
            .unwrap();
        let results: Vec<_> = map.map(kind).collect();
        let wanted = shy.map(|shy| match shy {
            true => Err(ErrorKind::ArgumentNotEncodable),
            false => Ok(false),
        });
        assert_eq!(results, wanted);
    }
    end(pool);
}

fn maps_share_a_pool(method: StartMethod) {
    let pool = pool(method, 2);
    let doubles = pool.map(double::later, 0..300);
    let numbers = pool.map(number::later, 0..300);
    for (a, (b, x)) in doubles.zip(numbers.zip(0..)) {
        assert_eq!((a.unwrap(), b.unwrap()), (u64::from(x) * 2, x));
    }
    end(pool);
}

/// Tells that it ran, then gives its number, or dies of it.
#[task]
fn risk(place: Place, x: u32, killers: Vec<u32>) -> u32 {
    if killers.contains(&x) {
        place.say(&x.to_string());
        Death::Fault.happen();
    }
    x
}

fn item_that_kills_its_worker_is_the_only_error(method: StartMethod) {
    let pool = pool(method, 2);
    for killers in [
        vec![0],
        vec![5],
        vec![9],
        vec![2, 6],
        vec![2, 3],
        vec![0, 9],
        vec![0, 1, 2],
        vec![7, 8, 9],
        (0..10).collect(),
    ] {
        for size in [None, Some(1), Some(10), Some(3)] {
            let mut host = Host::new();
            let place = host.place();
            let made = killers.clone();
            let mut map = pool.map(move |x| risk::later(place.clone(), x, made.clone()), 0..10);
            if let Some(size) = size {
                map = map.chunk_size(size).unwrap();
            }
            let results: Vec<_> = map.map(kind).collect();
            let wanted: Vec<_> = (0..10)
                .map(|x| match killers.contains(&x) {
                    true => Err(ErrorKind::Signaled),
                    false => Ok(x),
                })
                .collect();
            assert_eq!(results, wanted, "{killers:?} in chunks of {size:?}");
            // Once to be found out, and once more to be sure.
            let mut times = std::collections::BTreeMap::new();
            while host.has_news() {
                *times.entry(host.hear()).or_insert(0) += 1;
            }
            assert_eq!(times.len(), killers.len());
            assert!(times.values().all(|times| *times <= 2), "{times:?}");
        }
    }
    end(pool);
}

#[task]
fn bytes(count: usize) -> Vec<u8> {
    vec![7; count]
}

fn item_whose_result_is_too_large_is_the_only_error(method: StartMethod) {
    let options = Options::new().max_result(100_000);
    let pool = Pool::builder()
        .workers(2)
        .start(method)
        .options(options)
        .build()
        .unwrap();
    for size in [1, 10] {
        let sizes = [10, 200_000, 20, 30];
        let map = pool.map(bytes::later, sizes).chunk_size(size).unwrap();
        let lengths: Vec<_> = map.map(|result| kind(result.map(|bytes| bytes.len()))).collect();
        assert_eq!(
            lengths,
            [Ok(10), Err(ErrorKind::ResultTooLarge), Ok(20), Ok(30)],
            "{size}"
        );
    }
    end(pool);
}

/// Dies the first time.
#[task]
fn die_once(context: &TaskContext, x: u32) -> (u32, u32) {
    if x == 3 && context.attempt() == 1 {
        os::raise(libc::SIGKILL);
    }
    (x, context.attempt())
}

fn pool_with_retries_gives_each_item_its_own_result(method: StartMethod) {
    let options = Options::new().retries(1);
    let pool = Pool::builder()
        .workers(1)
        .start(method)
        .options(options)
        .build()
        .unwrap();
    let map = pool.map(die_once::later, 0..8).chunk_size(8).unwrap();
    let results: Vec<_> = map.map(Result::unwrap).collect();
    let wanted: Vec<_> = (0..8).map(|x| (x, if x == 3 { 2 } else { 1 })).collect();
    assert_eq!(results, wanted);
    end(pool);
}

fn wrong_settings_of_a_map_are_refused(method: StartMethod) {
    let pool = pool(method, 1);
    let new = || pool.map(double::later, 0..1);
    for (error, text) in [
        (new().chunk_size(0).unwrap_err(), "chunk_size: 0 cannot be used"),
        (new().buffered(0).unwrap_err(), "buffered: 0 cannot be used"),
        (
            new().timeout(Duration::ZERO).unwrap_err(),
            "timeout: 0s cannot be used",
        ),
        (new().timeout(Duration::MAX).unwrap_err(), "timeout: "),
    ] {
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().starts_with(text), "{error}");
    }
    end(pool);
}
