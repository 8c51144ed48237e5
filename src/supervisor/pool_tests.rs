use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::pool_state::{Doing, PoolAction, PoolState, Rules, Shutdown};
use crate::ids::{Rank, WorkerId};

const IDLE: Duration = Duration::from_secs(10);

fn rules(min_workers: usize, max_workers: usize) -> Rules {
    Rules {
        min_workers,
        max_workers,
        idle_timeout: IDLE,
        max_tasks_per_worker: None,
        queue: None,
        has_init: false,
        has_exit: false,
    }
}

/// Something that callers or workers do. A worker is named by what it does: several of a kind are alike.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    /// A task with this priority.
    Push(i32),
    /// A task whose attempt failed comes back after a second.
    PushLater,
    /// The task that was queued first and has not begun is cancelled.
    TakeBack,
    /// The oldest worker that does this is done with it.
    Ready(Doing),
    /// The oldest worker that does this dies.
    Gone(Doing),
    Unfit,
    Resize(usize),
    Close(Shutdown),
    /// The clock reaches the next deadline, if there is one.
    TimePasses,
}
use Step::{Close, Gone, Push, PushLater, Ready, Resize, TakeBack, TimePasses, Unfit};

/// One pool, and what became of its tasks and workers.
struct Story {
    state: PoolState<u32>,
    now: Instant,
    next_worker: u64,
    next_task: u32,
    ranks: BTreeMap<Rank, u32>,
    /// Who has a task.
    running: BTreeMap<WorkerId, u32>,
    /// Tasks that were run, or given back with an error, or taken back.
    ended: Vec<u32>,
    /// Workers that were launched and are not gone.
    alive: Vec<WorkerId>,
    said: Vec<String>,
    overs: u32,
}

impl Story {
    fn begin(rules: Rules, prestart: usize) -> Story {
        let mut story = Story {
            state: PoolState::new(rules, prestart),
            now: Instant::now(),
            next_worker: 1,
            next_task: 1,
            ranks: BTreeMap::new(),
            running: BTreeMap::new(),
            ended: Vec::new(),
            alive: Vec::new(),
            said: Vec::new(),
            overs: 0,
        };
        story.decide(None);
        story
    }

    /// False: nobody does that.
    fn step(&mut self, step: Step) -> bool {
        let mut first = None;
        match step {
            Push(priority) => {
                if self.state.closing.is_some() || self.state.is_broken() {
                    return false;
                }
                let task = self.next_task();
                self.state.begun();
                let rank = self.state.next_rank(priority);
                self.state.push(rank, task);
                self.ranks.insert(rank, task);
            }
            // A task that was let in before: also when the pool is closed by now.
            PushLater => {
                if self.overs > 0 {
                    return false;
                }
                let task = self.next_task();
                self.state.begun();
                let rank = self.state.next_rank(0);
                self.state
                    .push_later(self.now + Duration::from_secs(1), rank, task);
                self.ranks.insert(rank, task);
            }
            TakeBack => {
                let Some((rank, task)) = self.ranks.pop_first() else {
                    return false;
                };
                assert_eq!(
                    self.state.remove(rank),
                    Some(task),
                    "what waits can be taken back"
                );
                assert_eq!(self.state.remove(rank), None);
                self.end(task);
            }
            Ready(doing) => {
                let Some(id) = self.oldest(doing) else {
                    return false;
                };
                if let Some(task) = self.running.remove(&id) {
                    self.end(task);
                }
                first = self.state.ready(id, self.now);
            }
            Gone(doing) => {
                let Some(id) = self.oldest(doing) else {
                    return false;
                };
                if let Some(task) = self.running.remove(&id) {
                    self.end(task);
                }
                self.alive.retain(|other| *other != id);
                self.state.gone(id, self.now);
                // Nothing more is known of it.
                assert_eq!(self.state.ready(id, self.now), None);
                self.state.gone(id, self.now);
            }
            Unfit => {
                let Some(id) = self.oldest(Doing::Idle) else {
                    return false;
                };
                self.state.unfit(id, self.now);
            }
            Resize(workers) => self.state.resize(workers),
            Close(how) => self.state.close(how),
            TimePasses => match self.state.next_deadline() {
                Some(deadline) => self.now = self.now.max(deadline),
                None => return false,
            },
        }
        self.decide(first);
        true
    }

