//! What programs use for this today.

pub(crate) mod rust;
pub(crate) mod python;
