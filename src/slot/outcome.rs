//! How a task ended, and what its future gives.

use serde::de::DeserializeOwned;

use crate::argument;
use crate::error::{Cause, Error, Result};
use crate::ids::Name;
use crate::options::Ended;
use crate::payload::Payload;
use crate::slot::Slot;
use crate::wire::{self, Answer, Reply};

/// How a task ended. Cheap to clone, so that callbacks and the waiter each decode their own value.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    Returned { payload: Payload, is_err: bool },
    Failed(Error),
}

impl Outcome {
    /// What a task answered that ran in this process.
    pub(crate) fn of(answer: Answer, name: &Name) -> Outcome {
        match answer.reply {
            Reply::Returned { is_err } => Outcome::Returned {
                payload: answer.payload.into(),
                is_err,
            },
            reply => Outcome::Failed(Error::new(name.to_string(), Cause::of(reply))),
        }
    }

    pub(crate) fn is_err(&self) -> bool {
        match self {
            Outcome::Returned { is_err, .. } => *is_err,
            Outcome::Failed(_) => true,
        }
    }

    /// The end of a task that never began.
    pub(crate) fn cancelled(slot: &Slot) -> Outcome {
        Outcome::Failed(Error::new(slot.name.to_string(), Cause::Cancelled))
    }

    /// How it ended, as far as that decides about another attempt.
    pub(super) fn kind(&self) -> Ended {
        match self {
            Outcome::Returned { is_err: false, .. } => Ended::Well,
            Outcome::Returned { is_err: true, .. } => Ended::InErr,
            Outcome::Failed(error) => Ended::Failed(error.kind()),
        }
    }

    pub(crate) fn decode<T: DeserializeOwned>(&self, slot: &Slot) -> Result<T> {
        match self {
            Outcome::Failed(error) => Err(error.clone()),
            Outcome::Returned { payload, .. } => {
                argument::decode_output(payload).map_err(|reason| not_decodable::<T>(slot, reason))
            }
        }
    }

    /// As [`decode`](Outcome::decode), for the last who asks: what the slot has is used up.
    pub(crate) fn decode_last<T: DeserializeOwned>(self, slot: &Slot) -> Result<T> {
        match self {
            Outcome::Failed(error) => Err(error),
            Outcome::Returned { payload, .. } => {
                if matches!(payload, Payload::Long(_)) {
                    slot.peek_mut(|inner| {
                        if let Some(Outcome::Returned { payload, .. }) = &mut inner.outcome {
                            *payload = Payload::EMPTY;
                        }
                    });
                }
                argument::decode_last_output(payload).map_err(|reason| not_decodable::<T>(slot, reason))
            }
        }
    }
}

fn not_decodable<T>(slot: &Slot, reason: String) -> Error {
    let type_name = wire::type_name_of::<T>();
    let cause = Cause::ResultNotDecodable { type_name, reason };
    Error::new(slot.name.to_string(), cause)
        .with_worker(slot.pid(), Vec::new())
        .with_attempt(slot.attempt())
}