    fn next_task(&mut self) -> u32 {
        self.next_task += 1;
        self.next_task - 1
    }

    fn end(&mut self, task: u32) {
        assert!(!self.ended.contains(&task), "task {task} ended twice");
        self.ended.push(task);
        self.state.counter().take();
    }

    fn oldest(&self, doing: Doing) -> Option<WorkerId> {
        let workers = self.state.workers().filter(|(_, worker)| worker.doing == doing);
        workers.map(|(id, _)| id).min()
    }

    /// As the supervisor does: decides until nothing is left to do, and does it.
    fn decide(&mut self, first: Option<PoolAction<u32>>) {
        let next = &mut self.next_worker;
        let new_worker = || {
            *next += 1;
            WorkerId(*next - 1)
        };
        let decided = self.state.decide(self.now, new_worker);
        assert!(
            self.overs == 0 || decided.is_empty(),
            "after the end: {decided:?}"
        );
        for action in first.into_iter().chain(decided) {
            self.note(action);
        }
        self.check();
        let again = self
            .state
            .decide(self.now, || unreachable!("a worker was wanted and not made"));
        // What was given back may have been the last that the end waited for.
        for action in again {
            assert_eq!(action, PoolAction::Over, "said twice");
            self.note(action);
        }
        let is_over = self.state.closing.is_some() && self.alive.is_empty() && self.state.outstanding() == 0;
        assert_eq!(self.overs, u32::from(is_over), "{:?}", self.said);
        assert_eq!(self.state.is_over(), is_over);
    }

    fn note(&mut self, action: PoolAction<u32>) {
        let said = match action {
            PoolAction::Launch(id) => {
                self.alive.push(id);
                format!("launch {}", id.0)
            }
            PoolAction::Init(id) => format!("init {}", id.0),
            PoolAction::Assign(id, task) => {
                assert!(self.alive.contains(&id));
                assert_eq!(self.running.insert(id, task), None, "two tasks at once");
                self.ranks.retain(|_, other| *other != task);
                format!("{task} to {}", id.0)
            }
            PoolAction::Exit(id) => format!("exit {}", id.0),
            PoolAction::Dismiss(id) => {
                assert!(!self.running.contains_key(&id), "dismissed with a task");
                format!("dismiss {}", id.0)
            }
            PoolAction::Kill(id) => format!("kill {}", id.0),
            PoolAction::Cancel(task) => {
                self.ranks.retain(|_, other| *other != task);
                self.end(task);
                format!("cancel {task}")
            }
            PoolAction::Refuse(task) => {
                self.ranks.retain(|_, other| *other != task);
                self.end(task);
                format!("refuse {task}")
            }
            PoolAction::Over => {
                self.overs += 1;
                "over".to_owned()
            }
        };
        self.said.push(said);
    }

    /// What holds whenever something was decided.
    fn check(&self) {
        let state = &self.state;
        let count = |doing| state.count(doing);
        let leaving = count(Doing::Exiting) + count(Doing::Leaving);
        let staying = self.alive.len() - leaving;
        let starting = count(Doing::Starting) + count(Doing::Initializing);
        assert_eq!(state.workers().count(), self.alive.len());
        assert!(staying <= state.rules.max_workers.max(count(Doing::Busy) + starting));
        let waiting = self.ranks.len();
        assert_eq!(
            waiting + self.running.len() + self.ended.len(),
            (self.next_task - 1) as usize,
            "a task is nowhere: {:?}",
            self.said
        );
        if state.queued() > 0 {
            assert_eq!(count(Doing::Idle), 0, "a task waits beside an idle worker");
            assert!(!state.is_broken() && state.closing <= Some(Shutdown::Finish));
            // After a failure one worker is tried at a time.
            let may_wait = staying >= state.rules.max_workers || starting >= state.queued() || starting > 0;
            assert!(
                may_wait || state.next_deadline().is_some(),
                "nobody will run what waits"
            );
        }
    }

