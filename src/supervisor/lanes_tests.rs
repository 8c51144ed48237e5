use std::sync::Arc;
use std::time::Duration;

use super::lanes::{Ends, Handed, Lane, Put, Rings, Said};
use super::pools::{PoolTask, Terms};
use crate::board::{Asleep, Next};
use crate::error::{Cause, Error};
use crate::ids::{Name, Rank, TaskId, WorkerId};
use crate::options::Options;
use crate::payload::Payload;
use crate::slot::{Outcome, Slot};
use crate::sync::Now;
use crate::sys::{self, Entry, Fd, Runnable, SharedBoard};
use crate::transport::Outgoing;
use crate::wire::{Answer, Reply};
use crate::work::Work;

#[derive(Clone, Copy)]
struct Nothing;

impl Runnable<Answer> for Nothing {
    fn run(self, _: &[u8]) -> Answer {
        Reply::Returned { is_err: false }.into()
    }
}

/// A lane, whose worker is the test.
struct Story {
    lane: Lane,
    _calls: Fd,
    next: u64,
    /// Of the call that the worker comes to.
    number: u32,
    ends: Ends,
}

impl Story {
    /// `None`: this system shares no memory with workers.
    fn begin(tasks: u64) -> Option<Story> {
        let (board, _descriptor, _) = SharedBoard::new().ok()?;
        let (reader, writer) = sys::pipe().unwrap();
        writer.set_nonblocking().unwrap();
        let calls = Outgoing::new(writer);
        let terms = Arc::new(Terms::of(&Options::new()));
        let lane = Lane::new(WorkerId(1), (1, true), 1, terms, (calls, board), Duration::ZERO);
        let mut story = Story {
            lane,
            _calls: reader,
            next: 1,
            number: 0,
            ends: Ends::new(),
        };
        for _ in 0..tasks {
            story.put_up();
        }
        Some(story)
    }

    fn put_up(&mut self) {
        let slot = Slot::new(
            TaskId(self.next),
            Name {
                module: "",
                function: "nothing",
            },
        );
        let task = PoolTask {
            slot,
            work: Work {
                entry: Entry::of(Nothing),
                payload: Payload::EMPTY,
            },
            terms: None,
        };
        self.next += 1;
        assert!(matches!(
            self.lane.put_up(task, Rank::default(), &Now::default()),
            Put::Up
        ));
    }

    fn works(&mut self) {
        let next = self.lane.shared.board.begin(self.number, &mut Vec::new());
        assert!(matches!(next, Next::Call(_)), "{next:?}");
    }

    /// Whether it rings.
    fn answers(&mut self, is_here: bool) -> bool {
        let answer = is_here.then_some((false, &[7u8][..]));
        let tell = self.lane.shared.board.answer(self.number, answer);
        self.number += 1;
        tell.ring
    }

    fn take_answers(&mut self) -> usize {
        self.lane.take_answers(&mut self.ends)
    }

    fn ended(&self) -> Vec<(u64, bool)> {
        let ended = self.ends.tasks.iter();
        ended
            .map(|(slot, outcome)| (slot.id.0, matches!(outcome, Outcome::Returned { .. })))
            .collect()
    }
}

fn said() -> Said {
    Said::Returned {
        payload: Payload::EMPTY,
        is_err: false,
    }
}

fn ids(handed: &[Handed]) -> Vec<u64> {
    handed.iter().map(|handed| handed.task.slot.id.0).collect()
}

#[test]
fn an_answer_before_the_worker_was_told_to_ring_is_not_left_lying() {
    let Some(mut story) = Story::begin(4) else { return };
    // Half of them, as in a stream.
    assert!(story.lane.arm(Rings::WhenMost, 0));
    story.works();
    assert_eq!(story.take_answers(), 0);
    // Between the look and the bell.
    assert!(!story.answers(true), "it was to ring later");
    assert!(!story.lane.arm(Rings::ForEach, 0), "there is something to take");
    assert_eq!(story.take_answers(), 1);
    assert!(story.lane.arm(Rings::ForEach, 0));
    story.works();
    assert!(story.answers(true), "now it rings");
}

#[test]
fn a_worker_that_is_looked_at_all_the_time_rings_for_none_of_them() {
    let Some(mut story) = Story::begin(4) else { return };
    assert!(story.lane.arm(Rings::BeforeSleep, 0));
    for _ in 0..4 {
        story.works();
        assert!(!story.answers(true));
    }
    let board = &story.lane.shared.board;
    assert_eq!(board.fall_asleep(4, false), Asleep::RingsBefore);
    assert_eq!(story.take_answers(), 4);
    // There is nothing more to tell.
    assert!(story.lane.arm(Rings::BeforeSleep, 0));
    let board = &story.lane.shared.board;
    assert_eq!(board.fall_asleep(4, false), Asleep::Yes);
}

#[test]
fn an_answer_by_the_pipe_is_awaited_and_comes_once() {
    let Some(mut story) = Story::begin(2) else { return };
    assert!(!story.lane.hear(said()), "it has not begun");
    story.works();
    assert!(!story.lane.hear(said()), "it is not done");
    story.answers(false);
    assert_eq!(story.take_answers(), 0);
    assert!(
        story.lane.arm(Rings::ForEach, 0),
        "nothing can be taken before it is heard"
    );
    assert!(story.lane.hear(said()));
    assert!(!story.lane.hear(said()), "one answer for one call");
    assert!(!story.lane.arm(Rings::ForEach, 0));
    assert_eq!(story.take_answers(), 1);
    assert_eq!(story.ended(), [(1, true)]);
}

#[test]
fn a_worker_cannot_say_that_a_task_was_taken_back() {
    let Some(mut story) = Story::begin(2) else { return };
    // What only the program writes, of a call that it did not take back.
    assert!(story.lane.shared.board.withdraw(0));
    story.lane.shared.board.pass(0);
    assert_eq!(story.take_answers(), 0);
    let error = Error::new("", Cause::refused("it died"));
    let back = story.lane.end(&mut story.ends, &error);
    let ended = story.ends.tasks.len() + back.len();
    assert_eq!(ended, 2, "each task is somewhere");
}

#[test]
fn at_the_end_each_task_is_answered_or_a_victim_or_back() {
    let Some(mut story) = Story::begin(6) else { return };
    let taken_back = story.lane.withdraw(3).unwrap();
    assert_eq!(taken_back.task.slot.id, TaskId(4));
    // One is answered on the board, the next by the pipe, and at the third it dies.
    story.works();
    story.answers(true);
    story.works();
    story.answers(false);
    assert_eq!(story.take_answers(), 1);
    assert!(story.lane.hear(said()));
    story.works();
    let error = Error::new("", Cause::refused("it died"));
    let Story { lane, mut ends, .. } = story;
    let back = lane.end(&mut ends, &error);
    assert_eq!(ids(&back), [5, 6]);
    let ended = ends.tasks.iter();
    let ended: Vec<_> = ended
        .map(|(slot, outcome)| (slot.id.0, matches!(outcome, Outcome::Returned { .. })))
        .collect();
    assert_eq!(ended, [(1, true), (2, true), (3, false)]);
}

#[test]
fn those_that_wait_are_taken_back_from_the_end() {
    let Some(mut story) = Story::begin(6) else { return };
    story.works();
    assert_eq!(ids(&story.lane.withdraw_last(1, 2)), [6, 5]);
    assert_eq!(story.lane.waiting(), 3);
    // Past those that are gone.
    assert_eq!(ids(&story.lane.withdraw_last(1, 2)), [4, 3]);
    assert_eq!(ids(&story.lane.withdraw_last(0, 9)), [2], "the first has begun");
}
