//! What the table says of figures, and what the command line takes.

use crate::catalogue::WORKLOADS;
use crate::options::parse;
use crate::report::{Line, Row, Target, Unit, summary};
use crate::rounds::{alternate, check, median};

/// A row's ratio, and its verdict as it is printed.
fn judged(unit: Unit, ours: &[f64], reference: Option<&[f64]>, target: Target) -> (String, String) {
    let line = line_of(unit, ours, reference, target);
    let verdict = line.to_string().split_whitespace().last().unwrap().to_owned();
    let ratio = serde_json::to_value(&line).unwrap()["ratio"]["median"].to_string();
    (ratio, verdict)
}

fn line_of(unit: Unit, ours: &[f64], reference: Option<&[f64]>, target: Target) -> Line {
    let row = Row::new("row", unit, ours).target(target);
    match reference {
        Some(reference) => row.beside("it", reference).line(),
        None => row.line(),
    }
}

#[test]
fn a_target_says_which_way_the_ratio_goes() {
    let (time, rate) = (Unit::Microseconds, Unit::GibibytesPerSecond);
    let (two, four) = (&[2.0][..], &[4.0][..]);
    let cases = [
        (time, two, Some(four), Target::RatioAtMost(0.5), "0.5", "ok"),
        (time, two, Some(four), Target::RatioAtMost(0.4), "0.5", "short"),
        (time, two, Some(four), Target::SpeedAtLeast(2.0), "2.0", "ok"),
        (time, four, Some(two), Target::SpeedAtLeast(0.6), "0.5", "short"),
        (rate, two, Some(four), Target::SpeedAtLeast(0.5), "0.5", "ok"),
        (rate, two, Some(four), Target::SpeedAtLeast(0.6), "0.5", "short"),
        (time, two, Some(four), Target::None, "2.0", "-"),
        (time, two, None, Target::AtMost(2.0), "null", "ok"),
        (time, two, Some(four), Target::AtMost(1.9), "2.0", "short"),
        // What is not there cannot be reached.
        (time, two, None, Target::RatioAtMost(9.0), "null", "short"),
    ];
    for (unit, ours, reference, target, ratio, verdict) in cases {
        let seen = judged(unit, ours, reference, target);
        assert_eq!(
            seen,
            (ratio.to_owned(), verdict.to_owned()),
            "{unit:?} {target:?}"
        );
    }
}

#[test]
fn ratios_are_taken_round_by_round() {
    // The machine was ten times as slow in the second round, for both sides.
    let (ours, reference) = (&[1.0, 20.0, 3.0][..], &[1.0, 10.0, 2.0][..]);
    let (ratio, _) = judged(
        Unit::Microseconds,
        ours,
        Some(reference),
        Target::RatioAtMost(1.0),
    );
    assert_eq!(ratio, "1.5");
}

#[test]
fn a_line_survives_the_way_from_the_copy() {
    let lines = [
        line_of(Unit::Bytes, &[1.5, 2.5], None, Target::AtMost(2.0)),
        Line::skipped("two", "no core"),
        Line::failed("three", "a wrong answer: 1 for 2"),
    ];
    let texts = lines.each_ref().map(Line::to_string);
    let back: [Line; 3] = serde_json::from_slice(&serde_json::to_vec(&lines).unwrap()).unwrap();
    assert_eq!(back.map(|line| line.to_string()), texts);
    assert!(texts[2].contains("FAILED: a wrong answer: 1 for 2"));
    assert_eq!(
        summary(&lines),
        "targets: 1 ok, 0 short; skipped: 1 (two); failed: 1 (three)"
    );
}

#[test]
fn sides_take_turns_and_the_first_round_does_not_count() {
    let turns = std::cell::RefCell::new(String::new());
    let side = |name: char| {
        let turns = &turns;
        move || {
            turns.borrow_mut().push(name);
            Ok(turns.borrow().len() as f64)
        }
    };
    let [ours, reference] = alternate(2, [&mut side('o'), &mut side('r')]).unwrap();
    assert_eq!(turns.borrow().as_str(), "orroor");
    assert_eq!((ours, reference), (vec![4.0, 5.0], vec![3.0, 6.0]));
}

#[test]
fn a_wrong_answer_names_both() {
    assert!(check(1, 1).is_ok());
    let error = check(Some(1), None).unwrap_err();
    assert_eq!(error.to_string(), "a wrong answer: Some(1) for None");
}

#[test]
fn a_median_is_the_middle() {
    assert_eq!(median(vec![]), None);
    assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
    assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
}

#[test]
fn an_unknown_name_is_told_the_known_ones() {
    let given = |words: &[&str]| parse(words.iter().map(|word| (*word).to_owned()).collect());
    let error = match given(&["warm_rt", "warm"]) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("no error"),
    };
    assert!(error.starts_with("warm: no such workload"), "{error}");
    assert!(
        WORKLOADS.iter().all(|workload| error.contains(workload.name)),
        "{error}"
    );
    let plan = given(&["--quick", "submit"]).unwrap().unwrap();
    assert!(plan.wants("submit") && !plan.wants("warm_rt"));
    assert!(given(&[]).unwrap().unwrap().wants("warm_rt"));
    assert!(!given(&["none"]).unwrap().unwrap().wants("warm_rt"));
    for wrong in ["--json", "--plots", "--fast"] {
        assert!(given(&[wrong]).is_err(), "{wrong}");
    }
}
