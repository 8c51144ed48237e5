//! `Pool::map`: items to calls, calls to chunks, chunks to results.
//!
//! Everything here happens in the thread that asks for results. A chunk is one task of the pool; its results come as
//! messages, the last of them as its answer, so that those which came before a crash are not lost. What is left of a chunk
//! that died is sent again with its results sent one by one, until the item that kills is known.

mod receiving;
mod results;

use std::collections::BTreeMap;
use std::fmt;
use std::iter::Peekable;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_core::Stream;
use serde::de::DeserializeOwned;

use crate::call::Call;
use crate::error::{Cause, Error, Result};
use crate::ids::Name;
use crate::options::Options;
use crate::pool::Pool;
use crate::pool::map::results::{Results, Run};
use crate::ready::Ready;
use crate::slot::Slot;
use crate::supervisor::{self, Patience};
use crate::sys::Entry;
use crate::wire::{self, Answer, Chunk};
use crate::work::Work;

/// The results of [`Pool::map`]: an iterator, and a [`Stream`].
///
/// **Dropping it** cancels what it has sent to the pool. It is one of both: who iterates first and awaits later gets the
/// rest.
///
/// # Panics
///
/// `next` panics if `items` or `call` do, or the decoding of a result; the pool is none the worse for it, and whoever goes on
/// misses that item alone.
#[must_use = "nothing runs before the first result is asked for"]
pub struct Map<T, I: Iterator, F> {
    pool: Pool,
    call: F,
    items: Peekable<I>,
    chunk_size: Option<usize>,
    buffered: Option<usize>,
    limit: Option<Duration>,
    on_progress: Option<Box<dyn FnMut(usize) + Send>>,
    state: State<T>,
}

struct State<T> {
    ready: Arc<Ready>,
    /// In the order of sending.
    chunks: BTreeMap<u64, Sent>,
    results: Results<T>,
    /// Items that were taken from the input.
    taken: u64,
    chunks_sent: u64,
    deadline: Option<Instant>,
    is_timer_set: bool,
    /// How long an item takes, measured in the workers, and how long its result is.
    nanos_per_item: Option<f64>,
    bytes_per_result: f64,
    /// How long the arguments of an item were, in the last chunk.
    bytes_per_item: f64,
    /// The input makes one wait.
    is_input_slow: bool,
    /// The options of the last call, as they were given and as they hold in the pool.
    options: Option<(Option<Options>, Arc<Options>)>,
    /// The size of the chunks at present.
    size: usize,
    /// So many more results are given before the workers are looked after.
    burst: u32,
    is_over: bool,
}

/// A chunk on its way.
struct Sent {
    slot: Arc<Slot>,
    /// The number of its first item, and how many there are.
    first: u64,
    items: u32,
    /// How many results have come.
    arrived: u32,
    /// Its arguments; a single call is not in a chunk, and cannot be divided.
    bundle: Option<Bundle>,
    is_careful: bool,
}

/// The arguments of many calls of one function.
struct Bundle {
    name: Name,
    /// Its calls have no options of their own.
    is_plain: bool,
    entry: &'static Entry<Answer>,
    options: Arc<Options>,
    /// Each with its length before it.
    arguments: Arc<Vec<u8>>,
}

/// What is being put into a chunk.
#[derive(Default)]
struct Packed {
    items: u32,
    bundle: Option<Bundle>,
    arguments: Vec<u8>,
}

impl Packed {
    /// Takes items for as long as their calls are like those before. Gives the first call that is not, or none: it is full, or
    /// there are no more.
    fn fill<T, I: Iterator>(
        &mut self,
        size: usize,
        items: &mut I,
        call: &mut impl FnMut(I::Item) -> Call<T>,
    ) -> Option<Call<T>> {
        let plain = self.bundle.as_ref().filter(|bundle| bundle.is_plain);
        let plain = plain.map(|bundle| bundle.entry);
        while (self.items as usize) < size && self.arguments.len() < MOST_BYTES {
            let call = match call(items.next()?).into_short(plain) {
                Ok((len, bytes)) => {
                    wire::push_short_piece(len, bytes, &mut self.arguments);
                    self.items += 1;
                    continue;
                }
                Err(call) => call,
            };
            match call.plain_payload() {
                Some(payload) if plain.is_some_and(|plain| std::ptr::eq(plain, call.entries().1)) => {
                    self.push(payload);
                }
                _ => return Some(call),
            }
        }
        None
    }