    /// Lets everybody do what he is at, until nothing happens any more.
    fn run_out(&mut self) {
        for _ in 0..100 {
            let doings = [Doing::Starting, Doing::Initializing, Doing::Busy, Doing::Exiting];
            let mut has_moved = doings.into_iter().any(|doing| self.step(Ready(doing)));
            has_moved = has_moved || self.step(Gone(Doing::Leaving)) || self.step(TimePasses);
            if !has_moved {
                return;
            }
        }
        panic!("it never comes to rest: {:?}", self.said);
    }
}

/// What is decided in the course of these steps, each of which must be possible.
fn check(rules: Rules, steps: &[Step], wanted: &[&str]) {
    check_started(rules, 0, steps, wanted);
}

fn check_started(rules: Rules, prestart: usize, steps: &[Step], wanted: &[&str]) {
    let mut story = Story::begin(rules, prestart);
    for step in steps {
        assert!(
            story.step(*step),
            "{step:?} of {steps:?} is impossible: {:?}",
            story.said
        );
    }
    assert_eq!(story.said, wanted, "after {steps:?}");
}

const START: Step = Ready(Doing::Starting);
const DONE: Step = Ready(Doing::Busy);

#[test]
fn workers_are_made_as_they_are_needed() {
    // One for each task that waits, up to the bound.
    check(rules(0, 2), &[], &[]);
    check(
        rules(0, 2),
        &[Push(0), Push(0), Push(0), START, START, DONE],
        &["launch 1", "launch 2", "1 to 1", "2 to 2", "3 to 1"],
    );
    // A worker that is free is as good as a new one.
    check(
        rules(0, 4),
        &[Push(0), START, DONE, Push(0), DONE, Push(0)],
        &["launch 1", "1 to 1", "2 to 1", "3 to 1"],
    );
    // A task that is gone before its worker is there leaves an idle one.
    check(
        rules(0, 2),
        &[Push(0), TakeBack, START, TimePasses],
        &["launch 1", "dismiss 1"],
    );
    // Made though nobody needs them.
    check_started(rules(0, 2), 2, &[START], &["launch 1", "launch 2"]);
    check(rules(1, 2), &[START], &["launch 1"]);
}

#[test]
fn smaller_priorities_go_first_and_equal_ones_in_order() {
    check(
        rules(0, 1),
        &[
            Push(0),
            START,
            Push(5),
            Push(-1),
            Push(0),
            Push(-1),
            Push(5),
            DONE,
            DONE,
            DONE,
            DONE,
            DONE,
        ],
        &[
            "launch 1", "1 to 1", "3 to 1", "5 to 1", "4 to 1", "2 to 1", "6 to 1",
        ],
    );
}

#[test]
fn what_comes_back_later_queues_when_it_is_due() {
    check(
        rules(1, 1),
        &[START, PushLater, Push(0), TimePasses, DONE],
        &["launch 1", "2 to 1", "1 to 1"],
    );
    // A worker is made for it when it is due, not before.
    check(rules(0, 1), &[PushLater, TimePasses], &["launch 1"]);
    check(rules(0, 1), &[PushLater, TakeBack], &[]);
}

#[test]
fn worker_that_dies_is_replaced_if_there_is_work() {
    check(
        rules(0, 1),
        &[Push(0), START, Push(0), Gone(Doing::Busy), START],
        &["launch 1", "1 to 1", "launch 2", "2 to 2"],
    );
    check(
        rules(0, 1),
        &[Push(0), START, Gone(Doing::Busy)],
        &["launch 1", "1 to 1"],
    );
    check(
        rules(0, 1),
        &[Push(0), START, DONE, Gone(Doing::Idle), Push(0)],
        &["launch 1", "1 to 1", "launch 2"],
    );
    check(
        rules(1, 1),
        &[START, Gone(Doing::Idle)],
        &["launch 1", "launch 2"],
    );
    // It closed its channel: it gets nothing, and its place is free.
    check(
        rules(1, 1),
        &[START, Unfit, Push(0), START, Gone(Doing::Leaving)],
        &["launch 1", "launch 2", "1 to 2"],
    );
}

