//! Running tasks: from encoded arguments to an answer.

use std::io;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::argument::{self, Refused};
use crate::ids::{About, TaskId};
use crate::nesting;
use crate::sync::lock;
use crate::sys::{self, Entry, Fd, Runnable, SameImage};
use crate::task_context::{self, Outlet, Pipe};
use crate::transport::{self, FrameReader};
use crate::wire::{self, Answer, Assembler, Batch, Call, Chunk, Frame, Reply, Report, ToWorker};
use crate::worker::panics;

/// A task's function as a worker runs it: on arguments that it decodes.
pub(crate) struct Remote<C, R, D, F> {
    decode: D,
    function: F,
    types: PhantomData<fn(C) -> R>,
}

impl<C, R, D, F> Remote<C, R, D, F> {
    pub(crate) fn new(decode: D, function: F) -> Self {
        Remote {
            decode,
            function,
            types: PhantomData,
        }
    }
}

impl<C, R, D: Copy, F: Copy> Clone for Remote<C, R, D, F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C, R, D: Copy, F: Copy> Copy for Remote<C, R, D, F> {}

/// A task's function as a worker runs it many times, each time on arguments of its own.
pub(crate) struct Many<C, R, D, F>(pub(crate) Remote<C, R, D, F>);

impl<C, R, D: Copy, F: Copy> Clone for Many<C, R, D, F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C, R, D: Copy, F: Copy> Copy for Many<C, R, D, F> {}

/// Results are sent as messages, the last of them as the answer: how many, how long it took, and one after the other,
/// each with its length before it. An answer that came in time is not lost when a later item ends the worker.
impl<C, R, D, F> Runnable<Answer> for Many<C, R, D, F>
where
    R: Serialize,
    D: Fn(&mut &[u8]) -> Result<C, Refused> + Copy,
    F: Fn(C) -> R + Copy,
{
    fn run(self, mut input: &[u8]) -> Answer {
        let not_decodable = |reason| {
            let type_name = wire::type_name_of::<C>();
            Reply::ArgumentNotDecodable { type_name, reason }
        };
        let Chunk { items, is_careful } = match wire::decode_next(&mut input) {
            Ok(chunk) => chunk,
            Err(reason) => return not_decodable(reason).into(),
        };
        task_context::mute();
        let mut results = Results::new();
        let mut value = Vec::new();
        let (mut stride, mut unmeasured) = (1, 0);
        for _ in 0..items {
            let item = match wire::next_piece(&mut input) {
                Ok(item) => item,
                Err(reason) => return not_decodable(reason).into(),
            };
            value.clear();
            let reply = self.0.run_into(item, &mut value);
            results.push(&reply, &value);
            unmeasured += 1;
            if is_careful {
                results.send();
            } else if unmeasured >= stride {
                // Looking at the clock takes longer than a tiny item.
                unmeasured = 0;
                match results.began.elapsed() {
                    age if age >= LONGEST_HELD_BACK => {
                        results.send();
                        stride = 1;
                    }
                    age if age < LONGEST_HELD_BACK / 8 => stride = (stride * 2).min(LONGEST_STRIDE),
                    _ => {}
                }
            }
        }
        Answer {
            reply: Reply::Returned { is_err: false },
            payload: results.take(),
        }
    }
}

/// Results on their way back.
struct Results {
    count: u32,
    began: Instant,
    bytes: Vec<u8>,
}

impl Results {
    fn new() -> Self {
        Results {
            count: 0,
            began: Instant::now(),
            bytes: wire::begin_batch(),
        }
    }

    fn push(&mut self, reply: &Reply, value: &[u8]) {
        self.count += 1;
        wire::push_result(reply, value, &mut self.bytes);
    }

    fn take(&mut self) -> Vec<u8> {
        let batch = Batch {
            items: std::mem::take(&mut self.count),
            nanos: u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX),
        };
        self.began = Instant::now();
        let mut bytes = std::mem::replace(&mut self.bytes, wire::begin_batch());
        wire::end_batch(batch, &mut bytes);
        bytes
    }

    fn send(&mut self) {
        let batch = self.take();
        // A program that is gone takes this process along.
        let _ = task_context::send_bytes(batch);
    }
}

