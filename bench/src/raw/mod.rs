//! What the kernel itself charges, without `inparallel`.

pub(crate) mod cores;
pub(crate) mod fork;
pub(crate) mod helper;
pub(crate) mod memory;
pub(crate) mod spin;
