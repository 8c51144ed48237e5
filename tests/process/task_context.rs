//! What a running task knows of itself, and what it sends before it ends.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use inparallel::{ErrorKind, Options, Progress, StartMethod, TaskContext, task};

use crate::harness::{ALL, ISOLATED, POOLS, PROGRAM, REMOTE};
use crate::os;
use crate::place::{Host, Place};
use crate::pools::{LONG, end, kind, let_threads_end, pool};
use crate::tasks::double;

trials! {
    warm on ALL => {
        task_knows_itself,
        messages_come_in_order_and_end_with_the_task,
        messages_of_a_task_that_fails_are_not_lost,
        messages_of_another_type_are_errors,
        oldest_messages_go_if_nobody_reads,
    }
    warm on POOLS => {
        task_of_a_pool_knows_itself,
        messages_come_as_they_are_sent,
        task_waits_while_nobody_reads,
        dropped_reader_lets_the_task_run_on,
        reader_that_waits_for_so_long_only,
        messages_are_a_stream,
        next_task_of_a_worker_is_read_after_a_flood,
        progress_is_what_was_said_last,
        task_sees_that_it_is_cancelled,
        task_sees_its_deadline,
    }
    warm on ISOLATED => {
        cancelled_task_that_returns_ends_before_its_grace,
        messages_of_a_killed_task_are_read_to_the_last,
    }
    warm on REMOTE => {
        cancelled_task_of_a_pool_that_returns_ends_before_its_grace,
        task_that_is_held_back_can_be_cancelled,
    }
    warm on PROGRAM => { plain_call_has_nobody_to_speak_to }
}

#[task]
fn describe(context: &TaskContext, x: u32) -> (u32, String, String, u32, bool) {
    let has_deadline = context.deadline().is_some();
    let name = context.name().to_owned();
    (x, context.id().to_string(), name, context.attempt(), has_deadline)
}

fn task_knows_itself(method: StartMethod) {
    for limit in [None, Some(LONG)] {
        let mut options = Options::new().start(method);
        if let Some(limit) = limit {
            options = options.timeout(limit);
        }
        let future = describe::later(7).with(options).start();
        let (id, name) = (future.id().to_string(), future.name());
        assert_eq!(future.wait().unwrap(), (7, id, name, 1, limit.is_some()));
    }
}

fn task_of_a_pool_knows_itself(method: StartMethod) {
    let pool = pool(method, 1);
    for limit in [None, Some(LONG), None] {
        let mut call = describe::later(7);
        if let Some(limit) = limit {
            call = call.with(Options::new().timeout(limit));
        }
        let future = pool.submit(call).unwrap();
        let (id, name) = (future.id().to_string(), future.name());
        assert_eq!(future.wait().unwrap(), (7, id, name, 1, limit.is_some()));
    }
    end(pool);
}

fn plain_call_has_nobody_to_speak_to(_: StartMethod) {
    let (x, id, name, attempt, has_deadline) = describe::inline(&TaskContext::default(), 3);
    assert_eq!(
        (x, id.as_str(), name.as_str(), attempt, has_deadline),
        (3, "task-0", "", 1, false)
    );
    assert_eq!(tell::inline(&TaskContext::default(), 3, None), 3);
}

#[task]
fn tell(context: &TaskContext, count: u32, end: Option<crate::tasks::Death>) -> u32 {
    for x in 0..count {
        context.send(&(x, "text".repeat(x as usize))).unwrap();
    }
    end.map_or(count, crate::tasks::Death::happen)
}

fn messages_come_in_order_and_end_with_the_task(method: StartMethod) {
    for count in [0, 1, 50] {
        let future = tell::with().start(method).call(count, None);
        let mut messages = future.messages::<(u32, String)>();
        for x in 0..count {
            assert_eq!(messages.next().unwrap().unwrap(), (x, "text".repeat(x as usize)));
        }
        assert!(messages.next().is_none() && messages.try_next().is_none());
        assert!(messages.next_timeout(Duration::ZERO).unwrap().is_none());
        assert_eq!(messages.missed(), 0);
        // It ends with the task, not before.
        assert!(future.is_done());
        assert_eq!(future.wait().unwrap(), count);
    }
}