    #[inline]
    fn push(&mut self, payload: &[u8]) {
        wire::push_piece(payload, &mut self.arguments);
        self.items += 1;
    }

    fn fits(&self, entry: &'static Entry<Answer>, options: &Options) -> bool {
        self.bundle
            .as_ref()
            .is_some_and(|bundle| std::ptr::eq(bundle.entry, entry) && *bundle.options == *options)
    }
}

impl<T, I: Iterator, F> Map<T, I, F> {
    pub(super) fn new(pool: Pool, call: F, items: I) -> Self {
        Map {
            pool,
            call,
            items: items.peekable(),
            chunk_size: None,
            buffered: None,
            limit: None,
            on_progress: None,
            state: State {
                ready: Arc::default(),
                chunks: BTreeMap::new(),
                results: Results::new(),
                taken: 0,
                chunks_sent: 0,
                deadline: None,
                is_timer_set: false,
                nanos_per_item: None,
                bytes_per_result: 0.0,
                bytes_per_item: 0.0,
                is_input_slow: false,
                options: None,
                size: 1,
                burst: 0,
                is_over: false,
            },
        }
    }

    /// Gives results as they arrive, not in the order of the items.
    pub fn unordered(mut self) -> Self {
        self.state.results.set_unordered();
        self
    }

    /// How many items travel to a worker at a time. Default: as many as make about 4 ms of work, and fewer towards the
    /// end, as measured.
    ///
    /// Calls with a time limit, with retries or with a limiter travel alone.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) for zero.
    pub fn chunk_size(mut self, items: usize) -> Result<Self> {
        if items == 0 {
            return Err(Error::invalid(
                "chunk_size",
                0,
                "give at least 1, or leave it out",
            ));
        }
        self.chunk_size = Some(items);
        Ok(self)
    }

    /// How many items may have been taken from the input whose results were not asked for: back-pressure for inputs that
    /// are large, or have no end. Default: some chunks for each worker.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) for zero.
    pub fn buffered(mut self, items: usize) -> Result<Self> {
        if items == 0 {
            return Err(Error::invalid("buffered", 0, "give at least 1, or leave it out"));
        }
        self.buffered = Some(items);
        Ok(self)
    }

    /// How long the whole may take, from the first result that is asked for. When that has passed, every item that was
    /// taken and has no result becomes a [`TimedOut`](crate::ErrorKind::TimedOut), and no more are taken.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) for zero, and for a limit beyond the clock's range.
    pub fn timeout(mut self, limit: Duration) -> Result<Self> {
        Options::new().timeout(limit).check()?;
        self.limit = Some(limit);
        Ok(self)
    }

    /// Calls `callback` with the number of results that have arrived, in the thread that asks for results, whenever there
    /// are more.
    pub fn on_progress(mut self, callback: impl FnMut(usize) + Send + 'static) -> Self {
        self.on_progress = Some(Box::new(callback));
        self
    }
}

