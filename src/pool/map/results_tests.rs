use super::*;
use crate::error::ErrorKind;

fn sender() -> Sender {
    Sender {
        name: Name {
            module: "m",
            function: "f",
        },
        pid: Some(7),
        attempt: 1,
    }
}

/// Numbers as a worker sends them.
fn batch(numbers: &[u64], claimed: u32) -> Run<u64> {
    let mut bytes = Vec::new();
    for number in numbers {
        let start = wire::begin_result(&mut bytes);
        argument::encode_output(*number, &mut bytes).unwrap();
        wire::end_result(start, &mut bytes);
    }
    Run::Batch(Batch {
        bytes: bytes.into(),
        at: 0,
        left: claimed,
        sender: sender(),
    })
}

fn all(results: &mut Results<u64>) -> Vec<std::result::Result<u64, ErrorKind>> {
    std::iter::from_fn(|| results.next())
        .map(|result| result.map_err(|error| error.kind()))
        .collect()
}

#[test]
fn results_come_in_the_order_of_the_items() {
    let mut results = Results::new();
    results.arrive(3, batch(&[3, 4], 2));
    results.arrive(
        6,
        Run::Failed(sender().error(Cause::Closed { pool: "p".into() }), 2),
    );
    assert!(!results.has_next());
    assert!(results.next().is_none());
    results.arrive(0, batch(&[0, 1, 2], 3));
    assert!(results.has_next());
    assert_eq!(all(&mut results), [Ok(0), Ok(1), Ok(2), Ok(3), Ok(4)]);
    results.arrive(5, Run::One(Some(Ok(5))));
    assert_eq!(
        all(&mut results),
        [Ok(5), Err(ErrorKind::Closed), Err(ErrorKind::Closed)]
    );
    assert_eq!((results.given(), results.arrived()), (8, 8));
}

#[test]
fn results_come_in_the_order_of_their_arrival() {
    let mut results = Results::new();
    results.set_unordered();
    results.arrive(3, batch(&[3, 4], 2));
    assert_eq!(results.next().unwrap().unwrap(), 3);
    results.arrive(0, batch(&[0, 1], 2));
    results.arrive(9, batch(&[], 0));
    results.arrive(2, Run::One(Some(Ok(2))));
    assert_eq!(all(&mut results), [Ok(4), Ok(0), Ok(1), Ok(2)]);
}

#[test]
fn the_order_can_be_given_up_at_any_time() {
    let mut results = Results::new();
    results.arrive(0, batch(&[0, 1], 2));
    results.arrive(5, batch(&[5], 1));
    results.arrive(3, batch(&[3, 4], 2));
    assert_eq!(results.next().unwrap().unwrap(), 0);
    results.set_unordered();
    assert_eq!(all(&mut results), [Ok(1), Ok(3), Ok(4), Ok(5)]);
    results.arrive(6, batch(&[6], 1));
    results.arrive(2, batch(&[2], 1));
    assert_eq!(all(&mut results), [Ok(6), Ok(2)]);
}

#[test]
fn a_batch_that_claims_more_than_it_has_costs_what_it_claims() {
    let mut results = Results::new();
    results.arrive(0, batch(&[0, 1], 4));
    results.arrive(4, batch(&[4], 1));
    let protocol = Err(ErrorKind::Protocol);
    assert_eq!(all(&mut results), [Ok(0), Ok(1), protocol, protocol, Ok(4)]);
}

#[test]
fn a_result_that_is_broken_says_so_and_costs_those_behind_it() {
    for broken in [&[3, 9, 0, 0][..], &[200, 0], &[255, 255], &[0]] {
        let mut results = Results::<u64>::new();
        let run = Run::Batch(Batch {
            bytes: broken.into(),
            at: 0,
            left: 2,
            sender: sender(),
        });
        results.arrive(0, run);
        let error = results.next().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{broken:?}");
        assert_eq!(error.pid(), Some(7));
        assert_eq!(results.next().unwrap().unwrap_err().kind(), ErrorKind::Protocol);
        assert!(results.next().is_none());
    }
}

#[test]
fn a_value_that_is_another_costs_itself_alone() {
    let mut bytes = vec![2, 0, 1];
    bytes.extend([9, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
    let run = Run::Batch(Batch {
        bytes: bytes.into(),
        at: 0,
        left: 2,
        sender: sender(),
    });
    let mut results = Results::new();
    results.arrive(0, run);
    assert_eq!(all(&mut results), [Err(ErrorKind::ResultNotDecodable), Ok(5)]);
}