fn messages_of_a_task_that_fails_are_not_lost(method: StartMethod) {
    let future = tell::with()
        .start(method)
        .call(20, Some(crate::tasks::Death::Panic));
    let messages: Vec<_> = future
        .messages::<(u32, String)>()
        .map(|message| message.unwrap().0)
        .collect();
    assert!(messages.into_iter().eq(0..20));
    assert_eq!(kind(future.wait()), Err(ErrorKind::Panicked));
}

fn messages_of_a_killed_task_are_read_to_the_last(method: StartMethod) {
    let death = Some(crate::tasks::Death::Signal(libc::SIGKILL));
    let future = tell::with().start(method).call(20, death);
    let messages: Vec<_> = future
        .messages::<(u32, String)>()
        .map(|message| message.unwrap().0)
        .collect();
    assert!(messages.into_iter().eq(0..20));
    assert_eq!(kind(future.wait()), Err(ErrorKind::Signaled));
}

fn messages_of_another_type_are_errors(method: StartMethod) {
    let future = tell::with().start(method).call(3, None);
    let messages: Vec<_> = future.messages::<Vec<String>>().collect();
    assert_eq!(messages.len(), 3);
    for error in messages.into_iter().filter_map(Result::err) {
        assert_eq!(error.kind(), ErrorKind::ResultNotDecodable);
        assert!(error.to_string().contains("String"), "{error}");
    }
    assert_eq!(future.wait().unwrap(), 3);
}

const MANY: u32 = 50;

/// 50 MB in 50 messages, once it is released: what is sent before anybody asks for it may be dropped.
#[task]
fn flood(context: &TaskContext, place: Place) -> u32 {
    place.wait_for_go();
    for x in 0..MANY {
        context.send(&(x, "x".repeat(1 << 20))).unwrap();
    }
    place.say("sent");
    MANY
}

fn oldest_messages_go_if_nobody_reads(method: StartMethod) {
    let mut host = Host::new();
    host.release(1);
    let future = flood::with().start(method).call(host.place());
    assert_eq!(host.hear(), "sent");
    // What is under way still comes, and the end.
    os::eventually(|| {
        if future.is_done() {
            Ok(())
        } else {
            Err("it does not end".into())
        }
    });
    let messages = future.messages::<(u32, String)>();
    let missed = messages.missed();
    let kept: Vec<_> = messages.map(|message| message.unwrap().0).collect();
    assert_eq!(missed + kept.len() as u64, u64::from(MANY));
    assert!(!kept.is_empty() && missed > 40, "{missed}");
    assert!(kept.into_iter().eq(missed as u32..MANY));
    assert_eq!(future.wait().unwrap(), MANY);
}

#[task]
fn step_by_step(context: &TaskContext, place: Place) {
    for x in 0..3u32 {
        context.send(&x).unwrap();
        place.wait_for_go();
    }
}

fn messages_come_as_they_are_sent(method: StartMethod) {
    let mut host = Host::new();
    let pool = pool(method, 1);
    let future = pool.submit(step_by_step::later(host.place())).unwrap();
    let mut messages = future.messages::<u32>();
    for x in 0..3 {
        assert_eq!(messages.next().unwrap().unwrap(), x);
        assert!(messages.try_next().is_none() && !future.is_done());
        host.release(1);
    }
    assert!(messages.next().is_none());
    future.wait().unwrap();
    end(pool);
}

fn task_waits_while_nobody_reads(method: StartMethod) {
    let mut host = Host::new();
    let pool = pool(method, 1);
    let future = pool.submit(flood::later(host.place())).unwrap();
    let mut messages = future.messages::<(u32, String)>();
    host.release(1);
    assert_eq!(messages.next().unwrap().unwrap().0, 0);
    // What it may send and what the pipe holds is far less than what it has.
    let before = os::peak_memory();
    for x in 1..MANY {
        assert!(!host.has_news() || x > MANY - 10, "it was not held back");
        assert_eq!(messages.next().unwrap().unwrap().0, x);
    }
    assert!(os::peak_memory() < before + (30 << 10), "kilobytes");
    assert!(messages.next().is_none());
    assert_eq!(messages.missed(), 0);
    assert_eq!(host.hear(), "sent");
    assert_eq!(future.wait().unwrap(), MANY);
    end(pool);
}

