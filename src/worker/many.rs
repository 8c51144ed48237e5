//! Running one function many times: what a chunk of a map is to a worker.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::argument::Refused;
use crate::sys::Runnable;
use crate::task_context;
use crate::wire::{self, Answer, Batch, Chunk, Reply};
use crate::worker::panics;
use crate::worker::run::Remote;

/// A task's function as a worker runs it many times, each time on arguments of its own.
pub(crate) struct Many<C, R, D, F>(pub(crate) Remote<C, R, D, F>);

impl<C, R, D: Copy, F: Copy> Clone for Many<C, R, D, F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C, R, D: Copy, F: Copy> Copy for Many<C, R, D, F> {}

/// Results are sent as messages, the last of them as the answer: how many, how long it took, and one after the other,
/// each with its length before it. An answer that came in time is not lost when a later item ends the worker.
impl<C, R, D, F> Runnable<Answer> for Many<C, R, D, F>
where
    R: Serialize,
    D: Fn(&mut &[u8]) -> Result<C, Refused> + Copy,
    F: Fn(C) -> R + Copy,
{
    fn run(self, mut input: &[u8]) -> Answer {
        let not_decodable = |reason| {
            let type_name = wire::type_name_of::<C>();
            Reply::ArgumentNotDecodable { type_name, reason }
        };
        let Chunk { items, is_careful } = match wire::decode_next(&mut input) {
            Ok(chunk) => chunk,
            Err(reason) => return not_decodable(reason).into(),
        };
        task_context::mute();
        let mut results = Results::new();
        let (mut left, mut turn) = (items, 1);
        let mut turn_began = results.began;
        while left > 0 {
            let mut todo = turn.min(left);
            left -= todo;
            while todo > 0 {
                match panics::catch(|| results.add(&self.0, &mut input, &mut todo)) {
                    Ok(Ok(())) => {}
                    Ok(Err(reason)) => return not_decodable(reason).into(),
                    // That of the item which was begun. The next are none the worse for it.
                    Err(panic) => results.fail(&Reply::Panicked(panic)),
                }
            }
            if is_careful {
                results.send();
                continue;
            }
            if left == 0 {
                // The answer has what is there; as that of a single call, it comes behind the output.
                break;
            }
            // Looking at the clock takes longer than a tiny item.
            let now = Instant::now();
            match now - turn_began {
                took if took < LONGEST_HELD_BACK / 16 => turn = (turn * 2).min(LONGEST_TURN),
                took if took > LONGEST_HELD_BACK / 4 => turn = 1,
                _ => {}
            }
            turn_began = now;
            if now - results.began >= LONGEST_HELD_BACK {
                results.send();
                turn_began = results.began;
            }
        }
        Answer {
            reply: Reply::Returned { is_err: false },
            payload: results.take(),
        }
    }
}

/// Results on their way back.
struct Results {
    count: u32,
    began: Instant,
    bytes: Vec<u8>,
    /// Where the last begins.
    last: usize,
}

impl Results {
    fn new() -> Self {
        Results {
            count: 0,
            began: Instant::now(),
            bytes: wire::begin_batch(),
            last: 0,
        }
    }

    /// Runs so many items of `input`. `todo` counts those that were not begun.
    fn add<C, R, D, F>(
        &mut self,
        task: &Remote<C, R, D, F>,
        input: &mut &[u8],
        todo: &mut u32,
    ) -> Result<(), String>
    where
        R: Serialize,
        D: Fn(&mut &[u8]) -> Result<C, Refused>,
        F: Fn(C) -> R,
    {
        while *todo > 0 {
            let item = wire::next_piece(input)?;
            *todo -= 1;
            self.count += 1;
            self.last = wire::begin_result(&mut self.bytes);
            match task.run_bare(item, &mut self.bytes) {
                Ok(_) => wire::end_result(self.last, &mut self.bytes),
                Err(failure) => self.fail(&failure),
            }
        }
        Ok(())
    }

    /// In the place of what the last has written.
    #[cold]
    fn fail(&mut self, reply: &Reply) {
        wire::end_failure(self.last, reply, &mut self.bytes);
    }

    fn take(&mut self) -> Vec<u8> {
        let batch = Batch {
            items: std::mem::take(&mut self.count),
            nanos: u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX),
        };
        let mut bytes = std::mem::replace(&mut self.bytes, wire::begin_batch());
        wire::end_batch(batch, &mut bytes);
        bytes
    }

    fn send(&mut self) {
        let batch = self.take();
        // A program that is gone takes this process along.
        let _ = task_context::send_bytes(batch);
        self.began = Instant::now();
    }
}

/// A result is not held back for longer than this, while others are added to it.
const LONGEST_HELD_BACK: Duration = Duration::from_micros(100);

/// So many items may pass between two looks at the clock.
const LONGEST_TURN: u32 = 16;

#[cfg(test)]
#[path = "many_tests.rs"]
mod tests;
