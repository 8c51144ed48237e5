use std::time::{Duration, Instant};

use super::state::{Action, CLOSED, Event, Kind, State, UNASKED, Why};
use crate::ids::WorkerId;
use crate::sys::ExitStatus;

const ID: WorkerId = WorkerId(7);
const LIMIT: Duration = Duration::from_secs(10);
const GRACE: Duration = Duration::from_millis(500);
const SEGV: ExitStatus = ExitStatus::Signaled {
    signal: 11,
    core: true,
};

/// One worker, and what was decided about it.
#[derive(Clone)]
struct Story {
    state: State,
    now: Instant,
    actions: Vec<Action>,
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Happens(Event),
    /// The clock reaches the next deadline, if there is one.
    TimePasses,
}
use Step::{Happens, TimePasses};

impl Story {
    fn begin(limit: Option<Duration>, grace: Duration, kind: Kind) -> Story {
        let mut story = Story {
            state: State::default(),
            now: Instant::now(),
            actions: Vec::new(),
        };
        story.step(&Happens(Event::Submitted { limit, grace, kind }));
        story
    }

    fn step(&mut self, step: &Step) {
        match step {
            Happens(event) => self.state.handle(ID, event.clone(), self.now, &mut self.actions),
            TimePasses => {
                if let Some(deadline) = self.state.next_deadline() {
                    self.now = deadline;
                    self.state.tick(deadline, &mut self.actions);
                    assert_ne!(
                        self.state.next_deadline(),
                        Some(deadline),
                        "the clock would not get on"
                    );
                }
            }
        }
    }

    fn finishes(&self) -> Vec<&Why> {
        self.actions
            .iter()
            .filter_map(|action| match action {
                Action::Finish(ID, why) => Some(why),
                _ => None,
            })
            .collect()
    }

    fn count(&self, wanted: &Action) -> usize {
        self.actions.iter().filter(|action| *action == wanted).count()
    }
}

fn check(steps: &[Step], wanted: &[Action]) {
    let mut story = Story::begin(Some(LIMIT), GRACE, Kind::Process);
    steps.iter().for_each(|step| story.step(step));
    assert_eq!(story.actions, wanted, "after {steps:?}");
}

fn exits(status: ExitStatus) -> Step {
    Happens(Event::Exited(status))
}

#[test]
fn each_ending_is_what_happened_first() {
    use Action::{Finish, Kill, Release, Terminate};
    let launched = || Happens(Event::Launched);
    let replied = || Happens(Event::Replied);
    let cancelled = || Happens(Event::Cancelled);
    let done = exits(ExitStatus::Exited(0));

    check(
        &[launched(), replied(), done.clone()],
        &[Finish(ID, Why::Answered), Release(ID)],
    );
    // The answer may come before the word that the worker exists.
    check(
        &[replied(), launched(), done.clone()],
        &[Finish(ID, Why::Answered), Release(ID)],
    );
    check(
        &[launched(), exits(SEGV)],
        &[Finish(ID, Why::Died(SEGV)), Release(ID)],
    );
    check(&[exits(SEGV)], &[Finish(ID, Why::Died(SEGV)), Release(ID)]);
    check(
        &[Happens(Event::LaunchFailed)],
        &[Finish(ID, Why::LaunchFailed), Release(ID)],
    );
    // A result that comes too late is thrown away.
    check(
        &[launched(), TimePasses, replied(), done.clone()],
        &[Terminate(ID), Finish(ID, Why::TimedOut(LIMIT)), Release(ID)],
    );
    check(
        &[launched(), TimePasses, TimePasses, exits(SEGV)],
        &[
            Terminate(ID),
            Kill(ID),
            Finish(ID, Why::TimedOut(LIMIT)),
            Release(ID),
        ],
    );
    check(
        &[launched(), cancelled(), replied(), TimePasses, exits(SEGV)],
        &[Terminate(ID), Kill(ID), Finish(ID, Why::Cancelled), Release(ID)],
    );
    // A launch that is taken back, or that fails anyhow.
    check(
        &[cancelled(), Happens(Event::LaunchFailed)],
        &[Terminate(ID), Finish(ID, Why::Cancelled), Release(ID)],
    );
    check(
        &[cancelled(), launched(), exits(SEGV)],
        &[Terminate(ID), Finish(ID, Why::Cancelled), Release(ID)],
    );
    // Cancelled too late.
    check(
        &[launched(), replied(), cancelled(), done.clone()],
        &[Finish(ID, Why::Answered), Release(ID)],
    );
    // Answered, and does not leave.
    check(
        &[launched(), replied(), TimePasses, exits(SEGV)],
        &[Finish(ID, Why::Answered), Kill(ID), Release(ID)],
    );
    // Answered, and has a reason to stay.
    check(
        &[
            launched(),
            Happens(Event::Lingers),
            replied(),
            TimePasses,
            done.clone(),
        ],
        &[Finish(ID, Why::Answered), Release(ID)],
    );
    // A closed channel is how every worker ends; only one that goes on is accused of it.
    check(
        &[launched(), Happens(Event::Closed), exits(SEGV)],
        &[Finish(ID, Why::Died(SEGV)), Release(ID)],
    );
    let garbage = Why::Garbage("x".into());
    check(
        &[launched(), Happens(Event::Broken(garbage.clone())), exits(SEGV)],
        &[Kill(ID), Finish(ID, garbage), Release(ID)],
    );
    check(
        &[launched(), Happens(Event::Lost("gone".into())), exits(SEGV)],
        &[Finish(ID, Why::Lost("gone".into())), Release(ID)],
    );
}