#[test]
fn idle_workers_go_when_they_are_too_many_or_idle_for_too_long() {
    // Who was idle for the longest time goes first, down to the least that is kept.
    check_started(
        rules(1, 3),
        3,
        &[START, START, START, TimePasses, Gone(Doing::Leaving)],
        &["launch 1", "launch 2", "launch 3", "dismiss 1", "dismiss 2"],
    );
    // The one that was busy last is the first to be used again.
    check_started(
        rules(0, 2),
        2,
        &[START, START, Push(0), DONE, Push(0)],
        &["launch 1", "launch 2", "1 to 2", "2 to 2"],
    );
    check_started(
        rules(0, 2),
        2,
        &[START, START, Resize(1), Resize(2), Push(0), Push(0)],
        &["launch 1", "launch 2", "dismiss 1", "1 to 2", "launch 3"],
    );
    // Nobody is taken from his task.
    check(
        rules(0, 2),
        &[Push(0), Push(0), START, START, Push(0), Resize(1), DONE, DONE],
        &["launch 1", "launch 2", "1 to 1", "2 to 2", "dismiss 1", "3 to 2"],
    );
    // `min_workers` follows.
    check_started(
        rules(2, 2),
        0,
        &[START, START, Resize(1), Gone(Doing::Leaving)],
        &["launch 1", "launch 2", "dismiss 1"],
    );
}

#[test]
fn worker_ends_after_its_last_task() {
    let spent = Rules {
        max_tasks_per_worker: Some(2),
        ..rules(0, 1)
    };
    check(
        spent,
        &[Push(0), Push(0), Push(0), START, DONE, DONE, START],
        &["launch 1", "1 to 1", "2 to 1", "dismiss 1", "launch 2", "3 to 2"],
    );
}

#[test]
fn first_and_last_calls_stand_around_the_tasks() {
    let hooks = Rules {
        has_init: true,
        has_exit: true,
        ..rules(0, 1)
    };
    let init = Ready(Doing::Initializing);
    let exit = Ready(Doing::Exiting);
    check(
        hooks.clone(),
        &[
            Push(0),
            START,
            init,
            DONE,
            Close(Shutdown::Finish),
            exit,
            Gone(Doing::Leaving),
        ],
        &["launch 1", "init 1", "1 to 1", "exit 1", "dismiss 1", "over"],
    );
    // The worker dies in one of them.
    check(
        hooks.clone(),
        &[Push(0), START, Gone(Doing::Initializing), START, init],
        &["launch 1", "init 1", "launch 2", "init 2", "1 to 2"],
    );
    check(
        hooks.clone(),
        &[
            Push(0),
            START,
            init,
            DONE,
            TimePasses,
            Gone(Doing::Exiting),
            Push(0),
        ],
        &["launch 1", "init 1", "1 to 1", "exit 1", "launch 2"],
    );
    check(
        hooks,
        &[
            Push(0),
            START,
            init,
            DONE,
            Close(Shutdown::Finish),
            Close(Shutdown::Kill),
            Gone(Doing::Leaving),
        ],
        &["launch 1", "init 1", "1 to 1", "exit 1", "kill 1", "over"],
    );
}

#[test]
fn launches_that_fail_are_tried_again_and_given_up() {
    let fails = Gone(Doing::Starting);
    check(
        rules(0, 1),
        &[
            Push(0),
            fails,
            fails,
            TimePasses,
            fails,
            TimePasses,
            fails,
            TimePasses,
            fails,
            Close(Shutdown::Finish),
        ],
        &[
            "launch 1", "launch 2", "launch 3", "launch 4", "launch 5", "refuse 1", "over",
        ],
    );
    // One that comes up makes all well.
    check(
        rules(0, 1),
        &[
            Push(0),
            fails,
            fails,
            TimePasses,
            START,
            Gone(Doing::Busy),
            Push(0),
            fails,
            fails,
            TimePasses,
        ],
        &[
            "launch 1", "launch 2", "launch 3", "1 to 3", "launch 4", "launch 5", "launch 6",
        ],
    );
    // While another worker lives it is not given up.
    let mut steps = vec![Push(0), START, Push(0), fails, fails];
    let mut wanted: Vec<_> = ["launch 1", "1 to 1", "launch 2", "launch 3"]
        .map(str::to_owned)
        .into();
    for launch in 4..12 {
        wanted.push(format!("launch {launch}"));
        steps.extend([TimePasses, fails]);
    }
    steps.push(DONE);
    wanted.push("2 to 1".to_owned());
    let wanted: Vec<_> = wanted.iter().map(String::as_str).collect();
    check(rules(0, 2), &steps, &wanted);
}

