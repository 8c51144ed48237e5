//! Bytes that processes share, and how they get out of the arguments of a call and into them again.
//!
//! Arguments are encoded into a `Payload`: bytes, and what is attached to them. Attached is every [`SharedBytes`] among the
//! arguments, and a copy of every large `Vec<u8>` or `[u8]`; where they stood, their index is written. A worker that opens what
//! is attached has it without a copy; one that cannot is sent the bytes.
//!
//! Fresh memory costs ten times as much as the copy that goes into it, so that of large arguments is used again: once its
//! last owner is gone, and only if whoever has had it has let go of it. See `docs/bytes.md`.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::ops::{Deref, Range};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::sync::lock;
use crate::sys::{self, Address, Memory};
use crate::wire::{self, Attached};

/// Bytes that any number of workers read and none copies: in an argument they cost the same whatever their length.
///
/// They never change. A clone is the same bytes once more; the memory goes when the last of all processes has dropped the last.
/// Wherever a serializable value may stand in an argument, they may stand: in a struct, in a list, in a [`Call`](crate::Call)
/// that is an argument. A task that gets them can pass them on to tasks of its own. In a result or a message, and in every
/// other format of serde, they are their bytes, and are copied.
///
/// # Platform behaviour
///
/// Linux. They cost one descriptor in each process that has them. Elsewhere, below 64 KiB, without a free descriptor, or for a
/// worker that may not look into this process, they are ordinary bytes, and travel as such.
///
/// # Examples
///
/// ```
/// use inparallel::{task, SharedBytes};
///
/// #[task]
/// fn count(bytes: SharedBytes, wanted: u8) -> usize {
///     bytes.iter().filter(|byte| **byte == wanted).count()
/// }
///
/// let bytes = SharedBytes::with_len(1 << 20, |bytes| bytes[7] = 1);
/// let futures: Vec<_> = (0..3).map(|wanted| count(bytes.clone(), wanted)).collect();   // three workers, one copy
/// drop(bytes);
/// let counts: Result<Vec<usize>, _> = futures.into_iter().map(|future| future.wait()).collect();
/// assert_eq!(counts?, [(1 << 20) - 1, 1, 0]);
/// # Ok::<(), inparallel::Error>(())
/// ```
#[derive(Clone)]
pub struct SharedBytes(Arc<Inner>);

struct Inner {
    store: Store,
    /// Who has been told where it is and has not let go of it.
    lent: AtomicUsize,
    /// It is a copy of an argument, which nobody has but the payloads it is attached to.
    is_spare: AtomicBool,
    /// Where the bytes were that it is a copy of.
    emptied: Mutex<Option<Emptied>>,
}

enum Store {
    Memory(Memory),
    Heap(Vec<u8>),
    /// Came with a call.
    Part(Arc<Vec<u8>>, Range<usize>),
}

impl SharedBytes {
    /// A copy of `bytes`.
    pub fn new(bytes: &[u8]) -> SharedBytes {
        let memory = (bytes.len() >= SMALLEST).then(|| Memory::fixed(bytes));
        match memory {
            Some(Ok(memory)) => Store::Memory(memory).into(),
            _ => Store::Heap(bytes.to_vec()).into(),
        }
    }

    /// As many zeros, which `fill` may change: saves the copy.
    pub fn with_len(len: usize, fill: impl FnOnce(&mut [u8])) -> SharedBytes {
        let mut fill = Some(fill);
        if len >= SMALLEST
            && let Ok(memory) = Memory::filled(len, |bytes| {
                if let Some(fill) = fill.take() {
                    fill(bytes);
                }
            })
        {
            return Store::Memory(memory).into();
        }
        match fill {
            Some(fill) => {
                let mut bytes = vec![0; len];
                fill(&mut bytes);
                Store::Heap(bytes).into()
            }
            None => unreachable!("memory that was filled is there: what could fail comes before"),
        }
    }

    /// Whether workers are told where they are; else they are sent the bytes.
    pub fn is_shared(&self) -> bool {
        matches!(self.0.store, Store::Memory(_))
    }

    fn address(&self) -> Option<Address> {
        match &self.0.store {
            Store::Memory(memory) => memory.address().ok(),
            _ => None,
        }
    }

    /// Its memory is never used for anything else.
    fn keep(&self) {
        self.0.is_spare.store(false, Ordering::Relaxed);
    }
}