#[test]
fn a_closed_channel_without_an_exit_is_killed() {
    let mut story = Story::begin(None, GRACE, Kind::Process);
    for step in [
        Happens(Event::Launched),
        Happens(Event::Closed),
        TimePasses,
        TimePasses,
        exits(SEGV),
    ] {
        story.step(&step);
    }
    assert!(
        matches!(story.finishes()[..], [Why::Garbage(_)]),
        "{:?}",
        story.actions
    );
    assert_eq!(story.count(&Action::Kill(ID)), 1);
}

#[test]
fn time_counts_from_the_launch() {
    let mut story = Story::begin(Some(LIMIT), GRACE, Kind::Process);
    assert_eq!(story.state.next_deadline(), None);
    story.now += LIMIT * 3;
    story.step(&Happens(Event::Launched));
    assert_eq!(story.state.next_deadline(), Some(story.now + LIMIT));
}

#[test]
fn without_grace_the_first_word_is_kill() {
    let mut story = Story::begin(Some(LIMIT), Duration::ZERO, Kind::Process);
    for step in [Happens(Event::Launched), TimePasses, exits(SEGV)] {
        story.step(&step);
    }
    assert_eq!(
        story.actions,
        [
            Action::Kill(ID),
            Action::Finish(ID, Why::TimedOut(LIMIT)),
            Action::Release(ID)
        ]
    );
}

#[test]
fn a_process_that_does_not_die_keeps_no_future_waiting() {
    let mut story = Story::begin(Some(LIMIT), GRACE, Kind::Process);
    for step in [Happens(Event::Launched), TimePasses, TimePasses, TimePasses] {
        story.step(&step);
    }
    assert_eq!(story.finishes(), [&Why::TimedOut(LIMIT)]);
    assert_eq!(story.count(&Action::Release(ID)), 0);
    story.step(&exits(SEGV));
    assert_eq!(story.finishes().len(), 1);
    assert_eq!(story.count(&Action::Release(ID)), 1);
}

#[test]
fn a_thread_is_left_alone_when_its_time_is_up() {
    let mut story = Story::begin(Some(LIMIT), GRACE, Kind::Thread);
    story.step(&TimePasses);
    assert_eq!(
        story.actions,
        [Action::Finish(ID, Why::TimedOut(LIMIT)), Action::Release(ID)]
    );
    story.step(&exits(ExitStatus::Unknown));
    assert_eq!(story.actions.len(), 2);
}

