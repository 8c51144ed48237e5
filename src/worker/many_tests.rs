use super::*;
use crate::argument;
use crate::ids::{Name, TaskId};
use crate::slot::Slot;
use crate::task_context::Outlet;

/// How many results come in each message, and in the answer, of items that each take longer than results are held back.
fn batches(items: u32, is_careful: bool) -> (Vec<u32>, u32) {
    let mut input = wire::encode(&Chunk { items, is_careful }).unwrap();
    for item in 0..u64::from(items) {
        wire::push_piece(&wire::encode(&item).unwrap(), &mut input);
    }
    let decode = |input: &mut &[u8]| argument::decode::<u64>(input);
    let slow = |x: u64| {
        let began = Instant::now();
        while began.elapsed() < LONGEST_HELD_BACK * 2 {
            std::hint::spin_loop();
        }
        x
    };
    let name = Name {
        module: "",
        function: "slow",
    };
    let slot = Slot::new(TaskId(1), name);
    slot.read_messages(false);
    let (about, outlet) = (slot.about(None), Outlet::Slot(slot.clone()));
    let answer = task_context::run_as(about, outlet, || Many(Remote::new(decode, slow)).run(&input));
    assert!(matches!(answer.reply, Reply::Returned { is_err: false }));
    let count = |bytes: &[u8]| wire::batch(&mut &*bytes).unwrap().items;
    let letters = std::iter::from_fn(|| slot.take_letter());
    (
        letters.map(|letter| count(&letter)).collect(),
        count(&answer.payload),
    )
}

#[test]
fn the_last_result_is_the_answer() {
    assert_eq!(batches(1, false), (vec![], 1));
    assert_eq!(batches(3, false), (vec![1, 1], 1));
}

#[test]
fn a_careful_chunk_sends_each_result_at_once() {
    assert_eq!(batches(1, true), (vec![1], 0));
    assert_eq!(batches(3, true), (vec![1, 1, 1], 0));
}
