use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::*;
use crate::sys::Board;

fn posted(known: Option<u32>) -> Posted {
    Posted {
        task: 7,
        attempt: 2,
        limit: Some(Duration::from_millis(5)),
        known,
    }
}

#[test]
fn calls_and_answers_come_as_they_were_put_up() {
    let board = Board::unshared();
    let mut arguments = Vec::new();
    // Past the point where the counters run over.
    let start = u32::MAX - 300;
    board.worker.passed.store(start, Relaxed);
    for step in 0..1000 {
        let number = start.wrapping_add(step);
        assert_eq!(board.begin(number, &mut arguments), Next::Nothing);
        let bytes = vec![step as u8; step as usize % (CELL_BYTES + 1)];
        board.post(number, posted(Some(step)), &bytes);
        assert_eq!(board.look(number), Seen::Waiting);
        assert_eq!(
            board.begin(number, &mut arguments),
            Next::Call(posted(Some(step)))
        );
        assert_eq!(arguments, bytes);
        assert_eq!(board.look(number), Seen::Begun);
        assert!(!board.withdraw(number), "it has begun");
        arguments.reverse();
        board.answer(number, Some((step % 2 == 0, &arguments)));
        assert!(board.has_passed(number) && !board.has_passed(number.wrapping_add(1)));
        let Seen::Answered { is_err, payload } = board.look(number) else {
            panic!("{:?}", board.look(number));
        };
        assert_eq!((is_err, &*payload), (step % 2 == 0, &*arguments));
    }
}

#[test]
fn what_was_taken_back_is_passed_by() {
    let board = Board::unshared();
    let mut arguments = Vec::new();
    board.post(0, posted(None), &[]);
    board.post(1, posted(Some(3)), b"x");
    assert!(board.withdraw(0));
    assert!(!board.withdraw(0));
    assert_eq!(board.look(0), Seen::Withdrawn { is_passed: false });
    assert_eq!(
        board.begin(0, &mut arguments),
        Next::Withdrawn { is_in_pipe: true }
    );
    board.pass(0);
    assert_eq!(board.look(0), Seen::Withdrawn { is_passed: true });
    assert_eq!(board.begin(1, &mut arguments), Next::Call(posted(Some(3))));
    board.answer(1, None);
    assert_eq!(board.look(1), Seen::Elsewhere);
}

#[test]
fn a_hostile_worker_gets_no_more_than_its_cell() {
    let board = Board::unshared();
    board.post(0, posted(Some(0)), b"abc");
    for state in 0..64 {
        for len in [0, 3, CELL_BYTES as u32, CELL_BYTES as u32 + 1, u32::MAX] {
            for passed in [0, 1, 2, u32::MAX / 2, u32::MAX] {
                board.cells[0].state.store(state, Relaxed);
                board.cells[0].len.store(len, Relaxed);
                board.worker.passed.store(passed, Relaxed);
                if let Seen::Answered { payload, .. } = board.look(0) {
                    assert!(payload.len() <= CELL_BYTES);
                }
                // A cell that was never used, or is another call's.
                board.look(5);
                board.look(128);
            }
        }
    }
}

#[test]
fn a_worker_that_was_to_ring_later_does_so_before_it_sleeps() {
    let board = Board::unshared();
    assert_eq!(board.fall_asleep(0, false), Asleep::Yes);
    // As if it had not been rung by then.
    board.post(0, posted(Some(0)), &[]);
    board.worker.sleeps.0.store(1, Relaxed);
    assert!(!board.ring_after(Some(2), u32::MAX), "it sleeps");
    assert_eq!(board.fall_asleep(0, false), Asleep::No);
    assert!(board.ring_after(Some(2), u32::MAX));
    board.pass(0);
    assert_eq!(board.fall_asleep(1, false), Asleep::RingsBefore);
    assert_eq!(board.fall_asleep(1, true), Asleep::Yes);
    // What is never passed, and what was, is nothing to ring for.
    for at in [None, Some(0)] {
        board.ring_after(at, 0);
        assert_eq!(board.fall_asleep(1, false), Asleep::Yes, "{at:?}");
    }
}

#[test]
fn it_rings_once_where_it_was_asked_to() {
    let board = Board::unshared();
    for number in 0..6 {
        board.post(number, posted(Some(0)), &[]);
    }
    assert!(board.ring_after(Some(2), u32::MAX));
    assert!(board.wake_after(3));
    let tells: Vec<Tell> = (0..5).map(|number| board.pass(number)).collect();
    let told = tells.iter().map(|tell| (tell.ring, tell.wake));
    assert!(told.eq([
        (false, false),
        (false, false),
        (true, false),
        (false, true),
        (false, false)
    ]));
    assert!(!board.ring_after(Some(4), u32::MAX), "it was passed before");
    assert!(board.ring_after(None, 4));
    assert!(!board.pass(5).ring);
}
