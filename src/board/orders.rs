//! Every order in which two sides can come to it: `RUSTFLAGS='--cfg inparallel_loom' cargo test -p inparallel --lib board`.

use loom::sync::Arc;
use loom::thread::{self, JoinHandle};

use super::*;
use crate::sys::Board;

const POSTED: Posted = Posted {
    task: 1,
    attempt: 1,
    limit: None,
    known: Some(0),
};

fn board() -> Arc<Box<Board>> {
    Arc::new(Board::unshared())
}

/// The worker's side.
fn worker<R: 'static>(board: &Arc<Box<Board>>, run: impl FnOnce(&Board) -> R + 'static) -> JoinHandle<R> {
    let board = Arc::clone(board);
    thread::spawn(move || run(&board))
}

#[test]
fn a_call_begins_or_is_taken_back() {
    loom::model(|| {
        let board = board();
        board.post(0, POSTED, &[5]);
        let worker = worker(&board, |board| {
            let mut arguments = Vec::new();
            let begun = matches!(board.begin(0, &mut arguments), Next::Call(_));
            if begun {
                assert_eq!(arguments, [5]);
                board.answer(0, Some((false, &[6])));
            } else {
                board.pass(0);
            }
            begun
        });
        let is_back = board.withdraw(0);
        if let Seen::Answered { payload, .. } = board.look(0) {
            assert_eq!(*payload, [6]);
        }
        let begun = worker.join().unwrap();
        assert!(is_back != begun, "one of the two");
    });
}

#[test]
fn no_worker_sleeps_over_a_call() {
    loom::model(|| {
        let board = board();
        let worker = worker(&board, |board| board.fall_asleep(0, false) == Asleep::Yes);
        let rings = board.post(0, POSTED, &[]);
        let sleeps = worker.join().unwrap();
        assert!(!sleeps || rings, "it sleeps, and nobody rings");
    });
}

#[test]
fn no_answer_lies_unnoticed() {
    loom::model(|| {
        let board = board();
        board.post(0, POSTED, &[]);
        let worker = worker(&board, |board| {
            board.begin(0, &mut Vec::new());
            board.answer(0, Some((false, &[])))
        });
        // The supervisor and a thread that is about to sleep.
        let will_ring = board.ring_after(Some(0), u32::MAX);
        let will_wake = board.wake_after(0);
        let tell = worker.join().unwrap();
        assert!(
            !will_ring || tell.ring,
            "the supervisor is not rung, and did not see it"
        );
        assert!(
            !will_wake || tell.wake,
            "the thread is not woken, and did not see it"
        );
    });
}

#[test]
fn no_answer_lies_unnoticed_while_its_worker_sleeps() {
    loom::model(|| {
        let board = board();
        board.post(0, POSTED, &[]);
        let worker = worker(&board, |board| {
            board.begin(0, &mut Vec::new());
            let rings = board.answer(0, Some((false, &[]))).ring;
            rings || board.fall_asleep(1, false) == Asleep::RingsBefore
        });
        // There may be another call soon.
        let will_ring = board.ring_after(Some(1), u32::MAX);
        let has_rung = worker.join().unwrap();
        assert!(
            !will_ring || has_rung,
            "it sleeps, and nobody has seen its answer"
        );
    });
}

#[test]
fn no_answer_lies_unnoticed_when_nobody_looks_out_any_more() {
    loom::model(|| {
        let board = board();
        board.set_watched(true);
        let worker = worker(&board, |board| board.answer(0, Some((false, &[6]))).ring);
        board.set_watched(false);
        let is_seen = matches!(board.look(0), Seen::Answered { .. });
        let has_rung = worker.join().unwrap();
        assert!(
            is_seen || has_rung,
            "the supervisor is not rung, and it was not seen"
        );
    });
}

#[test]
fn a_cell_is_used_again_only_when_it_is_free() {
    loom::model(|| {
        let board = board();
        board.post(0, POSTED, &[1]);
        board.post(1, POSTED, &[2]);
        let worker = worker(&board, |board| {
            let mut arguments = Vec::new();
            for number in 0..2 {
                board.begin(number, &mut arguments);
                board.answer(number, Some((false, &arguments)));
            }
            // The third call has the first one's cell.
            match board.begin(2, &mut arguments) {
                Next::Call(_) => assert_eq!(arguments, [3]),
                other => assert_eq!(other, Next::Nothing),
            }
        });
        if let Seen::Answered { payload, .. } = board.look(0) {
            assert_eq!(*payload, [1]);
            board.post(2, POSTED, &[3]);
        }
        worker.join().unwrap();
    });
}
