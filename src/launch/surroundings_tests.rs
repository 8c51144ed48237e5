use super::*;

fn of(pairs: &[(&str, &str)]) -> Environment {
    Environment::of(
        pairs
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect(),
    )
}

/// No test of this crate's library changes the environment.
#[test]
fn change_is_seen() {
    let now = Environment::now();
    assert!(now.is_now());
    assert!(Surroundings::now().are_now());
    let with = |name: &str, value: &str| now.clone().with(&[(name.into(), value.into())]);
    assert!(!with("INPARALLEL_TEST_NEW", "").is_now(), "one more");
    let name = now.pairs()[0].0.to_str().unwrap();
    assert!(!with(name, "another value").is_now());
    let mut pairs = now.pairs().to_vec();
    pairs.pop();
    assert!(!Environment::of(pairs).is_now(), "one fewer");
}

#[test]
fn pieces_do_not_run_together() {
    let one = of(&[("A", "BC")]);
    for other in [
        of(&[("AB", "C")]),
        of(&[("A", "B"), ("C", "")]),
        of(&[]),
        of(&[("A", "BCD")]),
    ] {
        assert_ne!(one, other);
    }
    let mut rest: &[u8] = &one.flat;
    assert!(!take(&mut rest, OsStr::new("AB")));
}

#[test]
fn later_value_replaces_an_earlier_one() {
    let changed = of(&[("A", "1"), ("B", "2")]).with(&[("A".into(), "3".into()), ("C".into(), "4".into())]);
    assert_eq!(changed, of(&[("B", "2"), ("A", "3"), ("C", "4")]));
}