#[test]
fn each_shutdown_does_with_the_tasks_what_it_says() {
    let both = |how, rest: &[Step]| [&[Push(0), START, Push(0), PushLater, Close(how)], rest].concat();
    let gone = Gone(Doing::Leaving);
    check(
        rules(0, 1),
        &both(
            Shutdown::Finish,
            &[DONE, DONE, gone, TimePasses, START, DONE, gone],
        ),
        &[
            "launch 1",
            "1 to 1",
            "2 to 1",
            "dismiss 1",
            "launch 2",
            "3 to 2",
            "dismiss 2",
            "over",
        ],
    );
    check(
        rules(0, 1),
        &both(Shutdown::Cancel, &[DONE, gone]),
        &["launch 1", "1 to 1", "cancel 2", "cancel 3", "dismiss 1", "over"],
    );
    check(
        rules(0, 1),
        &both(Shutdown::Kill, &[gone]),
        &["launch 1", "1 to 1", "cancel 2", "cancel 3", "kill 1", "over"],
    );
    // The harder one counts, whatever comes after it.
    check(
        rules(0, 1),
        &both(
            Shutdown::Finish,
            &[Close(Shutdown::Kill), Close(Shutdown::Finish), gone],
        ),
        &["launch 1", "1 to 1", "cancel 2", "cancel 3", "kill 1", "over"],
    );
    // Nothing to do, and nobody to do it.
    check(rules(0, 1), &[Close(Shutdown::Finish)], &["over"]);
    check_started(
        rules(1, 2),
        2,
        &[START, Close(Shutdown::Kill), gone, gone],
        &["launch 1", "launch 2", "kill 1", "kill 2", "over"],
    );
    check_started(
        rules(0, 1),
        1,
        &[Close(Shutdown::Finish), START, gone],
        &["launch 1", "dismiss 1", "over"],
    );
}

#[test]
fn abandoned_pool_gives_back_what_waits_and_is_over() {
    let mut story = Story::begin(rules(0, 1), 0);
    for step in [Push(0), START, Push(0), PushLater] {
        assert!(story.step(step));
    }
    assert_eq!(story.state.abandon(), [2, 3]);
    assert!(story.state.is_over() && story.state.is_broken());
    assert_eq!(story.state.decide(story.now, || unreachable!()), []);
    assert_eq!(story.state.next_deadline(), None);
}

/// Every short course of events, for pools of several kinds: what [`Story::check`] says holds after each, and each way to
/// end the pool ends it, with each task ended once.
#[test]
fn every_course_of_events_comes_to_an_end() {
    let hooks = Rules {
        has_init: true,
        has_exit: true,
        max_tasks_per_worker: Some(1),
        ..rules(1, 2)
    };
    let steps = [
        Push(0),
        Push(-1),
        PushLater,
        TakeBack,
        START,
        Ready(Doing::Initializing),
        DONE,
        Ready(Doing::Exiting),
        Gone(Doing::Starting),
        Gone(Doing::Idle),
        Gone(Doing::Busy),
        Unfit,
        Resize(1),
        Resize(3),
        Close(Shutdown::Finish),
        TimePasses,
    ];
    let mut courses = 0;
    for (rules, length) in [(rules(0, 1), 5), (rules(0, 2), 4), (hooks, 5)] {
        let mut course = Vec::new();
        explore(&rules, &steps, &mut course, length, &mut |course| {
            for how in [Shutdown::Finish, Shutdown::Cancel, Shutdown::Kill] {
                let mut story = replay(&rules, course);
                story.step(Close(how));
                story.run_out();
                assert_eq!(story.overs, 1, "{course:?}, {how:?}: {:?}", story.said);
                assert_eq!(story.state.outstanding(), 0);
                let mut ended = story.ended;
                ended.sort_unstable();
                assert!(ended.into_iter().eq(1..story.next_task), "{course:?}, {how:?}");
                courses += 1;
            }
        });
    }
    assert!(courses > 10_000, "{courses}");
}

