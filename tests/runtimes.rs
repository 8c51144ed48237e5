//! Futures in async programs: tokio with one thread and with several, smol, and an executor made by hand.

#![allow(
    clippy::unwrap_used,
    reason = "a test's helper that unwraps says where it failed"
)]

mod support;

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use inparallel::{ErrorKind, InFlight, StartMethod, Stderr, TaskFuture, task};
use serial_test::{parallel, serial};

use support::{ALL, BESIDE, Gate, Holdings, LONG, Watchdog, stand_at};

/// Stands at the gate, then returns its number.
#[task]
fn gated(port: u16, number: u32) -> u32 {
    stand_at(port, number);
    number
}

#[task]
fn double(x: u32) -> u32 {
    x * 2
}

#[task]
fn fall() {
    panic!("on purpose")
}

/// Whose value falls over when it is decoded.
#[derive(Debug, serde::Serialize)]
struct Bomb(u8);

impl<'de> serde::Deserialize<'de> for Bomb {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        panic!("the decoder fell over")
    }
}

#[task]
fn bomb() -> Bomb {
    Bomb(1)
}

// --- executors ------------------------------------------------------------------------------------------------------

/// The smallest executor that there is: it sleeps until it is woken.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs what `make` makes on each runtime, started by each method.
fn on_each_runtime(methods: &[StartMethod], make: impl Fn(StartMethod) -> Boxed) {
    let one = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let several = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    for &method in methods {
        block_on(make(method));
        one.block_on(make(method));
        several.block_on(make(method));
        several.block_on(async { tokio::spawn(make(method)).await.unwrap() });
        smol::block_on(make(method));
        smol::block_on(smol::spawn(make(method)));
    }
}

/// All of them, in the order given. It polls each that is not ready whenever one of them wakes it.
async fn join_all<F: Future + Unpin>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.into_iter().map(|future| (future, None)).collect();
    poll_fn(|context| {
        for (future, output) in &mut futures {
            if output.is_none()
                && let Poll::Ready(ready) = Pin::new(future).poll(context)
            {
                *output = Some(ready);
            }
        }
        if futures.iter().all(|(_, output)| output.is_some()) {
            return Poll::Ready(
                futures
                    .iter_mut()
                    .map(|(_, output)| output.take().unwrap())
                    .collect(),
            );
        }
        Poll::Pending
    })
    .await
}

/// Polls once, with the waker of whoever awaits.
async fn assert_pending<F: Future>(mut future: Pin<&mut F>, method: StartMethod) {
    let is_pending = poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_pending())).await;
    assert!(is_pending, "{method}");
}

// --- every runtime --------------------------------------------------------------------------------------------------

#[test]
#[parallel]
fn future_is_awaited_on_every_runtime() {
    let _watchdog = Watchdog::new();
    on_each_runtime(&ALL, |method| {
        Box::pin(async move {
            assert_eq!(double::with().start(method).call(2).await.unwrap(), 4, "{method}");
            let error = fall::with()
                .start(method)
                .stderr(Stderr::Capture)
                .call()
                .await
                .unwrap_err();
            assert_eq!(
                (error.kind(), error.panic_message()),
                (ErrorKind::Panicked, Some("on purpose")),
                "{method}"
            );
        })
    });
}

#[test]
#[parallel]
fn twenty_tasks_are_joined_on_every_runtime() {
    let _watchdog = Watchdog::new();
    on_each_runtime(&ALL, |method| {
        Box::pin(async move {
            let results = join_all((0..20).map(|x| double::with().start(method).call(x))).await;
            let values: Vec<_> = results.into_iter().map(Result::unwrap).collect();
            assert!(values.into_iter().eq((0..20).map(|x| 2 * x)), "{method}");
        })
    });
}

