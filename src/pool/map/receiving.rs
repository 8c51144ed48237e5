//! Results of chunks, and what becomes of a chunk that died.

use std::time::Instant;

use serde::de::DeserializeOwned;

use crate::call::Call;
use crate::error::{Cause, Error, ErrorKind, Result};
use crate::payload::Payload;
use crate::pool::map::results::{Batch, Run, Sender};
use crate::pool::map::{Map, Sent};
use crate::slot::Outcome;
use crate::wire;

impl<T, I, F> Map<T, I, F>
where
    T: DeserializeOwned,
    I: Iterator,
    F: FnMut(I::Item) -> Call<T>,
{
    /// The result of one item.
    pub(super) fn arrive(&mut self, item: u64, result: Result<T>) {
        self.state.results.arrive(item, Run::One(Some(result)));
    }

    /// What is left of a chunk ends in the same way.
    fn fail_rest(&mut self, sent: &Sent, error: Error) {
        let left = u64::from(sent.items - sent.arrived);
        let first = sent.first + u64::from(sent.arrived);
        self.state.results.arrive(first, Run::Failed(error, left));
    }

    /// Something came of a chunk.
    pub(super) fn hear(&mut self, key: u64) {
        let Some(mut sent) = self.state.chunks.remove(&key) else {
            return;
        };
        let before = self.state.results.arrived();
        // The end first: what was sent before it is there then.
        let outcome = sent.slot.outcome();
        while let Some(letter) = sent.slot.take_letter() {
            if sent.bundle.is_some() {
                self.take_in(&mut sent, letter.into());
            }
        }
        match outcome {
            None => _ = self.state.chunks.insert(key, sent),
            Some(outcome) => self.end(sent, outcome),
        }
        let arrived = self.state.results.arrived();
        if arrived > before
            && let Some(callback) = &mut self.on_progress
        {
            callback(usize::try_from(arrived).unwrap_or(usize::MAX));
        }
    }

    /// Results of a chunk.
    fn take_in(&mut self, sent: &mut Sent, bytes: Payload) {
        let mut rest: &[u8] = &bytes;
        let Ok(batch) = wire::batch(&mut rest) else {
            return;
        };
        if batch.items > 0 {
            let nanos = batch.nanos as f64 / f64::from(batch.items);
            // Old chunks count for less and less.
            let average = self.state.nanos_per_item.map_or(nanos, |old| (old + nanos) / 2.0);
            self.state.nanos_per_item = Some(average);
            let bytes_per_result = rest.len() as f64 / f64::from(batch.items);
            self.state.bytes_per_result = self.state.bytes_per_result.max(bytes_per_result);
        }
        let items = batch.items.min(sent.items - sent.arrived);
        let run = Run::Batch(Batch {
            at: bytes.len() - rest.len(),
            bytes,
            left: items,
            sender: sent.sender(),
        });
        let first = sent.first + u64::from(sent.arrived);
        self.state.results.arrive(first, run);
        sent.arrived += items;
    }

    fn end(&mut self, mut sent: Sent, outcome: Outcome) {
        let Some(bundle) = sent.bundle.take() else {
            let result = outcome.decode(&sent.slot);
            return self.arrive(sent.first, result);
        };
        match outcome {
            Outcome::Returned { payload, .. } => {
                self.take_in(&mut sent, payload);
                let what = "results went missing".to_owned();
                let error = sent.sender().error(Cause::Protocol { what });
                self.fail_rest(&sent, error);
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
            Outcome::Failed(error) => self.fail_rest(&sent, error),
        }
    }

    /// The time is over: whatever has no result gets this.
    pub(super) fn give_up(&mut self) {
        self.state.is_over = true;
        let limit = self.limit.unwrap_or_default();
        for sent in std::mem::take(&mut self.state.chunks).into_values().rev() {
            sent.slot.cancel();
            let error = Error::new(sent.slot.name.to_string(), Cause::TimedOut { limit });
            self.fail_rest(&sent, error);
        }
    }

    pub(super) fn is_late(&self) -> bool {
        self.state
            .deadline
            .is_some_and(|deadline| deadline <= Instant::now())
    }
}

impl Sent {
    fn sender(&self) -> Sender {
        Sender {
            name: *self.slot.name,
            pid: self.slot.pid(),
            attempt: self.slot.attempt(),
        }
    }
}

/// Whether the worker went down, with what it was at.
fn is_death(kind: ErrorKind) -> bool {
    use ErrorKind::{Exited, Lost, Protocol, ResultTooLarge, Signaled};
    matches!(kind, Exited | Lost | Protocol | ResultTooLarge | Signaled)
}
