//! What is the same on every platform.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Classes of operating system errors for which there is advice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(windows, expect(dead_code, reason = "no process, no shortage of them"))]
pub(crate) enum ErrnoClass {
    TooManyFiles,
    TooManyProcesses,
    Other,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(windows, expect(dead_code, reason = "no process, no end of one"))]
pub(crate) enum ExitStatus {
    Exited(i32),
    Signaled {
        signal: i32,
        core: bool,
    },
    /// Somebody else took the status, and the kernel did not keep it.
    Unknown,
}

/// Which of a process's channels something happened on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Token(pub(crate) u64);

/// Something to look at, from [`Poller::wait`](super::Poller::wait).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ready {
    pub(crate) token: Token,
}

/// What to wait for on a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interest {
    Readable,
    Writable,
}

/// Where a process has memory that another may open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) pid: u32,
    /// The descriptor there.
    pub(crate) number: i32,
    /// Which file it must be.
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) len: u64,
}

/// A place for one value that lives as long as the process, and that a fork can empty without a lock.
pub(crate) struct Global<T>(AtomicPtr<T>);

impl<T: Sync> Global<T> {
    pub(crate) const fn new() -> Self {
        Global(AtomicPtr::new(std::ptr::null_mut()))
    }

    pub(crate) fn get(&self) -> Option<&'static T> {
        let pointer = self.0.load(Ordering::Acquire);
        // SAFETY: the pointer is null or comes from `Box::leak` in `replace`; a leaked box is never freed.
        unsafe { pointer.as_ref() }
    }

    /// Puts `new` in the place of `old`, unless another thread was faster; returns what is there then.
    pub(crate) fn replace(&self, old: Option<&'static T>, new: Box<T>) -> &'static T {
        let old = old.map_or(std::ptr::null_mut(), |old| std::ptr::from_ref(old).cast_mut());
        let new = Box::into_raw(new);
        match self
            .0
            .compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire)
        {
            // SAFETY: `new` was just leaked and is never freed from here on.
            Ok(_) => unsafe { &*new },
            Err(there) => {
                // SAFETY: `new` was made by `Box::into_raw` above, and nobody else has seen it.
                drop(unsafe { Box::from_raw(new) });
                // SAFETY: a pointer in the cell is not null once a value was put there, and is never freed.
                unsafe { &*there }
            }
        }
    }
}

/// A task's way in that another process of the same image can find: a constant whose distance from [`ANCHOR`] is the
/// same in every process that runs this image.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Entry<A: 'static> {
    magic: [u64; 2],
    /// The number alone stands wherever it is compared with; before this address it stands nowhere else.
    anchor: &'static u64,
    type_name: fn() -> &'static str,
    pub(crate) run: fn(&[u8]) -> A,
}

/// What every [`Entry`] begins with.
#[repr(C)]
struct Mark {
    magic: [u64; 2],
    anchor: usize,
}

/// A function that captures nothing, as an [`Entry`].
pub(crate) trait Runnable<A: 'static> {
    /// Decodes what it needs, runs `self`, and answers.
    fn run(self, input: &[u8]) -> A;
}

struct EntryOf<A, F>(PhantomData<(A, F)>);

impl<A: 'static, F: Runnable<A> + Copy> EntryOf<A, F> {
    const ENTRY: &'static Entry<A> = &Entry {
        magic: ENTRY_MAGIC,
        anchor: &ANCHOR,
        type_name: std::any::type_name::<F>,
        run: run_conjured::<A, F>,
    };
}

impl<A: 'static> Entry<A> {
    /// The entry of `function`, which must capture nothing: checked when it is compiled.
    pub(crate) fn of<F: Runnable<A> + Copy>(_function: F) -> &'static Entry<A> {
        const { assert!(size_of::<F>() == 0, "a task's entry captures nothing") };
        EntryOf::<A, F>::ENTRY
    }

    /// What another process needs to find it: the distance from the anchor, and the type's name as a cross-check.
    pub(crate) fn address(&'static self) -> (i64, &'static str) {
        let here = std::ptr::from_ref(self) as usize as i64;
        (here.wrapping_sub(anchor_address() as i64), (self.type_name)())
    }
}

fn run_conjured<A: 'static, F: Runnable<A> + Copy>(input: &[u8]) -> A {
    const { assert!(size_of::<F>() == 0, "a task's entry captures nothing") };
    // SAFETY: `F` has no size and is `Copy`. A value of it exists: an entry is only made by `Entry::of`, which was given
    // one, in this process or in the one whose image this process runs.
    let function: F = unsafe { std::ptr::NonNull::<F>::dangling().as_ptr().read() };
    function.run(input)
}

/// Proof that the process which names entries runs the same image as this one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SameImage(());

impl SameImage {
    /// Compares build ids.
    pub(crate) fn check(theirs: &[u8]) -> Option<SameImage> {
        // Without an identity of its own, no program is known to be the same.
        (!theirs.is_empty() && super::build_id() == theirs).then_some(SameImage(()))
    }

    /// Finds a function that another process of this image gave the distance of.
    pub(crate) fn function(self, distance: i64) -> Result<fn(), String> {
        let address = (anchor_address() as i64).wrapping_add(distance) as usize;
        let (start, end) = super::image_range();
        if !(start..end).contains(&address) {
            return Err(format!(
                "the function at distance {distance} lies outside of the program"
            ));
        }
        let pointer = std::ptr::with_exposed_provenance::<()>(address);
        // SAFETY: `self` proves that the image is the same, and `distance_of` measured a `fn()` of it.
        Ok(unsafe { std::mem::transmute::<*const (), fn()>(pointer) })
    }