impl From<Store> for SharedBytes {
    fn from(store: Store) -> Self {
        SharedBytes(Arc::new(Inner {
            store,
            lent: AtomicUsize::new(0),
            is_spare: AtomicBool::new(false),
            emptied: Mutex::default(),
        }))
    }
}

impl Deref for SharedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0.store {
            Store::Memory(memory) => memory.bytes(),
            Store::Heap(bytes) => bytes,
            Store::Part(bytes, range) => bytes.get(range.clone()).unwrap_or_default(),
        }
    }
}

impl AsRef<[u8]> for SharedBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<&[u8]> for SharedBytes {
    fn from(bytes: &[u8]) -> Self {
        SharedBytes::new(bytes)
    }
}

impl From<Vec<u8>> for SharedBytes {
    fn from(bytes: Vec<u8>) -> Self {
        match bytes.len() {
            0..SMALLEST => Store::Heap(bytes).into(),
            _ => SharedBytes::new(&bytes),
        }
    }
}

impl PartialEq for SharedBytes {
    fn eq(&self, other: &SharedBytes) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || **self == **other
    }
}

impl Eq for SharedBytes {}

impl fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedBytes")
            .field("len", &self.len())
            .field("is_shared", &self.is_shared())
            .finish()
    }
}

/// As it stands among arguments.
#[derive(Serialize, Deserialize)]
enum Place<B> {
    Here(B),
    Attached(u32),
}

impl Serialize for SharedBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !wire::is_of_argument::<S>() {
            return serializer.serialize_bytes(self);
        }
        match attach(self) {
            Some(index) => Place::<Raw<'_>>::Attached(index).serialize(serializer),
            None => Place::Here(Raw(self)).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for SharedBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !wire::is_of_argument::<D>() {
            return Ok(deserializer.deserialize_byte_buf(Bytes)?.into());
        }
        match Place::<Owned>::deserialize(deserializer)? {
            Place::Here(Owned(bytes)) => Ok(bytes.into()),
            Place::Attached(index) => attached(index).map_err(D::Error::custom),
        }
    }
}

struct Raw<'a>(&'a [u8]);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

struct Owned(Vec<u8>);

impl<'de> Deserialize<'de> for Owned {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_byte_buf(Bytes).map(Owned)
    }
}

/// Bytes, in whatever form a format has them.
struct Bytes;

impl<'de> Visitor<'de> for Bytes {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }

    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
        Ok(bytes)
    }

    fn visit_str<E>(self, text: &str) -> Result<Vec<u8>, E> {
        Ok(text.as_bytes().to_vec())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<u8>, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = items.next_element()? {
            bytes.push(byte);
        }
        Ok(bytes)
    }
}

/// What `encode` attaches; `None`: nothing, as is mostly so.
#[inline(always)]
pub(crate) fn collect<E>(encode: impl FnOnce() -> Result<(), E>) -> Result<Option<Vec<SharedBytes>>, E> {
    let _outer = Outer(COUNT.replace(Some(0)));
    encode()?;
    Ok(take_collected())
}

/// Where this thread goes on when something is encoded.
struct Outer(Option<u32>);

impl Drop for Outer {
    #[inline(always)]
    fn drop(&mut self) {
        // What a failure has left. Asked here, as to drop nothing may take a call.
        if let Some(left) = take_collected() {
            drop(left);
        }
        COUNT.set(self.0);
    }
}

#[inline(always)]
fn take_collected() -> Option<Vec<SharedBytes>> {
    match COUNT.get() {
        None | Some(0) => None,
        Some(count) => Some(take_last(count)),
    }
}

#[inline(never)]
fn take_last(count: u32) -> Vec<SharedBytes> {
    COUNT.set(Some(0));
    ENCODED.with_borrow_mut(|encoded| encoded.split_off(encoded.len().saturating_sub(count as usize)))
}

/// How a worker is told of what is attached.
pub(crate) fn describe(attached: &[SharedBytes], by_bytes: bool) -> Vec<Attached> {
    let describe = |bytes: &SharedBytes| match bytes.address().filter(|_| !by_bytes) {
        Some(Address {
            pid,
            number,
            device,
            inode,
            len,
        }) => Attached::Memory {
            pid,
            number,
            device,
            inode,
            len,
        },
        None => Attached::Behind {
            len: bytes.len() as u64,
        },
    };
    attached.iter().map(describe).collect()
}