/// Everything that can happen, in every order, each once: a worker is finished exactly once and released exactly once,
/// nothing is said of it afterwards, and no deadline is left behind.
#[test]
fn every_order_of_events_ends_once() {
    let happenings = [
        Happens(Event::Awaited),
        Happens(Event::Launched),
        Happens(Event::Replied),
        Happens(Event::Cancelled),
        Happens(Event::Closed),
        Happens(Event::Lingers),
        Happens(Event::Broken(Why::Garbage("x".into()))),
        TimePasses,
    ];
    let endings = [
        Happens(Event::Exited(ExitStatus::Exited(0))),
        Happens(Event::Exited(SEGV)),
        Happens(Event::Lost("gone".into())),
        Happens(Event::LaunchFailed),
    ];
    let mut orders = 0;
    for limit in [None, Some(LIMIT)] {
        for grace in [Duration::ZERO, GRACE] {
            permute(&happenings, &mut Vec::new(), &mut |before| {
                for ending in &endings {
                    let mut story = Story::begin(limit, grace, Kind::Process);
                    before.iter().for_each(|step| story.step(step));
                    assert_eq!(story.count(&Action::Release(ID)), 0, "released alive: {before:?}");
                    story.step(ending);
                    let said = story.actions.clone();
                    assert_eq!(story.finishes().len(), 1, "{before:?} {ending:?}: {said:?}");
                    assert_eq!(
                        story.count(&Action::Release(ID)),
                        1,
                        "{before:?} {ending:?}: {said:?}"
                    );
                    assert_eq!(said.last(), Some(&Action::Release(ID)), "{before:?} {ending:?}");
                    assert_eq!(story.state.next_deadline(), None, "{before:?} {ending:?}");
                    expect_first_decider(before, ending, story.finishes()[0]);
                    for step in before.iter().chain(&endings) {
                        story.step(step);
                    }
                    assert_eq!(story.actions, said, "{before:?} {ending:?}");
                    orders += 1;
                }
            });
        }
    }
    assert!(orders > 100_000, "{orders}");
}

/// The answer counts if it came before everything that condemns the worker.
fn expect_first_decider(before: &[Step], ending: &Step, why: &Why) {
    let decider = before.iter().find(|step| {
        matches!(
            step,
            Happens(Event::Replied | Event::Cancelled | Event::Broken(_)) | Happens(Event::Closed)
        )
    });
    match decider {
        // Time may have decided before.
        _ if matches!(why, Why::TimedOut(_) | Why::NotLaunched(_)) => {}
        Some(Happens(Event::Replied)) => assert_eq!(*why, Why::Answered),
        Some(Happens(Event::Cancelled)) => assert_eq!(*why, Why::Cancelled),
        Some(Happens(Event::Broken(garbage))) => assert_eq!(why, garbage),
        Some(_) => assert_ne!(*why, Why::Answered, "nothing arrives on a closed channel"),
        None => match ending {
            Happens(Event::Exited(status)) => assert_eq!(*why, Why::Died(*status)),
            Happens(Event::Lost(what)) => assert_eq!(*why, Why::Lost(what.clone())),
            _ => assert_eq!(*why, Why::LaunchFailed),
        },
    }
}

/// Every ordered selection, of any length.
fn permute(left: &[Step], chosen: &mut Vec<Step>, each: &mut impl FnMut(&[Step])) {
    each(chosen);
    for (at, step) in left.iter().enumerate() {
        // Two equal steps make the same orders.
        if left[..at].contains(step) {
            continue;
        }
        let mut rest = left.to_vec();
        rest.remove(at);
        chosen.push(step.clone());
        permute(&rest, chosen, each);
        chosen.pop();
    }
}

// --- workers of pools ---