impl<T, I, F> Map<T, I, F>
where
    T: DeserializeOwned,
    I: Iterator,
    F: FnMut(I::Item) -> Call<T>,
{
    /// Whether there will be no more results.
    fn is_done(&mut self) -> bool {
        self.state.chunks.is_empty()
            && self.state.results.given() == self.state.taken
            && (self.state.is_over || self.items.peek().is_none())
    }

    fn start_clock(&mut self) {
        if let (None, Some(limit)) = (self.state.deadline, self.limit) {
            self.state.deadline = Instant::now().checked_add(limit);
        }
    }

    /// In a fork of the process that made the pool nothing will ever arrive, and no lock may be touched.
    fn check_process(&mut self) -> Option<Option<Result<T>>> {
        if self.pool.is_ours() {
            return None;
        }
        let is_first = !std::mem::replace(&mut self.state.is_over, true);
        std::mem::forget(std::mem::take(&mut self.state.chunks));
        Some(is_first.then(|| Err(Error::new("", Cause::OtherProcess))))
    }

    /// Whether results come first: there are some, and the workers have enough to do or the input would keep us waiting.
    fn gives_first(&self) -> bool {
        self.state.results.has_next()
            && (self.state.is_input_slow || self.state.chunks.len() >= self.pool.max_workers())
    }

    /// Looks after the workers first.
    #[inline(never)]
    fn next_of_workers(&mut self) -> Option<Result<T>> {
        self.state.burst = BURST;
        self.start_clock();
        loop {
            if let Some(ended) = self.check_process() {
                return ended;
            }
            while let Some(key) = self.state.ready.try_next() {
                self.hear(key);
            }
            if self.is_late() {
                self.give_up();
            }
            if !self.gives_first() {
                self.top_up();
            }
            if let Some(result) = self.state.results.next() {
                return Some(result);
            }
            if self.is_done() {
                return None;
            }
            // Between two looks a chunk may have been refused, whose results are there now.
            if self.state.chunks.is_empty() {
                continue;
            }
            match self.state.ready.next(self.state.deadline, || false) {
                Some(key) => self.hear(key),
                None => self.give_up(),
            }
        }
    }

    // --- sending ---

    /// Sends chunks for as long as the workers could run dry.
    fn top_up(&mut self) {
        let most_chunks = self.pool.max_workers().saturating_mul(2);
        while !self.state.is_over && self.state.chunks.len() < most_chunks {
            let size = self.next_size();
            let room = self.room(size);
            if room < size || self.items.peek().is_none() {
                return;
            }
            let began = Instant::now();
            self.send_next(size);
            self.state.is_input_slow = began.elapsed() > SLOW_INPUT * u32::try_from(size).unwrap_or(u32::MAX);
        }
    }

    /// How many items may be taken. When nothing is ahead, that is a chunk at least.
    fn room(&self, size: usize) -> usize {
        let ahead = usize::try_from(self.state.taken - self.state.results.given()).unwrap_or(usize::MAX);
        let most = self.buffered.unwrap_or_else(|| {
            let workers = self.pool.max_workers();
            let by_count = workers.saturating_mul(CHUNKS_AHEAD).saturating_mul(size.max(FEW));
            // Large results are not piled up.
            let by_bytes = (MOST_BYTES_AHEAD / self.state.bytes_per_result.max(1.0)) as usize;
            by_count.min(by_bytes).max(workers.saturating_mul(2)).max(size)
        });
        most.saturating_sub(ahead)
    }

    fn next_size(&mut self) -> usize {
        if let Some(size) = self.chunk_size {
            return size.min(self.buffered.unwrap_or(size));
        }
        let workers = self.pool.max_workers();
        let mut size = match self.state.nanos_per_item {
            Some(nanos) => ((GOOD_CHUNK.as_nanos() as f64 / nanos.max(1.0)) as usize).clamp(1, MOST_ITEMS),
            None => 1,
        };
        // No more than a chunk has room for: how far ahead items are taken follows from the size.
        size = size.min((MOST_BYTES as f64 / self.state.bytes_per_item.max(1.0)) as usize);
        // A few that took no time do not say what the next will take.
        size = size.min(self.state.size.saturating_mul(GROWTH));
        if let (_, Some(left)) = self.items.size_hint() {
            size = size.min(left.div_ceil(workers.saturating_mul(2)));
        }
        if let Some(buffered) = self.buffered {
            size = size.min(buffered / workers.saturating_mul(4));
        }
        size.max(1)
    }

    fn send_next(&mut self, size: usize) {
        let first = self.state.taken;
        let mut packed = Packed::default();
        while (packed.items as usize) < size && packed.arguments.len() < MOST_BYTES {
            let next = catch_unwind(AssertUnwindSafe(|| {
                packed.fill(size, &mut self.items, &mut self.call)
            }));
            let call = match next {
                Ok(Some(call)) => call,
                Ok(None) => break,
                // What was taken before is sent: whoever goes on after the panic misses nothing but its item.
                Err(panic) => {
                    self.send_bundle(first, packed);
                    resume_unwind(panic);
                }
            };
            let (entry, many) = call.entries();
            let options = self.state.options_in(&self.pool, call.own_options());
            let restricts = options.timeout.is_some() || options.is_retried() || options.limit.is_some();
            let item = first + u64::from(packed.items);
            let payload = match call.payload() {
                Ok(payload) => payload,
                Err(cause) => {
                    self.send_bundle(first, packed);
                    self.state.taken += 1;
                    let error = Error::new(call.name(), cause);
                    return self.arrive(item, Err(error));
                }
            };
            let is_alone = restricts || !payload.attached().is_empty();
            if is_alone || self.chunk_size == Some(1) || packed.items > 0 && !packed.fits(many, &options) {
                self.send_bundle(first, packed);
                let work = Work {
                    entry,
                    payload: payload.clone(),
                };
                let (name, options) = (call.task_name(), options.clone());
                return self.send(item, 1, name, options, work, None, false);
            }
            packed.push(payload);
            if packed.bundle.is_none() {
                packed.bundle = Some(Bundle {
                    is_plain: call.own_options().is_none() && self.chunk_size != Some(1),
                    name: call.task_name(),
                    entry: many,
                    options: options.clone(),
                    arguments: Arc::default(),
                });
            }
        }
        self.state.size = size;
        self.send_bundle(first, packed);
    }

    fn send_bundle(&mut self, first: u64, packed: Packed) {
        if let Some(bundle) = packed.bundle {
            self.state.bytes_per_item = packed.arguments.len() as f64 / f64::from(packed.items);
            let bundle = Bundle {
                arguments: Arc::new(packed.arguments),
                ..bundle
            };
            self.send_chunk(first, packed.items, bundle, 0, false);
        }
    }

    /// Sends the calls of a bundle but for the first `skipped`.
    fn send_chunk(&mut self, first: u64, items: u32, bundle: Bundle, skipped: u32, is_careful: bool) {
        let mut rest: &[u8] = &bundle.arguments;
        for _ in 0..skipped {
            // Made here, a moment ago: every piece is whole.
            let _ = wire::next_piece(&mut rest);
        }
        let chunk = Chunk {
            items: items - skipped,
            is_careful,
        };
        let mut payload = wire::encode(&chunk).unwrap_or_default();
        payload.reserve_exact(rest.len());
        payload.extend_from_slice(rest);
        let work = Work {
            entry: bundle.entry,
            payload: payload.into(),
        };
        let (name, options) = (bundle.name, bundle.options.clone());
        let bundle = Bundle {
            arguments: match skipped {
                0 => bundle.arguments,
                _ => Arc::new(rest.to_vec()),
            },
            ..bundle
        };
        let first = first + u64::from(skipped);
        self.send(first, chunk.items, name, options, work, Some(bundle), is_careful);
    }

    #[expect(clippy::too_many_arguments, reason = "each is one fact of the chunk")]
    fn send(
        &mut self,
        first: u64,
        items: u32,
        name: Name,
        options: Arc<Options>,
        work: Work,
        bundle: Option<Bundle>,
        is_careful: bool,
    ) {
        self.state.taken = self.state.taken.max(first + u64::from(items));
        let slot = supervisor::slot(name);
        let key = self.state.chunks_sent;
        self.state.chunks_sent += 1;
        // How much may come is bounded by `room`.
        slot.read_messages(false);
        slot.watch_messages(&self.state.ready, key);
        let entered = options
            .check()
            .and_then(|()| self.pool.enter(&slot, Some(&options), work, Patience::Unbounded));
        match entered {
            Ok(()) => {
                let sent = Sent {
                    slot,
                    first,
                    items,
                    arrived: 0,
                    bundle,
                    is_careful,
                };
                self.state.chunks.insert(key, sent);
            }
            Err(error) => {
                // The next would be refused likewise.
                self.state.is_over = true;
                let error = error.with_task(name.to_string());
                self.state.results.arrive(first, Run::Failed(error, items.into()));
            }
        }
    }
}

