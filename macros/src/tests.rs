//! What needs no compiler to be tested; the rest is in `tests/ui` of the root package.

use std::time::Duration;

use crate::duration::duration;

#[test]
fn durations_are_a_number_and_a_unit() {
    let check =
        |text: &str, millis: u64| assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
    check("1ms", 1);
    check("5s", 5_000);
    check("2min", 120_000);
    check("1h", 3_600_000);
    check("0.25s", 250);
    check(".5min", 30_000);
    check("18446744073709551615ms", u64::MAX);
}

#[test]
fn other_durations_are_refused() {
    let check = |text: &str, part: &str| {
        let problem = duration(text).expect_err(text);
        assert!(problem.contains(part), "{text}: {problem}");
    };
    for text in [
        "", "s", "5", "5 s", " 5s", "5S", "5d", "5sec", "s5", "5s5", "1e3s", "nans", "infs", "1.2.3s", "+5s",
        "٥s",
    ] {
        check(text, "is not a duration");
    }
    for text in ["0s", "0.0h", "-1s", "-", "0.00000000001ms"] {
        check(text, "longer than zero");
    }
    for text in [
        "18446744073709551616ms",
        "18446744073709551615s",
        "99999999999999999999999999999.5h",
    ] {
        check(text, "too long");
    }
}