fn check_pooled(kind: Kind, steps: &[Step], wanted: &[Action]) {
    let mut story = Story::begin(None, GRACE, kind);
    steps.iter().for_each(|step| story.step(step));
    assert_eq!(story.actions, wanted, "after {steps:?}");
}

fn assigned() -> Step {
    Happens(Event::Assigned {
        limit: Some(LIMIT),
        grace: GRACE,
    })
}

#[test]
fn worker_of_a_pool_has_one_finish_for_each_task() {
    use Action::{Finish, Idle, Kill, Release, Terminate, Unfit};
    let pooled = |steps: &[Step], wanted: &[Action]| check_pooled(Kind::Pooled, steps, wanted);
    let launched = || Happens(Event::Launched);
    let replied = || Happens(Event::Replied);
    let closed = || Happens(Event::Closed);
    let cancelled = || Happens(Event::Cancelled);
    let dismissed = || Happens(Event::Dismissed);
    let discarded = || Happens(Event::Discarded);
    let done = exits(ExitStatus::Exited(0));
    let answered = || Finish(ID, Why::Answered);

    // A whole life.
    pooled(
        &[
            launched(),
            assigned(),
            replied(),
            assigned(),
            replied(),
            dismissed(),
            closed(),
            done.clone(),
        ],
        &[Idle(ID), answered(), Idle(ID), answered(), Idle(ID), Release(ID)],
    );
    // It dies in its second task, or between two.
    pooled(
        &[launched(), assigned(), replied(), assigned(), exits(SEGV)],
        &[
            Idle(ID),
            answered(),
            Idle(ID),
            Finish(ID, Why::Died(SEGV)),
            Release(ID),
        ],
    );
    pooled(
        &[launched(), assigned(), replied(), exits(SEGV)],
        &[
            Idle(ID),
            answered(),
            Idle(ID),
            Finish(ID, Why::Died(SEGV)),
            Release(ID),
        ],
    );
    // An idle one that closes its channel is used no more, and killed if it stays.
    pooled(
        &[
            launched(),
            closed(),
            assigned(),
            TimePasses,
            TimePasses,
            exits(SEGV),
        ],
        &[
            Idle(ID),
            Unfit(ID),
            Terminate(ID),
            Kill(ID),
            Finish(ID, Why::Garbage(CLOSED.into())),
            Release(ID),
        ],
    );
    // So is one that speaks without having been asked.
    pooled(
        &[launched(), replied(), exits(SEGV)],
        &[
            Idle(ID),
            Unfit(ID),
            Kill(ID),
            Finish(ID, Why::Garbage(UNASKED.into())),
            Release(ID),
        ],
    );
    // A time limit is that of its task: none is left for the next, nor for nobody.
    pooled(
        &[launched(), assigned(), replied(), TimePasses],
        &[Idle(ID), answered(), Idle(ID)],
    );
    pooled(
        &[
            launched(),
            assigned(),
            TimePasses,
            replied(),
            TimePasses,
            exits(SEGV),
        ],
        &[
            Idle(ID),
            Terminate(ID),
            Kill(ID),
            Finish(ID, Why::TimedOut(LIMIT)),
            Release(ID),
        ],
    );
    // Cancelled when the task had ended: the worker lives on. Cancelled before: it does not.
    pooled(
        &[
            launched(),
            assigned(),
            replied(),
            cancelled(),
            assigned(),
            replied(),
        ],
        &[Idle(ID), answered(), Idle(ID), answered(), Idle(ID)],
    );
    pooled(
        &[launched(), assigned(), cancelled(), replied(), exits(SEGV)],
        &[Idle(ID), Terminate(ID), Finish(ID, Why::Cancelled), Release(ID)],
    );
    // Not wanted, at each moment of its life.
    pooled(
        &[discarded(), launched(), exits(SEGV)],
        &[Terminate(ID), Finish(ID, Why::Cancelled), Release(ID)],
    );
    pooled(
        &[launched(), discarded(), TimePasses, exits(SEGV)],
        &[
            Idle(ID),
            Terminate(ID),
            Kill(ID),
            Finish(ID, Why::Cancelled),
            Release(ID),
        ],
    );
    pooled(
        &[launched(), dismissed(), discarded(), TimePasses, exits(SEGV)],
        &[Idle(ID), Kill(ID), Release(ID)],
    );
    // A child of a task that was detached keeps the worker as long as it lives.
    pooled(
        &[
            launched(),
            assigned(),
            Happens(Event::Lingers),
            replied(),
            dismissed(),
            TimePasses,
            done,
        ],
        &[Idle(ID), answered(), Idle(ID), Release(ID)],
    );
}