#[test]
#[parallel]
fn each_end_wakes_who_awaits_all() {
    let _watchdog = Watchdog::new();
    on_each_runtime(&BESIDE, |method| {
        Box::pin(async move {
            let gate = Gate::new();
            let futures: Vec<_> = (0..3)
                .map(|x| gated::with().start(method).call(gate.port(), x))
                .collect();
            let mut joined = pin!(join_all(futures));
            let here = gate.arrivals(3);
            assert!(here.iter().map(|arrival| arrival.number).eq(0..3), "{method}");
            for arrival in here.into_iter().rev() {
                assert_pending(joined.as_mut(), method).await;
                arrival.let_go();
            }
            let values: Vec<_> = joined.await.into_iter().map(Result::unwrap).collect();
            assert_eq!(values, [0, 1, 2], "{method}");
        })
    });
}

#[test]
#[parallel]
fn blocked_tasks_do_not_block_a_runtime_of_one_thread() {
    let _watchdog = Watchdog::new();
    on_each_runtime(&BESIDE, |method| {
        Box::pin(async move {
            let gate = Gate::new();
            let mut blocked = gated::with().start(method).call(gate.port(), 5);
            let here = gate.arrival();
            assert_pending(Pin::new(&mut blocked), method).await;
            assert_eq!(double::with().start(method).call(1).await.unwrap(), 2, "{method}");
            here.let_go();
            assert_eq!(blocked.await.unwrap(), 5, "{method}");
        })
    });
}

#[test]
#[parallel]
fn cancel_reaches_who_awaits() {
    let _watchdog = Watchdog::new();
    on_each_runtime(&BESIDE, |method| {
        Box::pin(async move {
            let gate = Gate::new();
            let mut future = gated::with().start(method).call(gate.port(), 0);
            let here = gate.arrival();
            assert_pending(Pin::new(&mut future), method).await;
            assert!(future.cancel(), "{method}");
            assert_eq!(future.await.unwrap_err().kind(), ErrorKind::Cancelled, "{method}");
            drop(here);
        })
    });
}

#[test]
#[parallel]
fn dropping_in_mid_await_lets_the_task_run_or_kills_it() {
    let _watchdog = Watchdog::new();
    on_each_runtime(&BESIDE, |method| {
        Box::pin(async move {
            let (first, second) = (Gate::new(), Gate::new());
            let mut runs = Box::pin(
                twice_gated::with()
                    .start(method)
                    .call(first.port(), second.port()),
            );
            let here = first.arrival();
            assert_pending(runs.as_mut(), method).await;
            drop(runs);
            here.let_go();
            second.arrival().let_go();

            if method.is_isolated() {
                let mut killed = Box::pin(gated::with().start(method).call(first.port(), 0).kill_on_drop());
                let here = first.arrival();
                assert_pending(killed.as_mut(), method).await;
                drop(killed);
                here.wait_until_gone();
            }
        })
    });
}

/// Goes through one gate after the other.
#[task]
fn twice_gated(first: u16, second: u16) {
    stand_at(first, 1);
    stand_at(second, 2);
}

#[test]
#[parallel]
fn polling_after_the_end_is_an_error_and_no_panic() {
    let _watchdog = Watchdog::new();
    on_each_runtime(&ALL, |method| {
        Box::pin(async move {
            let mut future = double::with().start(method).call(2);
            assert_eq!((&mut future).await.unwrap(), 4, "{method}");
            assert_eq!(
                (&mut future).await.unwrap_err().kind(),
                ErrorKind::Taken,
                "{method}"
            );
            assert_eq!(
                future.try_wait().unwrap_err().kind(),
                ErrorKind::Taken,
                "{method}"
            );
            assert_eq!(future.await.unwrap_err().kind(), ErrorKind::Taken, "{method}");
        })
    });
}