impl<C, R, D, F> Runnable<Answer> for Remote<C, R, D, F>
where
    R: Serialize,
    D: Fn(&mut &[u8]) -> Result<C, Refused>,
    F: Fn(C) -> R,
{
    fn run(self, input: &[u8]) -> Answer {
        let mut payload = Vec::new();
        let reply = self.run_into(input, &mut payload);
        Answer { reply, payload }
    }
}

impl<C, R, D, F> Remote<C, R, D, F>
where
    R: Serialize,
    D: Fn(&mut &[u8]) -> Result<C, Refused>,
    F: Fn(C) -> R,
{
    /// Runs the task on encoded arguments; the encoded result goes to `output`.
    fn run_into(&self, mut input: &[u8], output: &mut Vec<u8>) -> Reply {
        let arguments = match panics::catch(|| (self.decode)(&mut input)) {
            Ok(Ok(arguments)) if input.is_empty() => arguments,
            Ok(Ok(_)) => {
                return Reply::ArgumentNotDecodable {
                    type_name: wire::type_name_of::<C>(),
                    reason: format!("{} bytes are left over after the arguments", input.len()),
                };
            }
            Ok(Err(Refused { type_name, reason })) => {
                return Reply::ArgumentNotDecodable { type_name, reason };
            }
            Err(panic) => return Reply::Panicked(panic),
        };
        reply_of(|| (self.function)(arguments), output)
    }
}

/// Runs a task here and now; its panic, and its result, become an answer.
pub(crate) fn answer_of<R: Serialize>(task: impl FnOnce() -> R) -> Answer {
    let mut payload = Vec::new();
    let reply = reply_of(task, &mut payload);
    Answer { reply, payload }
}

fn reply_of<R: Serialize>(task: impl FnOnce() -> R, output: &mut Vec<u8>) -> Reply {
    let answered = panics::catch(|| {
        let value = task();
        let is_err = wire::is_err_value(&value);
        match argument::encode_value(&value, output) {
            Ok(()) => Reply::Returned { is_err },
            Err(reason) => Reply::ResultNotEncodable {
                type_name: wire::type_name_of::<R>(),
                reason,
            },
        }
    });
    let reply = answered.unwrap_or_else(Reply::Panicked);
    if !matches!(reply, Reply::Returned { .. }) {
        output.clear();
    }
    reply
}

/// Where a worker answers, and who it is: a task may do anything to its process.
pub(super) struct Desk {
    replies: Fd,
    pipe: sys::FileId,
    pid: u32,
    /// The task that may speak, which its threads may do at once.
    speaking: Mutex<Option<TaskId>>,
}

impl Desk {
    pub(super) fn new(replies: Fd) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Desk {
            pipe: replies.file_id()?,
            replies,
            pid: std::process::id(),
            speaking: Mutex::new(None),
        }))
    }

    /// What the task printed comes before its answer: with the answer its output is complete.
    fn respond(&self, answer: Answer) -> io::Result<()> {
        if std::process::id() != self.pid {
            // A copy that the task made of its process, which came back from the task too. The answer is not its own.
            sys::exit_now(0);
        }
        sys::finish_output();
        let mut speaking = lock(&self.speaking);
        *speaking = None;
        if nesting::has_detached() {
            self.say(Reply::Lingers, &[])?;
        }
        self.say(answer.reply, &answer.payload)
    }

    /// Runs a task that may speak until it has answered.
    fn run(self: &Arc<Self>, about: About, task: impl FnOnce() -> Answer) -> Answer {
        *lock(&self.speaking) = Some(about.id);
        task_context::run_as(about, Outlet::Pipe(Arc::clone(self) as Arc<dyn Pipe>), task)
    }

    fn say(&self, reply: Reply, payload: &[u8]) -> io::Result<()> {
        if self.replies.file_id().ok() != Some(self.pipe) {
            // The task closed it, and the number may be a file of its own by now.
            return Err(io::Error::other("the task closed the descriptor of its worker"));
        }
        transport::write_frame(&self.replies, &Report { pid: self.pid, reply }, payload)
    }

    /// Stays for what the task detached, and until that too is written out.
    fn linger(&self) {
        if nesting::has_detached() {
            nesting::linger();
            sys::finish_output();
        }
    }
}