#[test]
fn thread_of_a_pool_is_left_alone() {
    use Action::{Finish, Idle, Release};
    let thread = |steps: &[Step], wanted: &[Action]| check_pooled(Kind::PooledThread, steps, wanted);
    let answered = || Finish(ID, Why::Answered);
    thread(
        &[assigned(), Happens(Event::Replied), Happens(Event::Dismissed)],
        &[Idle(ID), answered(), Idle(ID), Release(ID)],
    );
    thread(
        &[assigned(), TimePasses, Happens(Event::Replied)],
        &[Idle(ID), Finish(ID, Why::TimedOut(LIMIT)), Release(ID)],
    );
    thread(
        &[assigned(), Happens(Event::Discarded), Happens(Event::Replied)],
        &[Idle(ID), Finish(ID, Why::Cancelled), Release(ID)],
    );
    thread(
        &[Happens(Event::Discarded)],
        &[Idle(ID), Finish(ID, Why::Cancelled), Release(ID)],
    );
}

/// Everything that can happen to a worker of a pool, in every order, each once and `assigned` twice: one finish for each
/// task that it got, at most one more, one release, nothing after that; and it never waits for ever once its end was
/// decided.
#[test]
fn every_order_of_events_finishes_each_task_of_a_pool_once() {
    let happenings = [
        assigned(),
        Happens(Event::Replied),
        Happens(Event::Closed),
        Happens(Event::Cancelled),
        Happens(Event::Discarded),
        Happens(Event::Dismissed),
        assigned(),
        TimePasses,
    ];
    let endings = [
        Happens(Event::Exited(ExitStatus::Exited(0))),
        Happens(Event::Lost("gone".into())),
    ];
    let mut orders = 0;
    for (kind, is_launched) in [
        (Kind::Pooled, false),
        (Kind::Pooled, true),
        (Kind::PooledThread, true),
    ] {
        permute(&happenings, &mut Vec::new(), &mut |before| {
            let mut life = Life::begin(kind, is_launched);
            before.iter().for_each(|step| life.step(step));
            // A process that hangs in the kernel may outlive what was decided, but keeps nobody waiting.
            let mut hung = Life::begin(kind, is_launched);
            before.iter().for_each(|step| hung.step(step));
            for _ in 0..5 {
                hung.step(&TimePasses);
            }
            let is_condemned = hung.story.count(&Action::Kill(ID)) > 0;
            assert!(
                !is_condemned || !hung.has_task,
                "{before:?}: {:?}",
                hung.story.actions
            );
            assert_eq!(hung.story.state.next_deadline(), None, "{before:?}");
            for ending in &endings {
                let mut life = life.clone();
                life.step(ending);
                assert!(!life.has_task, "{before:?} {ending:?}: {:?}", life.story.actions);
                let said = life.story.actions.clone();
                assert_eq!(life.releases, 1, "{before:?} {ending:?}: {said:?}");
                assert_eq!(said.last(), Some(&Action::Release(ID)));
                assert_eq!(life.story.state.next_deadline(), None, "{before:?} {ending:?}");
                for step in before.iter().chain(&endings) {
                    life.story.step(step);
                }
                assert_eq!(life.story.actions, said, "{before:?} {ending:?}");
                orders += 1;
            }
        });
    }
    assert!(orders > 100_000, "{orders}");
}

