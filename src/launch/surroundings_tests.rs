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
    let changed = |change: fn(&mut Vec<(OsString, OsString)>)| {
        let mut pairs = now.pairs().to_vec();
        change(&mut pairs);
        Environment::of(pairs)
    };
    let more = changed(|pairs| pairs.push(("INPARALLEL_TEST".into(), "".into())));
    assert!(!more.is_now());
    if !now.pairs().is_empty() {
        assert!(!changed(|pairs| pairs[0].1.push("more")).is_now());
        assert!(!changed(|pairs| pairs[0].0.push("more")).is_now());
        assert!(!changed(|pairs| _ = pairs.pop()).is_now());
    }
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