/// In a worker: what was described, and the arguments out of the bytes that arrived.
///
/// # Errors
///
/// Something cannot be opened.
pub(crate) fn received(
    described: &[Attached],
    mut bytes: Vec<u8>,
) -> io::Result<(Vec<u8>, Vec<SharedBytes>)> {
    let mut attached: Vec<Option<SharedBytes>> = Vec::new();
    let mut aside = take_aside();
    let mut behind = 0usize;
    let cut = || io::Error::from(io::ErrorKind::InvalidData);
    for one in described {
        attached.push(match *one {
            Attached::Behind { len } => {
                let len = usize::try_from(len).map_err(|_| cut())?;
                behind = behind.checked_add(len).ok_or_else(cut)?;
                None
            }
            Attached::Memory {
                pid,
                number,
                device,
                inode,
                len,
            } => {
                let address = Address {
                    pid,
                    number,
                    device,
                    inode,
                    len,
                };
                let known = aside.iter_mut().position(|memory| memory.open_again(&address));
                let memory = match known {
                    Some(index) => aside.swap_remove(index),
                    None => Memory::open(&address)?,
                };
                Some(Store::Memory(memory).into())
            }
        });
    }
    let mut at = bytes.len().checked_sub(behind).ok_or_else(cut)?;
    let whole = match behind {
        0 => Arc::default(),
        _ => {
            let arguments = bytes[..at].to_vec();
            Arc::new(std::mem::replace(&mut bytes, arguments))
        }
    };
    let lens = described.iter().map(|one| match one {
        Attached::Behind { len } => *len as usize,
        Attached::Memory { .. } => 0,
    });
    let parts = attached.into_iter().zip(lens).map(|(opened, len)| {
        opened.unwrap_or_else(|| {
            let range = at..at + len;
            at = range.end;
            Store::Part(Arc::clone(&whole), range).into()
        })
    });
    let attached = parts.collect();
    Ok((bytes, attached))
}

/// Whether memory among these is to be used again.
pub(crate) fn is_any_spare(attached: &[SharedBytes]) -> bool {
    attached
        .iter()
        .any(|bytes| bytes.0.is_spare.load(Ordering::Relaxed))
}

/// Somebody is about to be told where these are.
pub(crate) fn lend(attached: &[SharedBytes]) {
    for bytes in attached {
        bytes.0.lent.fetch_add(1, Ordering::Relaxed);
    }
}

/// Somebody who was told has let go of them, for certain.
pub(crate) fn take_back(attached: &[SharedBytes]) {
    for bytes in attached {
        bytes.0.lent.fetch_sub(1, Ordering::Release);
    }
}

/// Has these found by what this thread decodes, until that is closed or dropped.
///
/// No function that runs the task: backtraces of tasks are long enough.
pub(crate) fn open(attached: &[SharedBytes]) -> Opened<'_> {
    if attached.is_empty() {
        return Opened {
            attached,
            earlier: None,
            forks: 0,
        };
    }
    sys::watch_forks();
    Opened {
        attached,
        earlier: Some(DECODED.replace(attached.to_vec())),
        forks: sys::forks(),
    }
}

/// Arguments that are being decoded, or used.
pub(crate) struct Opened<'a> {
    attached: &'a [SharedBytes],
    earlier: Option<Vec<SharedBytes>>,
    forks: u64,
}

impl Opened<'_> {
    /// Whether a copy of this process was made meanwhile, which may have borrowed what is attached.
    pub(crate) fn close(self) -> bool {
        self.earlier.is_some() && sys::forks() != self.forks
    }
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        if let Some(earlier) = self.earlier.take() {
            DECODED.set(earlier);
            if sys::forks() != self.forks {
                self.attached.iter().for_each(SharedBytes::keep);
            }
        }
    }
}

thread_local! {
    /// How much is attached to the arguments that this thread is encoding, if it is.
    static COUNT: Cell<Option<u32>> = const { Cell::new(None) };
    /// What is attached to them, behind that of those which wait for them to be done.
    static ENCODED: RefCell<Vec<SharedBytes>> = const { RefCell::new(Vec::new()) };
    /// What was attached to those that it decodes.
    static DECODED: RefCell<Vec<SharedBytes>> = const { RefCell::new(Vec::new()) };
}