impl<T, I, F> Iterator for Map<T, I, F>
where
    T: DeserializeOwned,
    I: Iterator,
    F: FnMut(I::Item) -> Call<T>,
{
    type Item = Result<T>;

    #[inline]
    fn next(&mut self) -> Option<Result<T>> {
        if self.state.burst > 0
            && self.pool.is_ours()
            && let Some(result) = self.state.results.next()
        {
            self.state.burst -= 1;
            return Some(result);
        }
        self.next_of_workers()
    }
}

impl<T, I, F> Stream for Map<T, I, F>
where
    T: DeserializeOwned + Unpin,
    I: Iterator + Unpin,
    I::Item: Unpin,
    F: FnMut(I::Item) -> Call<T> + Unpin,
{
    type Item = Result<T>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<T>>> {
        let this = self.get_mut();
        this.start_clock();
        if let Some(deadline) = this.state.deadline
            && !std::mem::replace(&mut this.state.is_timer_set, true)
        {
            let ready = Arc::clone(&this.state.ready);
            // Without a supervisor nothing else comes either, and every chunk says so.
            let _ = supervisor::later(deadline, Box::new(move || ready.wake_all()));
        }
        loop {
            if let Some(ended) = this.check_process() {
                return Poll::Ready(ended);
            }
            this.state.ready.set_waker(context.waker());
            while let Some(key) = this.state.ready.try_next() {
                this.hear(key);
            }
            if this.is_late() {
                this.give_up();
            }
            if !this.gives_first() {
                this.top_up();
            }
            if let Some(result) = this.state.results.next() {
                return Poll::Ready(Some(result));
            }
            if this.is_done() {
                return Poll::Ready(None);
            }
            if !this.state.chunks.is_empty() {
                return Poll::Pending;
            }
        }
    }
}