fn replay(rules: &Rules, course: &[Step]) -> Story {
    let mut story = Story::begin(rules.clone(), 0);
    for step in course {
        story.step(*step);
    }
    story
}

/// Calls `each` with every course of so many possible steps.
fn explore(rules: &Rules, steps: &[Step], course: &mut Vec<Step>, left: u32, each: &mut impl FnMut(&[Step])) {
    if left == 0 {
        return each(course);
    }
    for step in steps {
        if replay(rules, course).step(*step) {
            course.push(*step);
            explore(rules, steps, course, left - 1, each);
            course.pop();
        }
    }
}

/// A pool of linked workers, each with a task at hand.
fn linked(workers: usize) -> (PoolState<u32>, Vec<WorkerId>, Instant) {
    let (mut state, now, mut next) = (PoolState::new(rules(0, workers), workers), Instant::now(), 0);
    state.decide(now, || {
        next += 1;
        WorkerId(next)
    });
    let ids: Vec<WorkerId> = (1..=workers as u64).map(WorkerId).collect();
    for (&id, task) in ids.iter().zip(0..) {
        state.ready(id, now);
        state.link(id);
        let rank = state.next_rank(0);
        state.push(rank, task);
        assert_eq!(
            state.hand(state.idle_linked().unwrap(), || now),
            Some((rank, task))
        );
    }
    (state, ids, now)
}

#[test]
fn worker_that_is_to_be_dismissed_gets_no_more_tasks() {
    let (mut state, ids, now) = linked(2);
    state.resize(1);
    state.unhand(ids[0], 1, 1, now);
    // It was one too many when it was done; that it is not any more changes nothing.
    state.resize(2);
    assert_eq!(state.idle_linked(), None);
    assert_eq!(state.room_of(ids[0]), 0);
    let actions = state.decide(now, || WorkerId(9));
    assert!(actions.contains(&PoolAction::Dismiss(ids[0])), "{actions:?}");
}

#[test]
fn tasks_at_hand_are_counted_as_waiting_behind_the_first() {
    let (mut state, ids, now) = linked(1);
    for task in 0..3 {
        let rank = state.next_rank(0);
        state.push(rank, task);
        assert!(state.hands_ahead());
        assert_eq!(state.hand(ids[0], || now).unwrap(), (rank, task));
    }
    assert_eq!((state.waiting(), state.queued(), state.queued_here()), (3, 3, 0));
    // One done, one taken back.
    state.unhand(ids[0], 2, 1, now);
    assert_eq!(state.waiting(), 1);
    state.unhand(ids[0], 2, 2, now);
    assert_eq!((state.waiting(), state.idle_linked()), (0, Some(ids[0])));
    state.gone(ids[0], now);
    assert_eq!(state.waiting(), 0);
}

#[test]
fn rest_after_failures_is_no_deadline_while_a_worker_starts() {
    let (mut now, mut next) = (Instant::now(), 0);
    let mut state = PoolState::new(rules(0, 4), 0);
    for task in 0..4 {
        let rank = state.next_rank(0);
        state.push(rank, task);
    }
    for _ in 0..3 {
        let actions = state.decide(now, || {
            next += 1;
            WorkerId(next)
        });
        for action in actions {
            if let PoolAction::Launch(id) = action {
                state.gone(id, now);
            }
        }
        now = state.next_deadline().unwrap_or(now).max(now);
    }
    // One is tried now; until it is known what becomes of it there is nothing to do.
    state.decide(now, || WorkerId(100));
    assert!(state.next_deadline().is_none_or(|deadline| deadline > now));
}
