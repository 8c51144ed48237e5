//! What waits in a pool: by priority, and first in first out among equals.

use std::collections::{BTreeMap, VecDeque};

use crate::ids::Rank;

/// A queue of things by rank. It is lean: there may be millions of them.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    /// Those of one priority, by number. A thing that was taken out of the middle leaves its place empty; the first and the
    /// last place never are, and no more than half of all.
    by_priority: BTreeMap<i32, VecDeque<(u64, Option<T>)>>,
    len: usize,
    empty: usize,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Waiting {
            by_priority: BTreeMap::new(),
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
        let (&priority, places) = self.by_priority.first_key_value()?;
        let (number, thing) = places.front()?;
        Some((
            Rank {
                priority,
                number: *number,
            },
            thing.as_ref()?,
        ))
    }

    /// Puts a thing in its place.
    pub(super) fn push(&mut self, rank: Rank, thing: T) {
        let places = self.by_priority.entry(rank.priority).or_default();
        let place = (rank.number, Some(thing));
        match places.back() {
            Some(&(last, _)) if last > rank.number => {
                match places.binary_search_by_key(&rank.number, |(number, _)| *number) {
                    Ok(empty) => {
                        places[empty] = place;
                        self.empty -= 1;
                    }
                    Err(between) => places.insert(between, place),
                }
            }
            _ => places.push_back(place),
        }
        self.len += 1;
    }

    pub(super) fn pop_first(&mut self) -> Option<(Rank, T)> {
        let mut entry = self.by_priority.first_entry()?;
        let priority = *entry.key();
        let places = entry.get_mut();
        let (number, thing) = places.pop_front()?;
        self.empty -= trim(places);
        if places.is_empty() {
            entry.remove();
        }
        self.len -= 1;
        Some((Rank { priority, number }, thing?))
    }

    pub(super) fn remove(&mut self, rank: Rank) -> Option<T> {
        let places = self.by_priority.get_mut(&rank.priority)?;
        let at = places
            .binary_search_by_key(&rank.number, |(number, _)| *number)
            .ok()?;
        let thing = places.get_mut(at)?.1.take()?;
        self.len -= 1;
        self.empty += 1;
        self.empty -= trim(places);
        if places.is_empty() {
            self.by_priority.remove(&rank.priority);
        }
        if self.empty > self.len + FEW {
            for places in self.by_priority.values_mut() {
                places.retain(|(_, thing)| thing.is_some());
                places.shrink_to(places.len() * 2);
            }
            self.empty = 0;
        }
        Some(thing)
    }

    /// Takes everything, in order.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = T> + use<T> {
        let all = std::mem::take(self).by_priority.into_values();
        all.flatten().filter_map(|(_, thing)| thing)
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
