//! Results of chunks, and what becomes of a chunk that died.

use std::time::Instant;

use serde::de::DeserializeOwned;

use crate::argument;
use crate::call::Call;
use crate::error::{Cause, Error, ErrorKind, Result};
use crate::pool::map::{Map, Sent};
use crate::slot::Outcome;
use crate::wire;

impl<T, I, F> Map<T, I, F>
where
    T: DeserializeOwned,
    I: Iterator,
    F: FnMut(I::Item) -> Call<T>,
{
    pub(super) fn arrive(&mut self, item: u64, result: Result<T>) {
        match self.ordered {
            true => {
                let at = usize::try_from(item - self.state.given).unwrap_or(usize::MAX);
                match self.state.results.get_mut(at) {
                    Some(place) => *place = Some(result),
                    None => {
                        self.state.results.resize_with(at, || None);
                        self.state.results.push_back(Some(result));
                    }
                }
            }
            false => self.state.unordered.push_back(result),
        }
        self.state.arrived += 1;
    }

    /// Something came of a chunk.
    pub(super) fn hear(&mut self, key: u64) {
        let Some(mut sent) = self.state.chunks.remove(&key) else {
            return;
        };
        let before = self.state.arrived;
        // The end first: what was sent before it is there then.
        let outcome = sent.slot.outcome();
        while let Some(letter) = sent.slot.take_letter() {
            if sent.bundle.is_some() {
                self.unpack(&mut sent, &letter);
            }
        }
        match outcome {
            None => _ = self.state.chunks.insert(key, sent),
            Some(outcome) => self.end(sent, outcome),
        }
        if self.state.arrived > before
            && let Some(callback) = &mut self.on_progress
        {
            callback(self.state.arrived);
        }
    }

    /// Results of a chunk. What is wrong with them is found out at its end.
    fn unpack(&mut self, sent: &mut Sent, mut bytes: &[u8]) {
        let Ok(batch) = wire::batch(&mut bytes) else {
            return;
        };
        if batch.items > 0 {
            let nanos = batch.nanos as f64 / f64::from(batch.items);
            // Old chunks count for less and less.
            let average = self.state.nanos_per_item.map_or(nanos, |old| (old + nanos) / 2.0);
            self.state.nanos_per_item = Some(average);
            let bytes_per_result = bytes.len() as f64 / f64::from(batch.items);
            self.state.bytes_per_result = self.state.bytes_per_result.max(bytes_per_result);
        }
        for _ in 0..batch.items.min(sent.items - sent.arrived) {
            let Ok(result) = wire::next_result(&mut bytes) else {
                return;
            };
            let result = match result {
                Ok(value) => argument::decode_output(value).map_err(|reason| {
                    let type_name = wire::type_name_of::<T>();
                    self.error(sent, Cause::ResultNotDecodable { type_name, reason })
                }),
                Err(reply) => Err(self.error(sent, Cause::of(reply))),
            };
            self.arrive(sent.first + u64::from(sent.arrived), result);
            sent.arrived += 1;
        }
    }

    fn error(&self, sent: &Sent, cause: Cause) -> Error {
        Error::new(sent.slot.name.to_string(), cause)
            .with_worker(sent.slot.pid(), Vec::new())
            .with_attempt(sent.slot.attempt())
    }

    fn end(&mut self, mut sent: Sent, outcome: Outcome) {
        let Some(bundle) = sent.bundle.take() else {
            let result = outcome.decode(&sent.slot);
            return self.arrive(sent.first, result);
        };
        match outcome {
            Outcome::Returned { payload, .. } => {
                self.unpack(&mut sent, &payload);
                let what = "results went missing".to_owned();
                for item in sent.arrived..sent.items {
                    let error = self.error(&sent, Cause::Protocol { what: what.clone() });
                    self.arrive(sent.first + u64::from(item), Err(error));
                }
            }
            Outcome::Failed(error) if sent.arrived == sent.items => drop(error),
            Outcome::Failed(error) if is_death(error.kind()) => {
                let mut skipped = sent.arrived;
                let is_known = sent.is_careful || skipped + 1 == sent.items;
                if is_known {
                    self.arrive(sent.first + u64::from(skipped), Err(error));
                    skipped += 1;
                }
                if skipped < sent.items {
                    self.send_chunk(sent.first, sent.items, bundle, skipped, !is_known);
                }
            }
            Outcome::Failed(error) => {
                for item in sent.arrived..sent.items {
                    self.arrive(sent.first + u64::from(item), Err(error.clone()));
                }
            }
        }
    }

    /// The time is over: whatever has no result gets this.
    pub(super) fn give_up(&mut self) {
        self.state.is_over = true;
        let limit = self.limit.unwrap_or_default();
        for sent in std::mem::take(&mut self.state.chunks).into_values().rev() {
            sent.slot.cancel();
            for item in sent.arrived..sent.items {
                let error = Error::new(sent.slot.name.to_string(), Cause::TimedOut { limit });
                self.arrive(sent.first + u64::from(item), Err(error));
            }
        }
    }

    pub(super) fn is_late(&self) -> bool {
        self.state
            .deadline
            .is_some_and(|deadline| deadline <= Instant::now())
    }
}

/// Whether the worker went down, with what it was at.
fn is_death(kind: ErrorKind) -> bool {
    use ErrorKind::{Exited, Lost, Protocol, ResultTooLarge, Signaled};
    matches!(kind, Exited | Lost | Protocol | ResultTooLarge | Signaled)
}