fn dropped_reader_lets_the_task_run_on(method: StartMethod) {
    let mut host = Host::new();
    let pool = pool(method, 1);
    let future = pool.submit(flood::later(host.place())).unwrap();
    let mut messages = future.messages::<(u32, String)>();
    host.release(1);
    messages.next().unwrap().unwrap();
    drop(messages);
    assert_eq!(host.hear(), "sent");
    assert_eq!(future.wait().unwrap(), MANY);
    end(pool);
}

fn reader_that_waits_for_so_long_only(method: StartMethod) {
    let mut host = Host::new();
    let pool = pool(method, 1);
    let future = pool.submit(step_by_step::later(host.place())).unwrap();
    let mut messages = future.messages::<u32>();
    assert_eq!(messages.next_timeout(LONG).unwrap().unwrap().unwrap(), 0);
    assert!(messages.next_timeout(Duration::from_millis(5)).is_none());
    host.release(3);
    assert_eq!(messages.next_timeout(Duration::MAX).unwrap().unwrap().unwrap(), 1);
    assert_eq!(messages.next_timeout(LONG).unwrap().unwrap().unwrap(), 2);
    assert!(messages.next_timeout(LONG).unwrap().is_none());
    future.wait().unwrap();
    end(pool);
}

/// By an executor that knows nothing but wakers.
fn messages_are_a_stream(method: StartMethod) {
    let mut host = Host::new();
    let pool = pool(method, 1);
    let future = pool.submit(step_by_step::later(host.place())).unwrap();
    let mut messages = future.messages::<u32>();
    for x in 0..3 {
        let next = std::future::poll_fn(|context| poll_stream(&mut messages, context));
        assert_eq!(block_on(next).unwrap().unwrap(), x);
        host.release(1);
    }
    let next = std::future::poll_fn(|context| poll_stream(&mut messages, context));
    assert!(block_on(next).is_none());
    drop(messages);
    block_on(future).unwrap();
    end(pool);
}

fn poll_stream<M: futures_core::Stream + Unpin>(
    stream: &mut M,
    context: &mut Context<'_>,
) -> Poll<Option<M::Item>> {
    std::pin::Pin::new(stream).poll_next(context)
}

/// Sleeps until it is woken.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(std::sync::Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// Fills the mailbox with its last word, so that this and its answer are read at once.
#[task]
fn fill(context: &TaskContext, place: Place) {
    place.wait_for_go();
    context.send(&"x".repeat((4 << 20) - 1000)).unwrap();
    context.send(&"y".repeat(2000)).unwrap();
}

/// 1. A task ends with a full mailbox, which nobody empties. 2. Its worker gets the next task. 3. That one is heard.
fn next_task_of_a_worker_is_read_after_a_flood(method: StartMethod) {
    let mut host = Host::new();
    let pool = pool(method, 1);
    for x in 0..10 {
        let mut future = pool.submit(fill::later(host.place())).unwrap();
        let messages = future.messages::<String>();
        host.release(1);
        let mut next = pool.submit(double::later(x)).unwrap();
        // Not if its answer comes later than its last word: then the reader has to make room first.
        let is_done = future.wait_timeout(Duration::from_millis(50)).unwrap().is_some();
        assert_eq!(messages.count(), 2);
        assert_eq!(
            next.wait_timeout(LONG / 4).unwrap(),
            Some(x * 2),
            "its worker is not heard any more"
        );
        if !is_done {
            future.wait().unwrap();
        }
    }
    end(pool);
}

#[task]
fn advance(context: &TaskContext, place: Place) {
    for done in 0..4 {
        context.progress(done, 3);
        place.say("advanced");
        place.wait_for_go();
    }
}