/// A worker of a pool, and what its pool knows of it.
#[derive(Clone)]
struct Life {
    story: Story,
    /// Of the actions.
    seen: usize,
    is_idle: bool,
    was_idle: bool,
    has_task: bool,
    /// It ended without a task, or was about to.
    has_ended: bool,
    releases: u32,
}

impl Life {
    fn begin(kind: Kind, is_launched: bool) -> Life {
        let mut life = Life {
            story: Story::begin(None, GRACE, kind),
            seen: 0,
            is_idle: false,
            was_idle: false,
            has_task: false,
            has_ended: false,
            releases: 0,
        };
        if is_launched && kind == Kind::Pooled {
            life.story.step(&Happens(Event::Launched));
        }
        life.look();
        life
    }

    fn step(&mut self, step: &Step) {
        match step {
            // A pool gives a task to an idle worker only; and none is dismissed that is busy.
            Happens(Event::Assigned { .. }) if !self.is_idle => return,
            Happens(Event::Dismissed) if !self.is_idle => return,
            Happens(Event::Assigned { .. }) => (self.is_idle, self.has_task) = (false, true),
            Happens(Event::Dismissed) => (self.is_idle, self.has_ended) = (false, true),
            _ => {}
        }
        self.story.step(step);
        self.look();
    }

    fn look(&mut self) {
        for action in &self.story.actions[self.seen..] {
            assert_eq!(self.releases, 0, "after the release: {action:?}");
            match action {
                Action::Idle(ID) => {
                    assert!(!self.is_idle && !self.has_task && !self.has_ended);
                    (self.is_idle, self.was_idle) = (true, true);
                }
                Action::Unfit(ID) => {
                    assert!(self.is_idle);
                    self.is_idle = false;
                }
                Action::Finish(ID, why) => {
                    // One that cannot be set up says so before anything else is known of it.
                    let is_answer = *why == Why::Answered && self.was_idle;
                    assert!(self.has_task || !is_answer, "an answer to nothing");
                    assert!(self.has_task || !self.has_ended, "one finish too many");
                    self.has_ended |= !is_answer;
                    self.has_task = false;
                }
                Action::Terminate(ID) | Action::Kill(ID) => self.is_idle = false,
                Action::Release(ID) => {
                    assert!(!self.has_task);
                    self.releases += 1;
                    self.is_idle = false;
                }
                other => unreachable!("{other:?} of another worker"),
            }
        }
        self.seen = self.story.actions.len();
    }
}

// --- workers that are made before their calls ---