#[test]
#[parallel]
fn panic_while_decoding_surfaces_where_it_is_polled() {
    let _watchdog = Watchdog::new();
    on_each_runtime(&ALL, |method| {
        Box::pin(async move {
            let mut future = bomb::with().start(method).call();
            let polled = poll_fn(|context| {
                let mut poll = || Pin::new(&mut future).poll(context);
                match catch_unwind(AssertUnwindSafe(&mut poll)) {
                    Ok(Poll::Pending) => Poll::Pending,
                    Ok(Poll::Ready(_)) => Poll::Ready(None),
                    Err(panic) => Poll::Ready(panic.downcast_ref::<&str>().copied()),
                }
            });
            assert_eq!(polled.await, Some("the decoder fell over"), "{method}");
            assert_eq!(future.await.unwrap_err().kind(), ErrorKind::Taken, "{method}");
            assert_eq!(double::with().start(method).call(1).await.unwrap(), 2, "{method}");
        })
    });
}

// --- one runtime ----------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[parallel]
async fn tokio_tasks_await_on_whatever_thread_they_are() {
    let _watchdog = Watchdog::new();
    for method in ALL {
        let spawned: Vec<_> = (0..20)
            .map(|x| tokio::spawn(async move { double::with().start(method).call(x).await }))
            .collect();
        let mut sum = 0;
        for join in spawned {
            sum += join.await.unwrap().unwrap();
        }
        assert_eq!(sum, 380, "{method}");
    }
}

#[tokio::test]
#[parallel]
async fn tokio_timeout_and_select_leave_the_task_running() {
    let _watchdog = Watchdog::new();
    let gate = Gate::new();
    for method in BESIDE {
        let mut future = gated::with().start(method).call(gate.port(), 6);
        let here = gate.arrival();
        tokio::time::timeout(Duration::from_millis(5), &mut future)
            .await
            .unwrap_err();
        let timer_won = tokio::select! {
            result = &mut future => panic!("{method}: {result:?}"),
            () = tokio::time::sleep(Duration::from_millis(5)) => true,
        };
        assert!(timer_won && !future.is_done(), "{method}");
        here.let_go();
        let value = tokio::select! {
            result = &mut future => result.unwrap(),
            () = tokio::time::sleep(LONG) => panic!("{method}: the task was let go"),
        };
        assert_eq!(value, 6, "{method}");
    }
}

#[tokio::test]
#[parallel]
async fn aborted_tokio_task_drops_its_future() {
    let _watchdog = Watchdog::new();
    for method in [StartMethod::ForkServer, StartMethod::Spawn] {
        let gate = Gate::new();
        let port = gate.port();
        let awaiting =
            tokio::spawn(async move { gated::with().start(method).kill_on_drop().call(port, 0).await });
        let here = tokio::task::spawn_blocking(move || gate.arrival()).await.unwrap();
        awaiting.abort();
        assert!(awaiting.await.unwrap_err().is_cancelled(), "{method}");
        tokio::task::spawn_blocking(|| here.wait_until_gone())
            .await
            .unwrap();
    }
}

#[test]
#[parallel]
fn smol_race_with_a_timer_leaves_the_task_running() {
    let _watchdog = Watchdog::new();
    let gate = Gate::new();
    for method in BESIDE {
        smol::block_on(async {
            let mut future = gated::with().start(method).call(gate.port(), 6);
            let here = gate.arrival();
            let timer = async {
                smol::Timer::after(Duration::from_millis(5)).await;
                None
            };
            let winner = smol::future::or(async { Some((&mut future).await) }, timer).await;
            assert!(winner.is_none(), "{method}");
            here.let_go();
            assert_eq!(future.await.unwrap(), 6, "{method}");
        });
    }
}

// --- wakers ---------------------------------------------------------------------------------------------------------

/// Counts its wakes, and tells of each.
struct Counter {
    wakes: AtomicUsize,
    tell: Mutex<mpsc::Sender<()>>,
}

impl Counter {
    fn new() -> (Arc<Counter>, mpsc::Receiver<()>) {
        let (tell, told) = mpsc::channel();
        (
            Arc::new(Counter {
                wakes: AtomicUsize::new(0),
                tell: Mutex::new(tell),
            }),
            told,
        )
    }

