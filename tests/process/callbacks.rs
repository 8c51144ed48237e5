//! `on_done`: called once, in order, whatever the outcome.

use std::sync::mpsc;
use std::time::Duration;

use inparallel::{ErrorKind, StartMethod, TaskFuture, task};

use crate::harness::{ALL, ISOLATED};
use crate::place::{Host, Place};
use crate::tasks::{Death, die, double, meet};

trials! {
    warm on ALL => {
        callbacks_run_in_the_order_of_adding,
        callback_of_an_ended_future_runs_at_once,
        callback_that_panics_harms_nobody,
    }
    warm on ISOLATED => {
        callback_hears_every_outcome,
        slow_callback_delays_no_future,
        callback_may_start_and_await_tasks,
        callbacks_do_not_run_in_forks,
        waker_is_called_when_the_task_ends,
    }
}

#[task]
fn go_and_double(place: Place, x: u64) -> u64 {
    place.wait_for_go();
    x * 2
}

fn callbacks_run_in_the_order_of_adding(method: StartMethod) {
    let mut host = Host::new();
    if method == StartMethod::Inline {
        host.release(1);
    }
    let future = go_and_double::with().start(method).call(host.place(), 4);
    let (tx, rx) = mpsc::channel();
    for number in 0..3 {
        let tx = tx.clone();
        future.on_done(move |result| tx.send((number, *result.as_ref().unwrap())).unwrap());
    }
    drop(tx);
    if method != StartMethod::Inline {
        host.release(1);
    }
    assert_eq!(rx.iter().collect::<Vec<_>>(), [(0, 8), (1, 8), (2, 8)]);
    assert_eq!(future.wait().unwrap(), 8);
}

fn callback_of_an_ended_future_runs_at_once(method: StartMethod) {
    let future = double::with().start(method).call(4);
    let mut done = inparallel::wait([future], inparallel::Until::All, None).done;
    let future: TaskFuture<u64> = done.remove(0);
    let (tx, rx) = mpsc::channel();
    future.on_done(move |result| {
        tx.send((std::thread::current().id(), *result.as_ref().unwrap()))
            .unwrap()
    });
    assert_eq!(rx.try_recv().unwrap(), (std::thread::current().id(), 8));
}

fn callback_that_panics_harms_nobody(method: StartMethod) {
    let mut host = Host::new();
    if method == StartMethod::Inline {
        host.release(1);
    }
    let future = go_and_double::with().start(method).call(host.place(), 4);
    let (tx, rx) = mpsc::channel();
    future.on_done(|_| panic!("a callback that panics"));
    future.on_done(move |result| tx.send(*result.as_ref().unwrap()).unwrap());
    if method != StartMethod::Inline {
        host.release(1);
    }
    assert_eq!(rx.recv().unwrap(), 8);
    assert_eq!(future.wait().unwrap(), 8);
    assert_eq!(double::with().start(method).call(1).wait().unwrap(), 2);
}

fn callback_hears_every_outcome(method: StartMethod) {
    let mut host = Host::new();
    let (tx, rx) = mpsc::channel();
    let listen = |future: &TaskFuture<u32>| {
        let tx = tx.clone();
        future.on_done(move |result| {
            tx.send(result.as_ref().map(|_| ()).map_err(|error| error.kind()))
                .unwrap()
        });
    };
    let died = die::with().start(method).call(host.place(), Death::Exit(1));
    listen(&died);
    host.arrival();
    assert_eq!(rx.recv().unwrap(), Err(ErrorKind::Exited));
    let cancelled = meet::with().start(method).call(host.place());
    host.arrival();
    listen(&cancelled);
    cancelled.cancel();
    assert_eq!(rx.recv().unwrap(), Err(ErrorKind::Cancelled));
    let late = meet::with()
        .start(method)
        .timeout(Duration::from_millis(50))
        .call(host.place());
    listen(&late);
    assert_eq!(rx.recv().unwrap(), Err(ErrorKind::TimedOut));
    let refused = meet::with()
        .start(method)
        .timeout(Duration::ZERO)
        .call(host.place());
    listen(&refused);
    assert_eq!(rx.recv().unwrap(), Err(ErrorKind::Invalid));
    // The handle may be gone by then.
    let dropped = meet::with().start(method).kill_on_drop().call(host.place());
    listen(&dropped);
    drop(dropped);
    assert_eq!(rx.recv().unwrap(), Err(ErrorKind::Cancelled));
}

fn slow_callback_delays_no_future(method: StartMethod) {
    let mut host = Host::new();
    let (tx, rx) = mpsc::channel::<()>();
    let (began_tx, began_rx) = mpsc::channel();
    let slow = go_and_double::with().start(method).call(host.place(), 1);
    slow.on_done(move |_| {
        began_tx.send(()).unwrap();
        // Ends when the trial lets it.
        rx.recv().unwrap();
    });
    host.release(1);
    began_rx.recv().unwrap();
    assert_eq!(slow.wait().unwrap(), 2);
    if method == StartMethod::Fork {
        // A callback that runs for so long counts as a thread that a fork would lose.
        let refused = double::with().start(method).call(4).wait().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ThreadsAlive);
    } else {
        assert_eq!(double::with().start(method).call(4).wait().unwrap(), 8);
    }
    tx.send(()).unwrap();
    // The same thread runs this one, so that it is idle again after it.
    let future = double::with().start(method);
    if method == StartMethod::Fork {
        return;
    }
    let (tx, rx) = mpsc::channel();
    let future = future.call(5);
    future.on_done(move |_| tx.send(()).unwrap());
    rx.recv().unwrap();
    assert_eq!(future.wait().unwrap(), 10);
}

/// A fork is refused there: the main thread is another one.
fn callback_may_start_and_await_tasks(method: StartMethod) {
    let mut host = Host::new();
    let future = go_and_double::with().start(method).call(host.place(), 1);
    let (tx, rx) = mpsc::channel();
    future.on_done(move |_| {
        let inner = double::with().start(method).call(20).wait();
        tx.send(inner.map_err(|error| error.kind())).unwrap();
    });
    host.release(1);
    let expected = if method == StartMethod::Fork {
        Err(ErrorKind::ThreadsAlive)
    } else {
        Ok(40)
    };
    assert_eq!(rx.recv().unwrap(), expected);
    future.wait().unwrap();
}

/// The callback of a future that is pending at the fork is the program's affair.
fn callbacks_do_not_run_in_forks(method: StartMethod) {
    let mut host = Host::new();
    let (tx, rx) = mpsc::channel();
    let future = go_and_double::with().start(method).call(host.place(), 1);
    let place = host.place();
    future.on_done(move |_| {
        place.say(&format!("heard in {}", std::process::id()));
        tx.send(()).unwrap();
    });
    let other = meet::with().start(StartMethod::Fork).call(host.place());
    host.arrival();
    host.release(2);
    rx.recv().unwrap();
    assert_eq!(host.hear(), format!("heard in {}", std::process::id()));
    other.wait().unwrap();
    future.wait().unwrap();
    assert!(!host.has_news());
}

fn waker_is_called_when_the_task_ends(method: StartMethod) {
    use std::future::Future;
    use std::sync::Arc;
    use std::task::{Context, Poll, Wake, Waker};
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let mut host = Host::new();
    let mut future = std::pin::pin!(go_and_double::with().start(method).call(host.place(), 4));
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    assert!(future.as_mut().poll(&mut context).is_pending());
    host.release(1);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(result) => return assert_eq!(result.unwrap(), 8),
            Poll::Pending => std::thread::park(),
        }
    }
}
