//! How calls and answers go over a [`Board`](crate::sys::Board): several calls at hand, and no system call where both sides are awake.
//!
//! A call stands in a cell from when it is put up until its answer is taken:
//!
//! ```text
//!           program             worker             worker
//! (free) ----------> Waiting ----------> Begun ----------> Answered, or Elsewhere: its answer comes by the pipe
//!                       |   program
//!                       +----------> Withdrawn                         whose cell the worker passes
//! ```
//!
//! A call is begun, or withdrawn, by the one side whose exchange finds it waiting: what was withdrawn never begins, and a
//! call that waits when its worker dies was never begun. Calls are taken in the order in which they were put up. Each state
//! bears the number of its call, so that a cell that is used again is not mistaken for its last call.
//!
//! A side that is about to sleep says so, then looks once more; the other makes its move, then looks whether somebody
//! sleeps. With a full fence between the two steps on either side, one of the two sees the other's.
//!
//! What a worker writes is a claim. The program keeps what it handed over in its own memory, indexes with nothing that it
//! reads here, and takes no more bytes than a cell has.

mod cells;
#[cfg(all(test, inparallel_loom))]
mod orders;
mod sheet;
#[cfg(all(test, not(inparallel_loom)))]
mod tests;

pub(crate) use cells::{Asleep, CELL_BYTES, Next, Posted, Seen, Tell};
pub(crate) use sheet::{Come, Sheet};