    /// Finds an entry by its distance and checks that it is the one that is meant.
    pub(crate) fn find<A: 'static>(
        self,
        distance: i64,
        type_name: &str,
    ) -> Result<&'static Entry<A>, String> {
        let entry = self.entry_at(distance)?;
        let found = (entry.type_name)();
        if found != type_name {
            return Err(format!(
                "the task at distance {distance} is {found}, not {type_name}"
            ));
        }
        Ok(entry)
    }

    /// Touches what finding and running an entry touches first, if there is one.
    pub(crate) fn touch<A: 'static>(self, distance: i64) {
        if let Ok(entry) = self.entry_at::<A>(distance) {
            let _ = (entry.type_name)();
            super::touch_code(entry.run as *const () as usize);
        }
    }

    fn entry_at<A: 'static>(self, distance: i64) -> Result<&'static Entry<A>, String> {
        let address = (anchor_address() as i64).wrapping_add(distance) as usize;
        let (start, end) = super::image_range();
        let fits = address.is_multiple_of(align_of::<Entry<A>>())
            && address >= start
            && address
                .checked_add(size_of::<Entry<A>>())
                .is_some_and(|after| after <= end);
        if !fits {
            return Err(format!(
                "the task's entry at distance {distance} lies outside of the program"
            ));
        }
        let entry = std::ptr::with_exposed_provenance::<Entry<A>>(address);
        // An entry begins with this: both are `repr(C)`.
        let mark = entry.cast::<Mark>();
        // SAFETY: the address is aligned and inside of the loaded image, which stays mapped and readable. Any bytes are
        // valid numbers.
        let mark = unsafe { mark.read_volatile() };
        if mark.magic != ENTRY_MAGIC || mark.anchor != anchor_address() {
            return Err(format!("there is no task at distance {distance}"));
        }
        // SAFETY: the mark says that an `Entry` stands here, and `self` proves that the image is the same, so that the
        // caller's `A` is the one it was made with. Entries are constants: never changed, never unmapped.
        Ok(unsafe { &*entry })
    }
}

/// Where a function stands, for another process of the same image. `None`: it is not part of the program.
pub(crate) fn distance_of(function: fn()) -> Option<i64> {
    let address = function as usize;
    let (start, end) = super::image_range();
    (start..end)
        .contains(&address)
        .then(|| (address as i64).wrapping_sub(anchor_address() as i64))
}

/// The value as what it is, if its type is `U`.
pub(crate) fn as_same<T, U: 'static>(value: &T) -> Option<&U> {
    let pointer = std::ptr::from_ref(value).cast::<U>();
    // SAFETY: the types are the same, and `U` has no lifetime that `T` could have another of.
    is_same::<T, U>().then(|| unsafe { &*pointer })
}

/// The slice as what it is, if its items are `U`s.
pub(crate) fn as_same_slice<T, U: 'static>(slice: &[T]) -> Option<&[U]> {
    let pointer = slice.as_ptr().cast::<U>();
    // SAFETY: as above; pointer and length are those of a slice.
    is_same::<T, U>().then(|| unsafe { std::slice::from_raw_parts(pointer, slice.len()) })
}

/// A slice as what it is, if the items that are wanted are its own.
pub(crate) fn slice_known_as<T, U: 'static>(slice: &[U]) -> Option<&[T]> {
    let pointer = slice.as_ptr().cast::<T>();
    // SAFETY: as above; pointer and length are those of a slice.
    is_same::<T, U>().then(|| unsafe { std::slice::from_raw_parts(pointer, slice.len()) })
}

/// A value as what it is, if the type that is wanted is its own.
pub(crate) fn into_same<T, U: 'static>(value: U) -> Option<T> {
    if !is_same::<T, U>() {
        return None;
    }
    let value = std::mem::ManuallyDrop::new(value);
    let pointer = std::ptr::from_ref(&*value).cast::<T>();
    // SAFETY: as above; the original is never dropped or used again.
    Some(unsafe { pointer.read() })
}

/// A value as what it is, if its type is `U`.
pub(crate) fn known_as<T, U: 'static>(value: T) -> Result<U, T> {
    if !is_same::<T, U>() {
        return Err(value);
    }
    let value = std::mem::ManuallyDrop::new(value);
    let pointer = std::ptr::from_ref(&*value).cast::<U>();
    // SAFETY: as above; the original is never dropped or used again.
    Ok(unsafe { pointer.read() })
}

/// Whether two types are the same but for lifetimes, which `U` has none of.
pub(crate) fn is_same<T, U: 'static>() -> bool {
    typeid::of::<T>() == std::any::TypeId::of::<U>()
}

/// Whether tasks can be found in a fresh execution of the program: not where this crate sits in a loaded library.
pub(crate) fn is_in_program() -> bool {
    let (start, end) = super::image_range();
    (start..end).contains(&anchor_address())
}

fn anchor_address() -> usize {
    (&raw const ANCHOR).expose_provenance()
}

/// The fixed point that entries are measured from. A static, not a function: functions may be moved by the linker.
static ANCHOR: u64 = 0x616e_6368_6f72_0001;

const ENTRY_MAGIC: [u64; 2] = [0x696e_7061_7261_6c6c, 0x7461_736b_2d65_6e74];