#[test]
fn worker_that_is_ready_becomes_that_of_its_call() {
    use Action::{Finish, Idle, Kill, Release, Terminate, Unfit};
    let ready = |steps: &[Step], wanted: &[Action]| check_pooled(Kind::Ready, steps, wanted);
    let launched = || Happens(Event::Launched);
    let replied = || Happens(Event::Replied);
    let closed = || Happens(Event::Closed);
    let done = exits(ExitStatus::Exited(0));
    let answered = || Finish(ID, Why::Answered);

    // Called when it is there, or while it is made.
    ready(
        &[launched(), assigned(), replied(), done.clone()],
        &[Idle(ID), answered(), Release(ID)],
    );
    ready(
        &[assigned(), launched(), replied(), done.clone()],
        &[answered(), Release(ID)],
    );
    ready(
        &[assigned(), replied(), launched(), done.clone()],
        &[answered(), Release(ID)],
    );
    // One that does not leave after its answer.
    ready(
        &[launched(), assigned(), replied(), TimePasses, exits(SEGV)],
        &[Idle(ID), answered(), Kill(ID), Release(ID)],
    );
    // The limit is that of the call, from the moment that the worker is there.
    let timed_out = [Terminate(ID), Finish(ID, Why::TimedOut(LIMIT)), Release(ID)];
    ready(
        &[launched(), TimePasses, assigned(), TimePasses, exits(SEGV)],
        &[&[Idle(ID)], &timed_out[..]].concat(),
    );
    ready(&[assigned(), launched(), TimePasses, exits(SEGV)], &timed_out);
    ready(
        &[launched(), assigned(), Happens(Event::Cancelled), exits(SEGV)],
        &[Idle(ID), Terminate(ID), Finish(ID, Why::Cancelled), Release(ID)],
    );
    // It is not made.
    ready(
        &[assigned(), Happens(Event::LaunchFailed)],
        &[Finish(ID, Why::LaunchFailed), Release(ID)],
    );
    // It ends without a call, or is not wanted any more: that concerns nobody.
    ready(
        &[launched(), exits(SEGV)],
        &[Idle(ID), Finish(ID, Why::Died(SEGV)), Release(ID)],
    );
    for before in [&[launched()][..], &[]] {
        let idle: &[Action] = if before.is_empty() { &[] } else { &[Idle(ID)] };
        ready(
            &[before, &[Happens(Event::Discarded), assigned(), done.clone()]].concat(),
            &[idle, &[Terminate(ID), Finish(ID, Why::Cancelled), Release(ID)]].concat(),
        );
    }
    // One that speaks without having been called is called no more.
    ready(
        &[launched(), replied(), assigned(), exits(SEGV)],
        &[
            Idle(ID),
            Unfit(ID),
            Kill(ID),
            Finish(ID, Why::Garbage(UNASKED.into())),
            Release(ID),
        ],
    );
    ready(
        &[launched(), closed(), assigned(), exits(SEGV)],
        &[Idle(ID), Unfit(ID), Finish(ID, Why::Died(SEGV)), Release(ID)],
    );
}

/// Everything that can happen to a worker that is made before its call, in every order: one finish, one release, nothing
/// after that, and a call is awaited only by one that is launched or idle.
#[test]
fn every_order_of_events_ends_a_ready_worker_once() {
    let happenings = [
        Happens(Event::Awaited),
        Happens(Event::Launched),
        assigned(),
        Happens(Event::Replied),
        Happens(Event::Cancelled),
        Happens(Event::Closed),
        Happens(Event::Discarded),
        TimePasses,
    ];
    let endings = [
        Happens(Event::Exited(ExitStatus::Exited(0))),
        Happens(Event::Lost("gone".into())),
        Happens(Event::LaunchFailed),
    ];
    let mut orders = 0;
    permute(&happenings, &mut Vec::new(), &mut |before| {
        let mut story = Story::begin(None, GRACE, Kind::Ready);
        let mut is_called = false;
        for step in before {
            let awaited = story.state.awaits_call(ID);
            let was_answered = story.finishes().contains(&&Why::Answered);
            // The event loop calls only one that awaits it, and discards only one without a call.
            match step {
                Happens(Event::Assigned { .. }) if !awaited => continue,
                Happens(Event::Assigned { .. }) => is_called = true,
                Happens(Event::Discarded) if is_called => continue,
                _ => {}
            }
            story.step(step);
            assert!(!is_called || !story.state.awaits_call(ID), "{before:?}");
            assert!(
                is_called
                    || was_answered
                    || !matches!(story.actions.last(), Some(Action::Idle(_)))
                    || story.state.awaits_call(ID),
                "{before:?}"
            );
        }
        for ending in &endings {
            let mut story = story.clone();
            story.step(ending);
            let said = story.actions.clone();
            assert_eq!(story.finishes().len(), 1, "{before:?} {ending:?}: {said:?}");
            assert_eq!(
                story.count(&Action::Release(ID)),
                1,
                "{before:?} {ending:?}: {said:?}"
            );
            assert_eq!(said.last(), Some(&Action::Release(ID)), "{before:?} {ending:?}");
            assert_eq!(story.state.next_deadline(), None, "{before:?} {ending:?}");
            for step in before.iter().chain(&endings) {
                story.step(step);
            }
            assert_eq!(story.actions, said, "{before:?} {ending:?}");
            orders += 1;
        }
    });
    assert!(orders > 100_000, "{orders}");
}