/// Attaches bytes to the arguments that are being encoded, if there are any.
fn attach(bytes: &SharedBytes) -> Option<u32> {
    // Whoever gets them may keep them.
    bytes.keep();
    push(|| Some(bytes.clone()))
}

/// Attaches a copy, which lives as long as the payload.
pub(crate) fn attach_copy(bytes: &[u8]) -> Option<u32> {
    push(|| {
        let memory = spare(bytes).or_else(|| new_memory(bytes))?;
        let copy = SharedBytes::from(Store::Memory(memory));
        copy.0.is_spare.store(true, Ordering::Relaxed);
        Some(copy)
    })
}

/// Keeps the memory that the last bytes were copied from, for the call's result. Pages that are there already save as much as the
/// copy of the result costs.
pub(crate) fn keep_emptied(bytes: Vec<u8>) {
    let Some(emptied) = Emptied::new(bytes) else {
        return;
    };
    ENCODED.with_borrow(|encoded| {
        if let Some(copy) = encoded.last() {
            *lock(&copy.0.emptied) = Some(emptied);
        }
    });
}

/// Memory that was kept, with room for so much and not much more.
pub(crate) fn take_emptied(attached: &[SharedBytes], len: usize) -> Option<Vec<u8>> {
    attached.iter().find_map(|bytes| {
        // In a fork nobody may ever open the lock.
        let mut emptied = bytes.0.emptied.try_lock().ok()?;
        let fits = |emptied: &mut Emptied| {
            let room = emptied.0.capacity();
            // Whoever gets the result keeps all of the room.
            room >= len && room - room / 8 <= len
        };
        emptied.take_if(fits).map(Emptied::into_bytes)
    })
}

/// Memory that is kept for a result, and counts.
struct Emptied(Vec<u8>);

impl Emptied {
    /// `None`: enough is kept.
    fn new(bytes: Vec<u8>) -> Option<Emptied> {
        let room = bytes.capacity();
        let kept = EMPTIED.fetch_add(room, Ordering::Relaxed);
        let emptied = Emptied(bytes);
        (kept.saturating_add(room) <= MOST_EMPTIED).then_some(emptied)
    }

    fn into_bytes(mut self) -> Vec<u8> {
        let bytes = std::mem::take(&mut self.0);
        EMPTIED.fetch_sub(bytes.capacity(), Ordering::Relaxed);
        bytes
    }
}

impl Drop for Emptied {
    fn drop(&mut self) {
        EMPTIED.fetch_sub(self.0.capacity(), Ordering::Relaxed);
    }
}

/// How many bytes are kept for results.
static EMPTIED: AtomicUsize = AtomicUsize::new(0);

fn push(make: impl FnOnce() -> Option<SharedBytes>) -> Option<u32> {
    let index = COUNT.get()?;
    let count = index.checked_add(1)?;
    let bytes = make()?;
    ENCODED.with_borrow_mut(|encoded| encoded.push(bytes));
    COUNT.set(Some(count));
    Some(index)
}

/// What has this index in the call that is being decoded.
pub(crate) fn attached(index: u32) -> Result<SharedBytes, String> {
    DECODED
        .with_borrow(|decoded| decoded.get(index as usize).cloned())
        .ok_or_else(|| format!("nothing is attached as number {index}"))
}

/// In a worker, between two calls: keeps open what the program is likely to use for the next. To open it and to find its pages
/// takes about as long as to copy it.
pub(crate) fn set_aside(attached: Vec<SharedBytes>) {
    let memory = attached.into_iter().filter_map(|bytes| {
        let mut inner = Arc::try_unwrap(bytes.0).ok()?;
        match std::mem::replace(&mut inner.store, Store::Heap(Vec::new())) {
            Store::Memory(memory) if memory.set_aside() => Some(memory),
            _ => None,
        }
    });
    let memory: Vec<Memory> = memory.collect();
    if !memory.is_empty() {
        *lock(&ASIDE) = memory;
        ASIDE_OF.store(sys::generation() + 1, Ordering::Relaxed);
    }
}

/// Whether something is kept open for the next call.
#[inline]
pub(crate) fn has_aside() -> bool {
    ASIDE_OF.load(Ordering::Relaxed) == sys::generation() + 1
}