    fn wakes(&self) -> usize {
        self.wakes.load(Ordering::SeqCst)
    }
}

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
        // Whoever waited for the first may be gone at the second, which is then counted.
        let _ = self.tell.lock().unwrap().send(());
    }
}

fn poll<T: serde::de::DeserializeOwned>(
    future: &mut TaskFuture<T>,
    waker: &Waker,
) -> Poll<inparallel::Result<T>> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

#[test]
#[parallel]
fn only_the_last_waker_is_woken_and_once() {
    let _watchdog = Watchdog::new();
    let gate = Gate::new();
    for method in BESIDE {
        let (first, _first_told) = Counter::new();
        let (last, told) = Counter::new();
        let mut future = gated::with().start(method).call(gate.port(), 1);
        let here = gate.arrival();
        for _ in 0..3 {
            assert!(
                poll(&mut future, &Waker::from(Arc::clone(&first))).is_pending(),
                "{method}"
            );
        }
        for _ in 0..3 {
            assert!(
                poll(&mut future, &Waker::from(Arc::clone(&last))).is_pending(),
                "{method}"
            );
        }
        assert_eq!((first.wakes(), last.wakes()), (0, 0), "{method}");
        here.let_go();
        told.recv().unwrap();
        let waker = Waker::from(Arc::clone(&last));
        assert!(
            matches!(poll(&mut future, &waker), Poll::Ready(Ok(1))),
            "{method}"
        );
        assert!(
            matches!(poll(&mut future, &waker), Poll::Ready(Err(e)) if e.kind() == ErrorKind::Taken),
            "{method}"
        );
        drop((future, waker));
        // Once the process or thread is gone nobody wakes any more. Nothing holds on to a waker either.
        while Arc::strong_count(&last) > 1 {
            thread::park_timeout(Duration::from_millis(1));
        }
        assert_eq!((first.wakes(), last.wakes()), (0, 1), "{method}");
        assert_eq!(Arc::strong_count(&first), 1, "{method}");
    }
}

#[test]
#[parallel]
fn ended_future_is_ready_without_a_wake() {
    let _watchdog = Watchdog::new();
    for method in ALL {
        let future = double::with().start(method).call(4);
        let mut future = inparallel::wait([future], inparallel::Until::All, None)
            .done
            .remove(0);
        let (counter, _told) = Counter::new();
        assert!(
            matches!(
                poll(&mut future, &Waker::from(Arc::clone(&counter))),
                Poll::Ready(Ok(8))
            ),
            "{method}"
        );
        drop(future);
        // Nothing holds on to it either.
        assert_eq!((counter.wakes(), Arc::strong_count(&counter)), (0, 1), "{method}");
    }
}

#[test]
#[parallel]
fn future_dropped_while_it_is_awaited_wakes_nobody() {
    let _watchdog = Watchdog::new();
    let gate = Gate::new();
    for method in BESIDE {
        let mut future = gated::with().start(method).call(gate.port(), 0);
        let here = gate.arrival();
        let (tx, ended) = mpsc::channel();
        future.on_done(move |_| tx.send(()).unwrap());
        let (counter, _told) = Counter::new();
        assert!(
            poll(&mut future, &Waker::from(Arc::clone(&counter))).is_pending(),
            "{method}"
        );
        drop(future);
        assert_eq!(
            Arc::strong_count(&counter),
            1,
            "{method}: the task may run for long"
        );
        here.let_go();
        ended.recv().unwrap();
        assert_eq!(counter.wakes(), 0, "{method}");
    }
}

/// An executor that polls in the very call that wakes it.
struct PollsInWake<T> {
    future: Mutex<Option<TaskFuture<T>>>,
    tell: Mutex<mpsc::Sender<inparallel::Result<T>>>,
}

impl<T: serde::de::DeserializeOwned + Send + 'static> Wake for PollsInWake<T> {
    fn wake(self: Arc<Self>) {
        let waker = Waker::from(Arc::clone(&self));
        let mut future = self.future.lock().unwrap();
        if let Poll::Ready(result) = poll(future.as_mut().unwrap(), &waker) {
            *future = None;
            self.tell.lock().unwrap().send(result).unwrap();
        }
    }
}