impl<T> State<T> {
    /// What holds for a call in the pool. Calls mostly have the same options as the one before.
    fn options_in(&mut self, pool: &Pool, given: Option<&Options>) -> Arc<Options> {
        match &self.options {
            Some((last, options)) if last.as_ref() == given => Arc::clone(options),
            _ => {
                let none = Options::new();
                let options = Arc::new(pool.options_for(given.unwrap_or(&none)));
                self.options = Some((given.cloned(), Arc::clone(&options)));
                options
            }
        }
    }
}

impl<T, I: Iterator, F> Drop for Map<T, I, F> {
    fn drop(&mut self) {
        // The last first: no worker that becomes free by it takes another.
        for sent in self.state.chunks.values().rev() {
            sent.slot.cancel();
        }
    }
}

impl<T, I: Iterator, F> fmt::Debug for Map<T, I, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map")
            .field("taken", &self.state.taken)
            .field("given", &self.state.results.given())
            .field("chunks_under_way", &self.state.chunks.len())
            .finish()
    }
}

/// Work for so long is worth its way to a worker and back many times over, and short enough to share out evenly.
const GOOD_CHUNK: Duration = Duration::from_millis(4);

/// A chunk is at most so many times as large as the one before.
const GROWTH: usize = 8;

/// An input that takes longer for an item keeps results waiting that are there.
const SLOW_INPUT: Duration = Duration::from_micros(200);

/// Results that nobody has asked for take no more than about so much memory.
const MOST_BYTES_AHEAD: f64 = (64 << 20) as f64;

/// So many results that are there are given in a row.
const BURST: u32 = 32;

const MOST_ITEMS: usize = 1 << 20;
const MOST_BYTES: usize = 1 << 20;

/// How far ahead of the results items are taken, in chunks for each worker, and what counts as a small chunk there.
const CHUNKS_AHEAD: usize = 8;
const FEW: usize = 16;
