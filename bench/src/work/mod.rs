//! The workloads, a file for each family.

pub(crate) mod fresh;
pub(crate) mod warm;
pub(crate) mod submit;
pub(crate) mod map;
pub(crate) mod bytes;
pub(crate) mod shared;
pub(crate) mod many;
pub(crate) mod idle;
pub(crate) mod startup;
pub(crate) mod curves;
