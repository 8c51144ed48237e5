//! Borrowed arguments, lifetimes with names, patterns.
#![forbid(unsafe_code)]
#![deny(warnings)]

use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use inparallel::task;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct Point {
    x: u8,
    y: u8,
}

#[derive(Serialize, Deserialize)]
struct Unit;

#[task]
fn text(text: &str) -> usize {
    text.len()
}

#[task]
fn slice(numbers: &[u32]) -> u32 {
    numbers.iter().sum()
}

#[task]
fn slice_of_uncloneable(points: &[Point]) -> u32 {
    points.iter().map(|point| u32::from(point.x)).sum()
}

#[task]
fn array(numbers: &[u32; 3], more: [u8; 2]) -> u32 {
    numbers.iter().sum::<u32>() + u32::from(more[0])
}

#[task]
fn path(path: &Path, full: &std::path::Path) -> PathBuf {
    path.join(full)
}

#[task]
fn os_str(text: &OsStr) -> usize {
    text.len()
}

#[task]
fn reference(point: &Point) -> Point {
    Point { x: point.y, y: point.x }
}

#[task]
fn map(map: &HashMap<String, u32>) -> u32 {
    map.values().sum()
}

#[task]
fn several(a: &str, b: &str, n: usize, c: &[String]) -> String {
    format!("{a}{b}{n}{}", c.concat())
}

#[task]
fn named<'a>(text: &'a str, other: &'a str) -> bool {
    text == other
}

#[task]
fn outlives<'a: 'b, 'b, T>(text: &'a str, other: &'b T) -> bool
where
    T: PartialEq<String> + Serialize + serde::de::DeserializeOwned + 'b,
{
    *other == text.to_owned()
}

#[task]
fn cow(text: Cow<'_, str>) -> usize {
    text.len()
}

#[task]
fn named_cow<'a>(text: Cow<'a, str>, more: &'a str) -> Cow<'static, str> {
    let _: &'a str = more;
    Cow::Owned(text.into_owned() + more)
}

#[task]
fn reference_to_cow(text: &Cow<'_, str>, all: &[Cow<'_, str>]) -> usize {
    text.len() + all.len()
}

#[task]
fn patterns((x, y): (u8, u8), Point { x: px, .. }: Point, mut n: u8, _: u8, [a, b]: [u8; 2], Unit: Unit) -> u8 {
    n += x + y + px + a + b;
    n
}

#[task]
fn bindings(whole @ (x, _): (u8, u8), ref y: u8, &z: &u8) -> u8 {
    whole.1 + x + *y + z
}

#[task]
#[allow(unused_parens)]
fn parenthesized(text: (&str)) -> usize {
    text.len()
}

macro_rules! make {
    ($name:ident, $arg:ident, $ty:ty) => {
        #[task]
        fn $name($arg: $ty, other: $ty) -> usize {
            $arg.len() + other.len()
        }
    };
}

make!(from_macro, text, &str);

fn main() {
    let local = String::from("four");
    assert_eq!(text(&local).wait().unwrap(), 4);
    assert_eq!(text::inline(&local), 4);
    assert_eq!(text::with().call(&local).wait().unwrap(), 4);
    assert_eq!(slice(&[1, 2]).wait().unwrap(), 3);
    assert_eq!(slice_of_uncloneable(&[Point { x: 3, y: 0 }]).wait().unwrap(), 3);
    assert_eq!(array(&[1, 2, 3], [4, 5]).wait().unwrap(), 10);
    assert_eq!(path(Path::new("a"), Path::new("b")).wait().unwrap(), Path::new("a/b"));
    assert_eq!(os_str(OsStr::new("four")).wait().unwrap(), 4);
    assert_eq!(reference(&Point { x: 1, y: 2 }).wait().unwrap(), Point { x: 2, y: 1 });
    assert_eq!(map(&HashMap::from([("a".to_owned(), 1)])).wait().unwrap(), 1);
    assert_eq!(several("a", &local, 1, &["b".to_owned()]).wait().unwrap(), "afour1b");
    assert!(named("a", "a").wait().unwrap());
    assert!(outlives("a", &"a".to_owned()).wait().unwrap());
    assert!(outlives::<String>::inline("a", &"a".to_owned()));
    assert_eq!(cow(Cow::Borrowed(&local)).wait().unwrap(), 4);
    assert_eq!(named_cow(Cow::Borrowed(&local), &local).wait().unwrap(), "fourfour");
    assert_eq!(reference_to_cow(&Cow::Borrowed("a"), &[]).wait().unwrap(), 1);
    assert_eq!(patterns((1, 1), Point { x: 1, y: 0 }, 1, 9, [1, 1], Unit).wait().unwrap(), 6);
    assert_eq!(patterns::inline((1, 1), Point { x: 1, y: 0 }, 1, 9, [1, 1], Unit), 6);
    assert_eq!(bindings((1, 1), 1, &1).wait().unwrap(), 4);
    assert_eq!(parenthesized("a").wait().unwrap(), 1);
    assert_eq!(from_macro("a", "b").wait().unwrap(), 2);
}