impl Pipe for Desk {
    fn say_for(&self, task: TaskId, reply: Reply, payload: &[u8]) -> io::Result<()> {
        let speaking = lock(&self.speaking);
        match *speaking == Some(task) {
            true => self.say(reply, payload),
            false => Ok(()),
        }
    }
}

/// Tells the program that the process which it executed is a worker now.
pub(super) fn report_ready(desk: &Desk) -> io::Result<()> {
    desk.say(Reply::Ready, &[])
}

/// Runs tasks until the program closes the channel.
pub(super) fn serve(reader: &mut FrameReader<'_>, desk: &Arc<Desk>, image: SameImage) -> io::Result<()> {
    while let Some(Frame { message, payload }) = reader.next::<ToWorker>()? {
        let answer = match message {
            ToWorker::Call(call) => perform(call, &payload, image, desk),
            ToWorker::Hello(_) => Reply::Refused {
                reason: "a second handshake".into(),
            }
            .into(),
        };
        desk.respond(answer)?;
        if sys::is_asked_to_end() {
            // A task that took note of it has returned.
            break;
        }
    }
    desk.linger();
    Ok(())
}

/// In a copy that `StartMethod::Fork` made: runs the one task that it was made for.
pub(crate) fn run_forked(
    replies: Fd,
    ready: io::Result<()>,
    depth: u32,
    about: About,
    task: impl FnOnce() -> Answer,
) {
    nesting::set_depth_of_process(depth);
    let Ok(desk) = Desk::new(replies) else {
        sys::exit_now(CANNOT_ANSWER);
    };
    let answer = match ready {
        Ok(()) => desk.run(about, task),
        Err(error) => cannot_begin(&error),
    };
    match desk.respond(answer) {
        Ok(()) => desk.linger(),
        // The program is gone, or the task closed the way to it.
        Err(_) => sys::exit_now(CANNOT_ANSWER),
    }
}

/// In a copy that the fork server made: runs tasks until the program closes the channel.
pub(super) fn run_served(calls: &Fd, replies: Fd, ready: io::Result<()>, image: SameImage) -> io::Result<()> {
    let desk = Desk::new(replies)?;
    match ready {
        Ok(()) => serve(&mut FrameReader::new(calls), &desk, image),
        Err(error) => desk.respond(cannot_begin(&error)),
    }
}

/// In a worker that has nothing to do yet: goes once through what a task will need, so that its pages are there.
pub(super) fn warm_up() {
    let call = Call {
        task: 0,
        entry: 0,
        type_name: String::new(),
        depth: 0,
        name: String::new(),
        attempt: 1,
        limit: None,
        setup: None,
    };
    let frame = wire::frame_head(&ToWorker::Call(call), 0).unwrap_or_default();
    let frame = Assembler::new(0).feed::<ToWorker>(&mut &*frame);
    let answer = answer_of(|| frame.is_ok());
    let report = wire::frame_head(
        &Report {
            pid: std::process::id(),
            reply: answer.reply,
        },
        answer.payload.len(),
    );
    sys::finish_output();
    drop(report);
}

fn cannot_begin(error: &io::Error) -> Answer {
    Reply::Refused {
        reason: format!("set up the worker: {error}"),
    }
    .into()
}

fn perform(call: Call, arguments: &[u8], image: SameImage, desk: &Arc<Desk>) -> Answer {
    nesting::set_depth_of_process(call.depth);
    if let Some(setup) = &call.setup
        && let Err(error) = sys::adopt_setup(setup.directory.as_deref(), setup.environment.as_deref())
    {
        let reason = format!("cannot enter the program's working directory: {error}");
        return Reply::Refused { reason }.into();
    }
    let entry: Result<&Entry<Answer>, _> = image.find(call.entry, &call.type_name);
    match entry {
        Ok(entry) => {
            let about = About {
                id: TaskId(call.task),
                name: call.name,
                attempt: call.attempt,
                limit: call.limit,
            };
            desk.run(about, || (entry.run)(arguments))
        }
        Err(reason) => Reply::Refused { reason }.into(),
    }
}

/// A result is not held back for longer than this, while others are added to it.
const LONGEST_HELD_BACK: Duration = Duration::from_micros(100);

/// So many items may pass between two looks at the clock.
const LONGEST_STRIDE: u32 = 16;

/// The exit status of a worker that has no way to answer any more.
pub(super) const CANNOT_ANSWER: i32 = 122;
