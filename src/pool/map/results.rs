//! Results that have arrived. They stay encoded until somebody asks for them.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

use crate::argument;
use crate::error::{Cause, Error, Result};
use crate::ids::Name;
use crate::payload::Payload;
use crate::wire;

pub(super) struct Results<T> {
    /// By the number of their first item, or of their arrival.
    runs: BTreeMap<u64, Run<T>>,
    /// The run that is being given out.
    current: Run<T>,
    is_ordered: bool,
    given: u64,
    arrived: u64,
}

/// Results of some items in a row.
pub(super) enum Run<T> {
    Batch(Batch),
    One(Option<Result<T>>),
    /// The same for each of so many.
    Failed(Error, u64),
}

/// What a worker has sent. That it has what it claims to have is seen when it is taken out.
pub(super) struct Batch {
    pub(super) bytes: Payload,
    /// Where the next result begins.
    pub(super) at: usize,
    pub(super) left: u32,
    pub(super) sender: Sender,
}

/// Who is named in errors.
pub(super) struct Sender {
    pub(super) name: Name,
    pub(super) pid: Option<u32>,
    pub(super) attempt: u32,
}

impl<T> Results<T> {
    pub(super) fn new() -> Self {
        Results {
            runs: BTreeMap::new(),
            current: Run::One(None),
            is_ordered: true,
            given: 0,
            arrived: 0,
        }
    }

    /// In the order of arrival from here on. What came out of turn before has its turn now.
    pub(super) fn set_unordered(&mut self) {
        self.is_ordered = false;
        let mut place = self.given + self.current.len();
        for run in std::mem::take(&mut self.runs).into_values() {
            let after = place + run.len();
            self.runs.insert(place, run);
            place = after;
        }
    }

    pub(super) fn given(&self) -> u64 {
        self.given
    }

    pub(super) fn arrived(&self) -> u64 {
        self.arrived
    }

    /// Results of the items from `first` on.
    pub(super) fn arrive(&mut self, first: u64, run: Run<T>) {
        let count = run.len();
        if count > 0 {
            let place = if self.is_ordered { first } else { self.arrived };
            self.arrived += count;
            self.runs.insert(place, run);
        }
    }

    /// Whether there is one to give.
    pub(super) fn has_next(&self) -> bool {
        self.current.len() > 0 || self.runs.contains_key(&self.given)
    }
}

impl<T: DeserializeOwned> Results<T> {
    #[inline]
    pub(super) fn next(&mut self) -> Option<Result<T>> {
        if let Run::Batch(batch) = &mut self.current
            && batch.left > 0
        {
            self.given += 1;
            return Some(batch.next());
        }
        self.next_of_others()
    }

    #[inline(never)]
    fn next_of_others(&mut self) -> Option<Result<T>> {
        if self.current.len() == 0 {
            self.current = self.runs.remove(&self.given)?;
        }
        self.given += 1;
        match &mut self.current {
            Run::Batch(batch) => Some(batch.next()),
            Run::One(result) => result.take(),
            Run::Failed(error, left) => {
                *left -= 1;
                Some(Err(error.clone()))
            }
        }
    }
}

impl<T> Run<T> {
    fn len(&self) -> u64 {
        match self {
            Run::Batch(batch) => batch.left.into(),
            Run::One(result) => result.is_some().into(),
            Run::Failed(_, left) => *left,
        }
    }
}

impl Batch {
    #[inline]
    fn next<T: DeserializeOwned>(&mut self) -> Result<T> {
        self.left -= 1;
        let bytes: &[u8] = &self.bytes;
        match bytes.get(self.at..).and_then(wire::short_value) {
            Some((value, rest)) => {
                // Before anything of the caller's is asked, which may panic.
                self.at = bytes.len() - rest.len();
                self.sender.decode(value)
            }
            None => self.next_of_any_kind(),
        }
    }

    #[inline(never)]
    fn next_of_any_kind<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut rest = self.bytes.get(self.at..).unwrap_or_default();
        let result = wire::next_result(&mut rest);
        // As above.
        self.at = self.bytes.len() - rest.len();
        match result {
            Ok(Ok(value)) => self.sender.decode(value),
            Ok(Err(reply)) => Err(self.sender.error(Cause::of(reply))),
            Err(what) => {
                // What follows cannot be told apart.
                self.at = self.bytes.len();
                Err(self.sender.error(Cause::Protocol { what }))
            }
        }
    }
}

impl Sender {
    #[inline]
    fn decode<T: DeserializeOwned>(&self, value: &[u8]) -> Result<T> {
        argument::decode_output(value).map_err(|reason| {
            let type_name = wire::type_name_of::<T>();
            self.error(Cause::ResultNotDecodable { type_name, reason })
        })
    }

    #[cold]
    pub(super) fn error(&self, cause: Cause) -> Error {
        Error::new(self.name.to_string(), cause)
            .with_worker(self.pid, Vec::new())
            .with_attempt(self.attempt)
    }
}

#[cfg(test)]
#[path = "results_tests.rs"]
mod tests;
