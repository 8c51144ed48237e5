//! A worker that has nothing to do yet goes once through a call: what that touches first in a process, memory and code, is
//! there when the call comes.

use std::io;

use crate::argument::Refused;
use crate::board::{Come, Sheet};
use crate::sys::{self, Entry, Gate, SameImage};
use crate::wire::Answer;
use crate::worker::posts::{self, Posts};
use crate::worker::run::{self, Remote};

/// Makes a call to this process, and answers it: with lines of its own, as a worker that was made before its call does.
///
/// # Errors
///
/// There are no descriptors for it. Then the first call takes a little longer.
pub(super) fn rehearse(image: SameImage, likely: Option<i64>) -> io::Result<()> {
    if let Some(entry) = likely {
        image.touch::<Answer>(entry);
    }
    let (far_calls, _calls) = sys::call_pair()?;
    let (_replies, far_replies) = sys::pipe()?;
    let (gate, far_gate) = Gate::pair()?;
    let (sheet, board) = Sheet::new()?;
    let posts = Posts::of_fd(&board)?;
    posts::look_out_in_vain();
    let entry: &Entry<Answer> = Entry::of(Remote::new(decode, nothing));
    let (entry, type_name) = entry.address();
    let frame = run::call_for_nobody(entry, type_name).map_err(io::Error::other)?;
    gate.open(&frame, None)?;
    sheet.announce(Come::AtGate);
    run::run_when_called(&far_calls, far_replies, Some(posts), Ok(()), image, far_gate)
}

fn nothing((): ()) {}

#[expect(clippy::unnecessary_wraps, reason = "what a task's decoder looks like")]
fn decode(_: &mut &[u8]) -> Result<(), Refused> {
    Ok(())
}
