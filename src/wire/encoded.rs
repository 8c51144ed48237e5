//! Bytes as they are written, a few of them without memory of their own.

/// As much as makes a payload as large as a vector.
pub(crate) const SHORT: usize = 16;

/// A few bytes. Where they begin is where words do: what is written as a word is copied as one, without a wait for it.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(8))]
pub(crate) struct Short(pub(crate) [u8; SHORT]);

/// What is being encoded. Most arguments are few bytes.
#[derive(Debug, Default)]
pub struct Encoded {
    /// Of all of them. Up to [`SHORT`] they are in `short`, else in `long`.
    len: usize,
    short: Short,
    long: Vec<u8>,
}

/// What was encoded.
pub(crate) enum Written {
    Short { len: u8, bytes: Short },
    Long(Vec<u8>),
}

impl Written {
    pub(crate) fn into_vec(self) -> Vec<u8> {
        match self {
            Written::Short { len, bytes } => bytes.0[..usize::from(len)].to_vec(),
            Written::Long(bytes) => bytes,
        }
    }
}

impl Encoded {
    /// Inlined, it knows how many they are.
    #[inline(always)]
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        match self.short.0.get_mut(self.len..end) {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.len = end;
            }
            None => self.push_long(bytes),
        }
    }

    #[inline(never)]
    fn push_long(&mut self, bytes: &[u8]) {
        if let Some(short) = self.short.0.get(..self.len) {
            self.long.extend_from_slice(short);
        }
        self.long.extend_from_slice(bytes);
        self.len += bytes.len();
    }

    /// So many more follow.
    pub(crate) fn reserve(&mut self, more: usize) {
        let len = self.len + more;
        if len > SHORT {
            self.long.reserve(len - self.long.len());
        }
    }

    #[inline]
    pub(crate) fn finish(self) -> Written {
        match self.len {
            0..=SHORT => Written::Short {
                len: self.len as u8,
                bytes: self.short,
            },
            _ => Written::Long(self.long),
        }
    }
}
