use super::*;
use crate::payload::Payload;

fn collect(bytes: &SharedBytes) -> Payload {
    Payload::collect(|output| wire::encode_argument(&("before", bytes, 7u8), output)).unwrap()
}

fn opened(payload: &Payload) -> Result<(String, SharedBytes, u8), String> {
    let _opened = payload.open();
    wire::decode_argument(&mut &**payload)
}

#[test]
fn outside_of_arguments_they_are_their_bytes() {
    for len in [0, 10, 100_000] {
        let content = vec![5u8; len];
        let shared = SharedBytes::new(&content);
        let bytes = wire::encode(&shared).unwrap();
        assert_eq!(bytes, wire::encode(&content).unwrap());
        assert_eq!(wire::decode::<SharedBytes>(&bytes).unwrap(), shared);
        // A type's own code that encodes something while its arguments are encoded is none of theirs.
        let payload =
            Payload::collect(|output| wire::encode(&shared).map(|bytes| output.push(&bytes))).unwrap();
        assert_eq!(*payload, *bytes);
        assert!(payload.attached().is_empty());
    }
}

#[test]
fn among_arguments_they_cost_the_same_whatever_their_length() {
    let (short, long) = (SharedBytes::new(&[1]), SharedBytes::new(&vec![2; 3 << 20]));
    assert_eq!(collect(&short).len(), collect(&long).len());
    for bytes in [short, long] {
        let payload = collect(&bytes);
        assert_eq!(payload.attached().len(), 1);
        assert_eq!(opened(&payload).unwrap(), ("before".to_owned(), bytes, 7));
    }
}

#[test]
fn a_worker_gets_what_was_described_in_either_way() {
    let bytes = SharedBytes::new(&vec![3; 100_000]);
    let payload = collect(&bytes);
    for by_bytes in [false, true] {
        let described = payload.describe(by_bytes);
        let mut frame = payload.to_vec();
        if let [Attached::Behind { .. }] = described[..] {
            frame.extend_from_slice(&bytes);
        }
        let received = Payload::received(&described, frame).unwrap();
        assert_eq!(opened(&received).unwrap().1, bytes);
    }
}

#[test]
fn what_does_not_fit_its_description_is_refused() {
    let payload = collect(&SharedBytes::new(&[3; 100]));
    for lens in [&[u64::MAX][..], &[1, u64::MAX], &[101]] {
        let described: Vec<_> = lens.iter().map(|len| Attached::Behind { len: *len }).collect();
        Payload::received(&described, vec![0; 100]).unwrap_err();
    }
    // The arguments name what was not attached.
    let received = Payload::received(&[], payload.to_vec()).unwrap();
    assert!(opened(&received).unwrap_err().contains("nothing is attached"));
}

#[test]
fn memory_of_an_argument_awaits_one_result_that_fits() {
    let moved = |room: usize| {
        Payload::collect(|output| {
            let mut bytes = Vec::with_capacity(room);
            bytes.resize(WORTH_ATTACHING, 1);
            crate::argument::encode_moved(bytes, output)
        })
        .unwrap()
    };
    let call = moved(WORTH_ATTACHING);
    if call.attached().is_empty() {
        // No platform for it.
        return;
    }
    let len = WORTH_ATTACHING;
    for none in [0, len / 8 * 7 - 8, len + 1] {
        assert_eq!(call.take_emptied(none), None, "{none}");
    }
    let again = call.clone();
    let room = call.take_emptied(len / 8 * 7).unwrap();
    assert!(room.capacity() >= len);
    assert_eq!(again.take_emptied(len), None, "it was given out");

    // There is an end to what is kept, and what is dropped is kept no more.
    let calls: Vec<_> = (0..3).map(|_| moved(MOST_EMPTIED / 2)).collect();
    let fits = |call: &Payload| call.take_emptied(MOST_EMPTIED / 2).is_some();
    let kept: Vec<_> = calls.iter().map(fits).collect();
    assert!(kept[0] && !kept[2], "{kept:?}");
    drop(calls);
    assert!(fits(&moved(MOST_EMPTIED / 2)));
}

#[test]
fn memory_that_somebody_may_still_read_is_not_used_again() {
    let bytes = vec![4; WORTH_ATTACHING];
    let make = || Payload::collect(|_| attach_copy(&bytes).map(drop).ok_or(())).unwrap();
    let inode = |payload: &Payload| payload.attached()[0].address().map(|address| address.inode);
    let first = make();
    let Some(used) = inode(&first) else {
        // No platform for it.
        return;
    };
    first.lend();
    first.take_back();
    drop(first);
    let second = make();
    assert_eq!(inode(&second), Some(used), "it was given back");
    second.lend();
    drop(second);
    let third = make();
    assert_ne!(inode(&third), Some(used), "it was not");
    third.attached()[0].keep();
    let kept = inode(&third);
    drop(third);
    assert_ne!(inode(&make()), kept, "somebody else has it");
}
