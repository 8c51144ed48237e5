//! What waits in a pool: by priority, and first in first out among equals.

use std::collections::{BTreeMap, VecDeque};

use crate::ids::Rank;

/// A queue of things by rank. It is lean: there may be millions of them.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    /// The best priority of all, or of none if nothing is there: mostly there is but one.
    best: i32,
    first: Line<T>,
    /// The other lines, none of them empty.
    others: BTreeMap<i32, Line<T>>,
    len: usize,
    empty: usize,
}

/// Things of one priority, by number. A thing that was taken out of the middle leaves its place empty; the first and the last
/// place never are, and no more than half of all.
type Line<T> = VecDeque<(u64, Option<T>)>;

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Waiting {
            best: 0,
            first: VecDeque::new(),
            others: BTreeMap::new(),
            len: 0,
            empty: 0,
        }
    }
}

impl<T> Waiting<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The rank of the next.
    pub(super) fn first(&self) -> Option<Rank> {
        self.first_with_thing().map(|(rank, _)| rank)
    }

    pub(super) fn first_with_thing(&self) -> Option<(Rank, &T)> {
        let (number, thing) = self.first.front()?;
        let rank = Rank {
            priority: self.best,
            number: *number,
        };
        Some((rank, thing.as_ref()?))
    }

    /// Puts a thing in its place.
    pub(super) fn push(&mut self, rank: Rank, thing: T) {
        let line = self.line_for(rank.priority);
        let place = (rank.number, Some(thing));
        let is_filled = match line.back() {
            Some(&(last, _)) if last > rank.number => {
                match line.binary_search_by_key(&rank.number, |(number, _)| *number) {
                    Ok(empty) => {
                        line[empty] = place;
                        true
                    }
                    Err(between) => {
                        line.insert(between, place);
                        false
                    }
                }
            }
            _ => {
                line.push_back(place);
                false
            }
        };
        self.empty -= usize::from(is_filled);
        self.len += 1;
    }

    /// The line to push onto.
    fn line_for(&mut self, priority: i32) -> &mut Line<T> {
        if priority == self.best || self.first.is_empty() {
            self.best = priority;
            return &mut self.first;
        }
        if priority < self.best {
            let worse = std::mem::take(&mut self.first);
            self.others.insert(self.best, worse);
            self.best = priority;
            return &mut self.first;
        }
        self.others.entry(priority).or_default()
    }

    /// After things were taken out: if no more are in the first line, the next takes its place.
    fn advance(&mut self) {
        if !self.first.is_empty() {
            return;
        }
        if let Some((priority, line)) = self.others.pop_first() {
            (self.best, self.first) = (priority, line);
        } else if self.first.capacity() > MUCH {
            self.first = VecDeque::new();
        }
    }

    pub(super) fn pop_first(&mut self) -> Option<(Rank, T)> {
        let (number, thing) = self.first.pop_front()?;
        let rank = Rank {
            priority: self.best,
            number,
        };
        self.empty -= trim(&mut self.first);
        self.advance();
        self.len -= 1;
        Some((rank, thing?))
    }

    pub(super) fn remove(&mut self, rank: Rank) -> Option<T> {
        let line = match rank.priority == self.best {
            true => &mut self.first,
            false => self.others.get_mut(&rank.priority)?,
        };
        let at = line
            .binary_search_by_key(&rank.number, |(number, _)| *number)
            .ok()?;
        let thing = line.get_mut(at)?.1.take()?;
        self.len -= 1;
        self.empty += 1;
        self.empty -= trim(line);
        if line.is_empty() {
            self.others.remove(&rank.priority);
            self.advance();
        }
        if self.empty > self.len + FEW {
            for line in self.others.values_mut().chain([&mut self.first]) {
                line.retain(|(_, thing)| thing.is_some());
                line.shrink_to(line.len() * 2);
            }
            self.empty = 0;
        }
        Some(thing)
    }

    /// Takes everything, in order.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = T> + use<T> {
        let all = std::mem::take(self);
        let lines = std::iter::once(all.first).chain(all.others.into_values());
        lines.flatten().filter_map(|(_, thing)| thing)
    }
}

/// Drops empty places from both ends; how many.
fn trim<T>(places: &mut VecDeque<(u64, Option<T>)>) -> usize {
    let before = places.len();
    while places.front().is_some_and(|(_, thing)| thing.is_none()) {
        places.pop_front();
    }
    while places.back().is_some_and(|(_, thing)| thing.is_none()) {
        places.pop_back();
    }
    before - places.len()
}

/// So many empty places are not worth the work to close them up.
const FEW: usize = 64;

/// Room for so many is kept for those to come.
const MUCH: usize = 1024;