fn progress_is_what_was_said_last(method: StartMethod) {
    let mut host = Host::new();
    let pool = pool(method, 1);
    let future = pool.submit(advance::later(host.place())).unwrap();
    for done in 0..4 {
        host.hear();
        let wanted = Some(Progress { done, total: 3 });
        // It was said before, by another way.
        os::eventually(|| match future.progress() {
            progress if progress == wanted => Ok(()),
            progress => Err(format!("{progress:?} instead of {done}")),
        });
        host.release(1);
    }
    os::eventually(|| {
        if future.is_done() {
            Ok(())
        } else {
            Err("it goes on".into())
        }
    });
    assert_eq!(future.progress(), Some(Progress { done: 3, total: 3 }));
    future.wait().unwrap();
    let silent = pool.submit(double::later(1)).unwrap();
    assert_eq!(silent.progress(), None);
    silent.wait().unwrap();
    end(pool);
}

/// Looks again and again.
#[task]
fn watch(context: &TaskContext, place: Place) {
    assert!(!context.is_cancelled());
    place.say("watches");
    while !context.is_cancelled() {
        std::thread::yield_now();
    }
    place.say("saw it");
}

fn task_sees_that_it_is_cancelled(method: StartMethod) {
    let mut host = Host::new();
    let pool = pool(method, 1);
    let call = watch::later(host.place()).with(Options::new().grace(LONG));
    let future = pool.submit(call).unwrap();
    assert_eq!(host.hear(), "watches");
    assert!(future.cancel());
    assert_eq!(host.hear(), "saw it");
    assert_eq!(kind(future.wait()), Err(ErrorKind::Cancelled));
    assert_eq!(pool.submit(double::later(2)).unwrap().wait().unwrap(), 4);
    end(pool);
    let_threads_end(&mut host, method, 0);
}

fn task_sees_its_deadline(method: StartMethod) {
    let mut host = Host::new();
    let pool = pool(method, 1);
    let limit = Duration::from_millis(100);
    let options = Options::new().grace(LONG).timeout(limit);
    let begun = Instant::now();
    let future = pool
        .submit(watch_until_late::later(host.place()).with(options))
        .unwrap();
    assert_eq!(host.hear(), "late");
    assert!(begun.elapsed() >= limit);
    // An answer that comes at the last moment has come.
    assert!(matches!(kind(future.wait()), Ok(()) | Err(ErrorKind::TimedOut)));
    end(pool);
    let_threads_end(&mut host, method, 0);
}

#[task]
fn watch_until_late(context: &TaskContext, place: Place) {
    assert!(context.deadline().is_some());
    while !context.is_cancelled() {
        std::thread::yield_now();
    }
    place.say("late");
}

/// The grace is the longest that it may take, not what it takes.
fn cancelled_task_that_returns_ends_before_its_grace(method: StartMethod) {
    let mut host = Host::new();
    let with = watch::with().start(method).grace(LONG * 10);
    let future = with.call(host.place());
    host.hear();
    assert!(future.cancel());
    assert_eq!(kind(future.wait()), Err(ErrorKind::Cancelled));
    assert_eq!(host.hear(), "saw it");
}

fn cancelled_task_of_a_pool_that_returns_ends_before_its_grace(method: StartMethod) {
    let mut host = Host::new();
    let pool = pool(method, 1);
    let call = watch::later(host.place()).with(Options::new().grace(LONG * 10));
    let future = pool.submit(call).unwrap();
    host.hear();
    assert!(future.cancel());
    assert_eq!(kind(future.wait()), Err(ErrorKind::Cancelled));
    assert_eq!(host.hear(), "saw it");
    end(pool);
}

fn task_that_is_held_back_can_be_cancelled(method: StartMethod) {
    let mut host = Host::new();
    let pool = pool(method, 1);
    let future = pool.submit(flood::later(host.place())).unwrap();
    let mut messages = future.messages::<(u32, String)>();
    host.release(1);
    messages.next().unwrap().unwrap();
    let next = pool.submit(double::later(3)).unwrap();
    assert!(future.cancel());
    assert_eq!(next.wait().unwrap(), 6);
    assert_eq!(kind(future.wait()), Err(ErrorKind::Cancelled));
    assert!(messages.count() < MANY as usize);
    end(pool);
}
