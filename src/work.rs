//! A task's function and its encoded arguments: what is kept of a task until it runs, and between two attempts.

use std::sync::Arc;
use std::time::Duration;

use crate::ids::About;
use crate::nesting;
use crate::payload::Payload;
use crate::slot::Slot;
use crate::sys::Entry;
use crate::task_context::{self, Outlet};
use crate::wire::{Answer, Call};

/// What a task does, wherever it runs.
#[derive(Clone)]
pub(crate) struct Work {
    pub(crate) entry: &'static Entry<Answer>,
    /// The encoded arguments.
    pub(crate) payload: Payload,
}

impl PartialEq for Work {
    fn eq(&self, other: &Work) -> bool {
        std::ptr::eq(self.entry, other.entry) && self.payload == other.payload
    }
}

impl Work {
    pub(crate) fn call(&self, slot: &Slot, depth: u32, limit: Option<Duration>) -> Call {
        let (entry, type_name) = self.entry.address();
        Call {
            task: slot.id.0,
            entry,
            type_name: type_name.to_owned(),
            depth,
            name: slot.name.to_string(),
            attempt: slot.attempt(),
            limit,
            setup: None,
            is_posted: false,
            remember: None,
            attached: Vec::new(),
        }
    }

    /// Runs it here and now.
    pub(crate) fn answer(&self) -> Answer {
        let _opened = self.payload.open();
        (self.entry.run)(&self.payload)
    }

    /// Runs it on this thread.
    pub(crate) fn run_here(&self, slot: &Arc<Slot>, depth: u32, about: About) -> Answer {
        let outlet = Outlet::Slot(Arc::clone(slot));
        nesting::at_depth(depth, || task_context::run_as(about, outlet, || self.answer()))
    }
}
