//! Where processes have no memory in common: bytes travel.

use std::io;

use crate::sys::Address;

#[derive(Debug)]
enum Never {}

/// A type without values.
#[derive(Debug)]
pub(crate) struct Memory(Never);

impl Memory {
    pub(crate) fn fixed(_: &[u8]) -> io::Result<Memory> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn filled(_: usize, _: impl FnOnce(&mut [u8])) -> io::Result<Memory> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn rewritable(_: &[u8]) -> io::Result<Memory> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn rewrite(&mut self, _: &[u8]) -> bool {
        match self.0 {}
    }

    pub(crate) fn room(&self) -> usize {
        match self.0 {}
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self.0 {}
    }

    pub(crate) fn address(&self) -> io::Result<Address> {
        match self.0 {}
    }

    pub(crate) fn open(_: &Address) -> io::Result<Memory> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn set_aside(&self) -> bool {
        match self.0 {}
    }

    pub(crate) fn open_again(&mut self, _: &Address) -> bool {
        match self.0 {}
    }
}

pub(crate) fn has_our_rights(_: u32) -> bool {
    false
}
