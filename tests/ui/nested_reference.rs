#![allow(unused_variables)]

use inparallel::task;

#[task]
fn option(text: Option<&str>) {}

#[task]
fn tuple(pair: (&str, u8)) {}

#[task]
fn slice(texts: &[&str]) {}

#[task]
fn twice(text: &&str) {}

#[task]
fn constant(text: &'static str) {}

#[task]
fn object(text: &dyn AsRef<str>) {}

fn main() {}