#[test]
#[parallel]
fn executor_may_poll_in_the_call_that_wakes_it() {
    let _watchdog = Watchdog::new();
    let gate = Gate::new();
    for method in BESIDE {
        let (tell, told) = mpsc::channel();
        let future = gated::with().start(method).call(gate.port(), 3);
        let here = gate.arrival();
        let executor = Arc::new(PollsInWake {
            future: Mutex::new(Some(future)),
            tell: Mutex::new(tell),
        });
        Waker::from(Arc::clone(&executor)).wake();
        here.let_go();
        assert_eq!(told.recv().unwrap().unwrap(), 3, "{method}");
    }
}

#[test]
#[parallel]
fn waker_that_panics_harms_no_other_future() {
    struct Falls(AtomicBool);
    impl Wake for Falls {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
            panic!("this waker panics on purpose");
        }
    }
    let _watchdog = Watchdog::new();
    let gate = Gate::new();
    for method in BESIDE {
        let falls = Arc::new(Falls(AtomicBool::new(false)));
        let mut future = gated::with().start(method).call(gate.port(), 0);
        assert!(
            poll(&mut future, &Waker::from(Arc::clone(&falls))).is_pending(),
            "{method}"
        );
        gate.arrival().let_go();
        // All that is told of an end is told, whatever the waker does.
        let list = InFlight::new();
        list.push(future);
        assert_eq!(
            inparallel::waitfor(&list).next().unwrap().wait().unwrap(),
            0,
            "{method}"
        );
        assert!(falls.0.load(Ordering::SeqCst), "{method}");
        assert_eq!(
            double::with().start(method).call(1).wait().unwrap(),
            2,
            "{method}"
        );
    }
}

/// Drops of wakers run code of the runtime's, which may drop whole tasks of it.
#[test]
#[parallel]
fn replaced_waker_may_wait_for_tasks_when_it_is_dropped() {
    struct Waits(Mutex<Option<support::Arrival>>, StartMethod);
    impl Wake for Waits {
        fn wake(self: Arc<Self>) {}
    }
    impl Drop for Waits {
        fn drop(&mut self) {
            self.0.lock().unwrap().take().unwrap().let_go();
            for x in 0..5 {
                let result = double::with().start(self.1).call(x).wait_timeout(LONG / 2);
                assert_eq!(
                    result.unwrap(),
                    Some(2 * x),
                    "{}: the supervisor is held up",
                    self.1
                );
            }
        }
    }
    let _watchdog = Watchdog::new();
    let gate = Gate::new();
    for method in BESIDE {
        let mut future = gated::with().start(method).call(gate.port(), 1);
        let waits = Arc::new(Waits(Mutex::new(Some(gate.arrival())), method));
        assert!(poll(&mut future, &Waker::from(waits)).is_pending(), "{method}");
        // Replaces that one, which ends the task meanwhile.
        _ = poll(&mut future, Waker::noop());
    }
}

// --- leaks ----------------------------------------------------------------------------------------------------------

#[test]
#[serial]
fn runtimes_leave_no_process_thread_or_descriptor_behind() {
    let _watchdog = Watchdog::new();
    let round = || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_time()
            .build()
            .unwrap();
        for method in BESIDE {
            let gate = Gate::new();
            let port = gate.port();
            runtime.block_on(async {
                let blocked = gated::with().start(method).kill_on_drop().call(port, 0);
                tokio::time::timeout(Duration::from_millis(1), blocked)
                    .await
                    .unwrap_err();
                join_all((0..5).map(|x| double::with().start(method).call(x))).await;
            });
            // Some die before they reach the gate.
            drop(gate);
        }
    };
    // The library's own threads and its fork server stay.
    round();
    let before = Holdings::now();
    for _ in 0..5 {
        round();
    }
    before.check();
}