mod with_processes {
    use super::super::context::{Command, send_for_test};
    use crate::ids::Name;
    use crate::options::{Options, StartMethod};
    use crate::{Call, ErrorKind, Limiter, Pool, Shutdown, TaskFuture, wait_idle};
    use serial_test::serial;
    use std::time::Duration;

    /// 1. Tasks run. 2. The supervisor panics. 3. Their futures fail, their processes are gone. 4. The next call works.
    #[test]
    #[serial(supervisor)]
    fn a_panic_of_the_supervisor_fails_all_futures_and_is_survived() {
        for method in [StartMethod::ForkServer, StartMethod::Spawn] {
            assert_eq!(start(method, double, 4).wait().unwrap(), 8);
            let pending: Vec<_> = (0..3).map(|x| start(method, forever, x)).collect();
            send_for_test(Command::Panic);
            for future in pending {
                let error = future.wait().unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Lost, "{error}");
                assert!(error.to_string().contains("a test asked for it"), "{error}");
            }
            assert_eq!(start(method, double, 5).wait().unwrap(), 10);
            assert!(wait_idle(Duration::from_secs(60)));
        }
    }

    /// As above, with tasks wherever a pool can have them. The pool is gone with its supervisor, and nobody waits for it in
    /// vain; another one works.
    #[test]
    #[serial(supervisor)]
    fn a_panic_of_the_supervisor_fails_all_tasks_of_pools() {
        for method in [StartMethod::ForkServer, StartMethod::Spawn] {
            let new = || Pool::builder().workers(1).start(method).build().unwrap();
            let limiter = Limiter::new(1);
            let permit = limiter.acquire();
            let (pool, empty) = (new(), new());
            assert_eq!(pool.submit(later(double, 4)).unwrap().wait().unwrap(), 8);
            let limited = Options::new().limit(&limiter);
            let again = Options::new().retries(2).backoff(Duration::from_secs(1000));
            let calls = [
                later(forever, 1),
                later(forever, 2),
                later(forever, 3).with(limited),
                later(forever, 4).with(again),
            ];
            let pending = calls.map(|call| pool.submit(call).unwrap());
            send_for_test(Command::Panic);
            for future in pending {
                let error = future.wait().unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Lost, "{error}");
            }
            assert!(pool.wait_idle(None).is_some());
            for pool in [pool, empty] {
                // Whoever submits now hears of it, and so does the pool.
                let error = pool
                    .submit(later(double, 4))
                    .and_then(TaskFuture::wait)
                    .unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Lost, "{error}");
                assert!(pool.shutdown(Shutdown::Kill, None));
                assert!(pool.workers().is_empty());
            }
            drop(permit);
            let pool = new();
            assert_eq!(pool.submit(later(double, 5)).unwrap().wait().unwrap(), 10);
            assert!(pool.join(None));
        }
    }

    fn later<F: Fn(u64) -> u64 + Copy>(task: F, x: u64) -> Call<u64> {
        let name = Name {
            module: "tests",
            function: "task",
        };
        let encode = |(x,): (u64,), bytes: &mut crate::wire::Encoded| crate::private::encode(&x, bytes);
        crate::task::later(
            Options::new(),
            name,
            (x,),
            encode,
            crate::private::decode::<u64>,
            task,
        )
    }

    fn start<F: Fn(u64) -> u64 + Copy>(method: StartMethod, task: F, x: u64) -> TaskFuture<u64> {
        let name = Name {
            module: "tests",
            function: "task",
        };
        let options = Options::new().start(method);
        let encode = |(x,): (u64,), bytes: &mut crate::wire::Encoded| crate::private::encode(&x, bytes);
        crate::task::start(
            options,
            name,
            (x,),
            encode,
            crate::private::decode::<u64>,
            |(x,)| task(x),
            task,
        )
    }

    fn double(x: u64) -> u64 {
        x * 2
    }

    fn forever(_: u64) -> u64 {
        loop {
            std::thread::park();
        }
    }
}
