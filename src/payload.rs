//! Encoded arguments, or an encoded result.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::sync::Arc;

use crate::shared::{self, Opened, SharedBytes};
use crate::wire::{Attached, Encoded, SHORT, Short, Written};

/// Bytes that are cheap to clone; a few of them need no memory of their own. What is attached to arguments comes along.
#[derive(Clone)]
pub(crate) enum Payload {
    Short { len: u8, bytes: Short },
    Long(Arc<Vec<u8>>),
    Loaded(Arc<Loaded>),
}

/// Arguments that something is attached to.
pub(crate) struct Loaded {
    bytes: Vec<u8>,
    attached: Vec<SharedBytes>,
}

const _: () = assert!(size_of::<Payload>() == 24);

impl Payload {
    pub(crate) const EMPTY: Payload = Payload::Short {
        len: 0,
        bytes: Short([0; SHORT]),
    };

    pub(crate) fn new(bytes: Vec<u8>, attached: Vec<SharedBytes>) -> Payload {
        match attached.is_empty() {
            true => bytes.into(),
            false => Payload::Loaded(Arc::new(Loaded { bytes, attached })),
        }
    }

    /// What `encode` writes and attaches.
    #[inline(always)]
    pub(crate) fn collect<E>(encode: impl FnOnce(&mut Encoded) -> Result<(), E>) -> Result<Payload, E> {
        let mut encoded = Encoded::default();
        let attached = shared::collect(|| encode(&mut encoded))?;
        Ok(match (encoded.finish(), attached) {
            (Written::Short { len, bytes }, None) => Payload::Short { len, bytes },
            (Written::Long(bytes), None) => Payload::Long(Arc::new(bytes)),
            (written, Some(attached)) => Payload::Loaded(Arc::new(Loaded {
                bytes: written.into_vec(),
                attached,
            })),
        })
    }

    #[inline]
    pub(crate) fn attached(&self) -> &[SharedBytes] {
        match self {
            Payload::Loaded(loaded) => &loaded.attached,
            _ => &[],
        }
    }

    /// How a worker is told of what is attached.
    pub(crate) fn describe(&self, by_bytes: bool) -> Vec<Attached> {
        shared::describe(self.attached(), by_bytes)
    }

    /// In a worker: what was described, and arrived.
    ///
    /// # Errors
    ///
    /// Something cannot be opened.
    pub(crate) fn received(described: &[Attached], bytes: Vec<u8>) -> io::Result<Payload> {
        if described.is_empty() {
            shared::close_aside();
            return Ok(bytes.into());
        }
        shared::received(described, bytes).map(|(bytes, attached)| Payload::new(bytes, attached))
    }

    /// A worker is done with it. What was opened for it may be what the next call has, too.
    pub(crate) fn set_aside(self) {
        if let Payload::Loaded(loaded) = self
            && let Ok(loaded) = Arc::try_unwrap(loaded)
        {
            shared::set_aside(loaded.attached);
        }
    }

    /// Memory of an argument that was moved into the call and copied, with room for a result of this length.
    pub(crate) fn take_emptied(&self, len: usize) -> Option<Vec<u8>> {
        shared::take_emptied(self.attached(), len)
    }

    /// Whether memory of what is attached is to be used again.
    pub(crate) fn is_used_again(&self) -> bool {
        shared::is_any_spare(self.attached())
    }

    /// Somebody is about to be told where what is attached is.
    pub(crate) fn lend(&self) {
        shared::lend(self.attached());
    }

    /// Somebody who was told has let go of it, for certain.
    pub(crate) fn take_back(&self) {
        shared::take_back(self.attached());
    }

    /// Has what is attached found by what this thread decodes, until that is closed or dropped.
    pub(crate) fn open(&self) -> Opened<'_> {
        shared::open(self.attached())
    }
}

impl Default for Payload {
    fn default() -> Self {
        Payload::EMPTY
    }
}

impl Deref for Payload {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Payload::Short { len, bytes } => &bytes.0[..usize::from(*len).min(SHORT)],
            Payload::Long(bytes) => bytes,
            Payload::Loaded(loaded) => &loaded.bytes,
        }
    }
}

impl From<&[u8]> for Payload {
    fn from(bytes: &[u8]) -> Self {
        if bytes.len() > SHORT {
            return Payload::Long(Arc::new(bytes.to_vec()));
        }
        let mut short = Short::default();
        short.0[..bytes.len()].copy_from_slice(bytes);
        Payload::Short {
            len: bytes.len() as u8,
            bytes: short,
        }
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        match bytes.len() > SHORT {
            true => Payload::Long(Arc::new(bytes)),
            false => Payload::from(&*bytes),
        }
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Payload) -> bool {
        **self == **other && self.attached() == other.attached()
    }
}

impl Eq for Payload {}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, {} attached", self.len(), self.attached().len())
    }
}