/// Before a call runs: what it does not use is closed. By now there may be the arguments of others in it, and the task may be a
/// stranger's before long.
#[inline]
pub(crate) fn close_aside() {
    drop(take_aside());
}

#[inline]
fn take_aside() -> Vec<Memory> {
    if !has_aside() {
        return Vec::new();
    }
    ASIDE_OF.store(0, Ordering::Relaxed);
    std::mem::take(&mut lock(&ASIDE))
}

static ASIDE: Mutex<Vec<Memory>> = Mutex::new(Vec::new());

/// The process that has set something aside: its generation, counted from one; zero: none. Where the memory lies, a copy of that
/// process has nothing, or something of its own, and must not close it.
static ASIDE_OF: AtomicU64 = AtomicU64::new(0);

impl Drop for Inner {
    fn drop(&mut self) {
        if !*self.is_spare.get_mut() {
            return;
        }
        let Store::Memory(memory) = std::mem::replace(&mut self.store, Store::Heap(Vec::new())) else {
            return;
        };
        match *self.lent.get_mut() {
            0 => keep_spare(memory),
            // Somebody may still read it.
            _ => forget(memory),
        }
    }
}

/// Memory of earlier arguments.
static SPARES: Mutex<Vec<(Instant, Memory)>> = Mutex::new(Vec::new());

/// How many bytes all memory of arguments has, used and spare.
static TAKEN: AtomicUsize = AtomicUsize::new(0);

fn spare(bytes: &[u8]) -> Option<Memory> {
    // In a fork nobody may ever open the lock. What is there belongs to the original, and refuses to be written.
    let mut spares = SPARES.try_lock().ok()?;
    let fits = |memory: &Memory| memory.room() >= bytes.len() && memory.room() / 4 <= bytes.len();
    let index = spares.iter().rposition(|(_, memory)| fits(memory))?;
    let (_, mut memory) = spares.swap_remove(index);
    drop(spares);
    memory.rewrite(bytes).then_some(memory)
}

fn new_memory(bytes: &[u8]) -> Option<Memory> {
    if TAKEN.load(Ordering::Relaxed) + bytes.len() > MOST_TAKEN {
        // What lies unused may be what is missing.
        tidy(Duration::ZERO);
    }
    if TAKEN.load(Ordering::Relaxed) + bytes.len() > MOST_TAKEN {
        return None;
    }
    let memory = Memory::rewritable(bytes).ok()?;
    TAKEN.fetch_add(memory.room(), Ordering::Relaxed);
    Some(memory)
}

fn keep_spare(memory: Memory) {
    match SPARES.try_lock() {
        Ok(mut spares) if spares.len() < MOST_SPARES => spares.push((Instant::now(), memory)),
        _ => forget(memory),
    }
}

fn forget(memory: Memory) {
    TAKEN.fetch_sub(memory.room(), Ordering::Relaxed);
}

/// Gives back memory that has not been used for so long; whether there is more, used or not.
pub(crate) fn tidy(unused_for: Duration) -> bool {
    let mut old = Vec::new();
    if let Ok(mut spares) = SPARES.try_lock() {
        old.extend(spares.extract_if(.., |(since, _)| since.elapsed() >= unused_for));
    }
    old.into_iter().for_each(|(_, memory)| forget(memory));
    TAKEN.load(Ordering::Relaxed) > 0
}

/// Whether memory of arguments is taken, which [`tidy`] may one day give back.
pub(crate) fn is_any_taken() -> bool {
    TAKEN.load(Ordering::Relaxed) > 0
}

/// Whether a worker that had memory can have kept nothing of it that it may not look at anyway.
pub(crate) fn is_open_book(pid: u32) -> bool {
    sys::has_our_rights(pid)
}

/// Below this a descriptor costs more than the copies.
const SMALLEST: usize = 64 << 10;

/// Arguments from here on get memory of their own. A pipe takes about as long for fewer.
pub(crate) const WORTH_ATTACHING: usize = 4 << 20;

/// All memory of arguments together; what exceeds it goes through the pipe.
const MOST_TAKEN: usize = 512 << 20;
const MOST_SPARES: usize = 8;

/// All memory together that awaits results.
const MOST_EMPTIED: usize = 128 << 20;

#[cfg(test)]
#[path = "shared_tests.rs"]
mod tests;
