//! Running tasks: from encoded arguments to an answer.

use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex};

use serde::Serialize;

use crate::argument::{self, Refused};
use crate::board::Come;
use crate::buffers;
use crate::ids::{About, TaskId};
use crate::nesting;
use crate::payload::Payload;
use crate::shared;
use crate::sync::{self, lock};
use crate::sys::{self, Entry, Fd, Gate, Passed, Runnable, SameImage};
use crate::task_context::{self, Outlet, Pipe};
use crate::transport::{self, FrameReader};
use crate::wire::{self, Answer, Assembler, Call, Frame, Reply, Report, Setup, ToWorker};
use crate::worker::panics;
use crate::worker::posts::{self, Posts};

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
    /// Runs the task on encoded arguments; the encoded result is added to `output`.
    fn run_into(&self, input: &[u8], output: &mut Vec<u8>) -> Reply {
        reply_of(output, |output| reply(self.run_bare(input, output)))
    }

    /// As above, but for a panic, which goes on, and for what a failure has added. Gives whether the result is an `Err`.
    #[inline]
    pub(super) fn run_bare(&self, mut input: &[u8], output: &mut Vec<u8>) -> Result<bool, Reply> {
        match (self.decode)(&mut input) {
            Ok(arguments) if input.is_empty() => tell((self.function)(arguments), output),
            Ok(_) => Err(Reply::ArgumentNotDecodable {
                type_name: wire::type_name_of::<C>(),
                reason: format!("{} bytes are left over after the arguments", input.len()),
            }),
            Err(Refused { type_name, reason }) => Err(Reply::ArgumentNotDecodable { type_name, reason }),
        }
    }
}

/// Runs a task here and now; its panic, and its result, become an answer.
pub(crate) fn answer_of<R: Serialize>(task: impl FnOnce() -> R) -> Answer {
    let mut payload = Vec::new();
    let reply = reply_of(&mut payload, |output| reply(tell(task(), output)));
    Answer { reply, payload }
}

/// Runs user code that may panic. What it has added to `output` stays only if there is a result.
fn reply_of(output: &mut Vec<u8>, run: impl FnOnce(&mut Vec<u8>) -> Reply) -> Reply {
    let before = output.len();
    let reply = panics::catch(|| run(output)).unwrap_or_else(Reply::Panicked);
    if !matches!(reply, Reply::Returned { .. }) {
        output.truncate(before);
    }
    reply
}

/// Adds a result to `output`.
#[inline]
fn tell<R: Serialize>(value: R, output: &mut Vec<u8>) -> Result<bool, Reply> {
    let is_err = wire::is_err_value(&value);
    match argument::encode_output(value, output) {
        Ok(()) => Ok(is_err),
        Err(reason) => Err(Reply::ResultNotEncodable {
            type_name: wire::type_name_of::<R>(),
            reason,
        }),
    }
}

/// Whether a result is an `Err`, or why there is none.
fn reply(told: Result<bool, Reply>) -> Reply {
    match told {
        Ok(is_err) => Reply::Returned { is_err },
        Err(failure) => failure,
    }
}

/// Where a worker answers, and who it is: a task may do anything to its process.
pub(super) struct Desk {
    replies: Fd,
    pipe: sys::FileId,
    pid: u32,
    /// The task that may speak, which its threads may do at once; and whether it did.
    speaking: Mutex<(Option<TaskId>, bool)>,
}

impl Desk {
    pub(super) fn new(replies: Fd) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Desk {
            pipe: replies.file_id()?,
            replies,
            pid: std::process::id(),
            speaking: Mutex::default(),
        }))
    }

    /// What the task printed comes before its answer: with the answer its output is complete.
    fn respond(&self, answer: Answer) -> io::Result<()> {
        if std::process::id() != self.pid {
            // A copy that the task made of its process, which came back from the task too. The answer is not its own.
            sys::exit_now(0);
        }
        sys::finish_output();
        // Held: nothing that the task's threads say comes behind its answer.
        let mut speaking = lock(&self.speaking);
        *speaking = (None, false);
        self.say_answer(answer)
    }

    /// By the pipe.
    fn say_answer(&self, Answer { reply, payload }: Answer) -> io::Result<()> {
        if nesting::has_detached() {
            self.say(Reply::Lingers, &[])?;
        }
        self.say(reply, &payload)?;
        buffers::prepare(payload);
        Ok(())
    }

    /// Runs a task that may speak until it has answered.
    fn run(self: &Arc<Self>, about: About, task: impl FnOnce() -> Answer) -> Answer {
        *lock(&self.speaking) = (Some(about.id), false);
        task_context::run_as(about, Outlet::Pipe(Arc::clone(self) as Arc<dyn Pipe>), task)
    }

    /// Whether the way to the program is there: a task may close it, and the number may be a file of its own by now.
    fn has_pipe(&self) -> bool {
        self.replies.file_id().ok() == Some(self.pipe)
    }

    fn say(&self, reply: Reply, payload: &[u8]) -> io::Result<()> {
        if !self.has_pipe() {
            return Err(io::Error::other("the task closed the descriptor of its worker"));
        }
        transport::write_frame(&self.replies, &Report { pid: self.pid, reply }, payload)
    }

    /// Answers a task that stood on the board: there if that can be, else by the pipe.
    fn respond_posted(&self, posts: &mut Posts, answer: Answer) -> io::Result<()> {
        if posts.is_copy(self.pid) {
            // As above.
            sys::exit_now(0);
        }
        sys::finish_output();
        let mut speaking = lock(&self.speaking);
        let (_, has_spoken) = std::mem::take(&mut *speaking);
        if let Reply::Returned { is_err } = answer.reply
            && !has_spoken
            && !nesting::has_detached()
            && posts.takes(&answer.payload)
        {
            if posts.answer(Some((is_err, &answer.payload))) {
                self.say(Reply::Bell, &[])?;
            }
            buffers::prepare(answer.payload);
            return Ok(());
        }
        posts.answer(None);
        self.say_answer(answer)
    }

    /// A copy of this process may still read what was attached to the arguments. The answer comes by the pipe, behind this.
    fn say_shared(&self) {
        if std::process::id() != self.pid {
            // The copy itself, which has come back from the task too.
            return;
        }
        let mut speaking = lock(&self.speaking);
        speaking.1 = true;
        // If the program is gone, the answer will not arrive either.
        let _ = self.say(Reply::Shares, &[]);
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
        let mut speaking = lock(&self.speaking);
        if speaking.0 != Some(task) {
            return Ok(());
        }
        speaking.1 = true;
        self.say(reply, payload)
    }
}

/// Tells the program that the process which it executed is a worker now.
pub(super) fn report_ready(desk: &Desk) -> io::Result<()> {
    desk.say(Reply::Ready, &[])
}

/// Runs tasks until the program closes the channel.
pub(super) fn serve(reader: &mut FrameReader<'_>, desk: &Arc<Desk>, image: SameImage) -> io::Result<()> {
    let mut serving = Serving::new(desk, image);
    // A task that took note of being asked to end has returned by then.
    while !sys::is_asked_to_end() && serving.step(reader)? {}
    desk.linger();
    Ok(())
}

/// A worker at its tasks.
struct Serving<'a> {
    desk: &'a Arc<Desk>,
    image: SameImage,
    posts: Option<Posts>,
    /// Calls that were read before the board said that it is their turn.
    in_pipe: VecDeque<(Call, Vec<u8>)>,
    /// What could not be adopted of the program's surroundings.
    setup: Option<Setup>,
}

impl<'a> Serving<'a> {
    fn new(desk: &'a Arc<Desk>, image: SameImage) -> Self {
        Serving {
            desk,
            image,
            posts: None,
            in_pipe: VecDeque::new(),
            setup: None,
        }
    }

    /// Does what comes next; false: the program has closed the channel.
    fn step(&mut self, reader: &mut FrameReader<'_>) -> io::Result<bool> {
        let next = match &mut self.posts {
            Some(posts) => posts.next(),
            None => posts::Work::Sleep,
        };
        match next {
            posts::Work::Sleep => self.read(reader),
            posts::Work::Ring => {
                self.desk.say(Reply::Bell, &[])?;
                Ok(true)
            }
            posts::Work::Run(entry, about) => {
                let Some(posts) = &mut self.posts else {
                    return Ok(true);
                };
                shared::close_aside();
                let answer = self.desk.run(about, || (entry.run)(posts.arguments()));
                self.desk.respond_posted(posts, answer)?;
                Ok(true)
            }
            posts::Work::Refused(reason) => {
                if let Some(posts) = &mut self.posts {
                    self.desk
                        .respond_posted(posts, Reply::Refused { reason }.into())?;
                }
                Ok(true)
            }
            posts::Work::InPipe { is_wanted } => {
                while self.in_pipe.is_empty() {
                    if !self.read(reader)? {
                        return Ok(false);
                    }
                }
                let Some((call, payload)) = self.in_pipe.pop_front() else {
                    return Ok(true);
                };
                if !is_wanted {
                    if self.posts.as_mut().is_some_and(Posts::pass) {
                        self.desk.say(Reply::Bell, &[])?;
                    }
                    return Ok(true);
                }
                let Some((call, arguments)) = self.receive_posted(call, payload, reader)? else {
                    return Ok(false);
                };
                let answer = self.perform(call, &arguments);
                arguments.set_aside();
                if let Some(posts) = &mut self.posts {
                    self.desk.respond_posted(posts, answer)?;
                }
                Ok(true)
            }
        }
    }

    /// Takes the next frame from the pipe; false: there is none.
    fn read(&mut self, reader: &mut FrameReader<'_>) -> io::Result<bool> {
        let has_kept = buffers::has_kept() || shared::has_aside();
        if has_kept && !reader.is_there_within(buffers::KEPT_FOR) {
            buffers::give_back();
            shared::close_aside();
        }
        let Some(Frame { message, payload }) = reader.next::<ToWorker>()? else {
            return Ok(false);
        };
        match message {
            ToWorker::Call(call) if call.is_posted => self.keep(call, payload),
            ToWorker::Call(call) => match Payload::received(&call.attached, payload) {
                Ok(arguments) => {
                    let answer = self.perform(call, &arguments);
                    arguments.set_aside();
                    self.desk.respond(answer)?;
                }
                Err(_) => self.desk.say(Reply::NeedsBytes, &[])?,
            },
            ToWorker::Board(board) => {
                self.setup = board.setup.clone();
                // Where that fails, each call says so.
                self.posts = match self.adopt_setup() {
                    Ok(()) => Posts::open(&board).ok(),
                    Err(_) => None,
                };
                let is_open = self.posts.is_some();
                self.desk.say(Reply::Board { is_open }, &[])?;
            }
            ToWorker::Bell => {}
            ToWorker::Hello(_) => {
                let reason = "a second handshake".into();
                self.desk.respond(Reply::Refused { reason }.into())?;
            }
        }
        Ok(true)
    }

    /// A call has its turn when the board says so.
    fn keep(&mut self, call: Call, payload: Vec<u8>) {
        if let (Some(posts), Some(_)) = (&mut self.posts, call.remember) {
            posts.remember(self.image.find(call.entry, &call.type_name), &call);
        }
        self.in_pipe.push_back((call, payload));
    }

    /// The arguments of a call that has its turn, and the call, which comes once more if what is attached cannot be opened.
    /// `None`: the program has closed the channel.
    fn receive_posted(
        &mut self,
        call: Call,
        payload: Vec<u8>,
        reader: &mut FrameReader<'_>,
    ) -> io::Result<Option<(Call, Payload)>> {
        if let Ok(arguments) = Payload::received(&call.attached, payload) {
            return Ok(Some((call, arguments)));
        }
        self.desk.say(Reply::NeedsBytes, &[])?;
        while let Some(Frame { message, payload }) = reader.next::<ToWorker>()? {
            match message {
                ToWorker::Call(call) if call.is_posted => self.keep(call, payload),
                ToWorker::Call(call) => {
                    let arguments = Payload::received(&call.attached, payload)?;
                    return Ok(Some((call, arguments)));
                }
                // The board is looked at in any case.
                _ => {}
            }
        }
        Ok(None)
    }

    /// Enters the program's surroundings, unless that was done.
    fn adopt_setup(&mut self) -> Result<(), Reply> {
        let Some(setup) = &self.setup else {
            return Ok(());
        };
        match sys::adopt_setup(setup.directory.as_deref(), setup.environment.as_deref()) {
            Ok(()) => {
                self.setup = None;
                Ok(())
            }
            Err(error) => {
                let reason = format!("cannot enter the program's working directory: {error}");
                Err(Reply::Refused { reason })
            }
        }
    }

    fn perform(&mut self, mut call: Call, arguments: &Payload) -> Answer {
        nesting::set_depth_of_process(call.depth);
        self.setup = call.setup.take().or(self.setup.take());
        if let Err(reply) = self.adopt_setup() {
            return reply.into();
        }
        let entry: Result<&Entry<Answer>, _> = self.image.find(call.entry, &call.type_name);
        match entry {
            Ok(entry) => {
                let about = About {
                    id: TaskId(call.task),
                    name: call.name.into(),
                    attempt: call.attempt,
                    limit: call.limit,
                };
                let opened = arguments.open();
                let answer = self.desk.run(about, || (entry.run)(arguments));
                if opened.close() {
                    self.desk.say_shared();
                }
                answer
            }
            Err(reason) => Reply::Refused { reason }.into(),
        }
    }
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

/// In a copy that the fork server made before there was a call: waits for the one that it gets, and runs it behind the gate.
/// The channel's end is a call that never comes.
pub(super) fn run_when_called(
    calls: &Fd,
    replies: Fd,
    posts: Option<Posts>,
    ready: io::Result<()>,
    image: SameImage,
    gate: Fd,
) -> io::Result<()> {
    let desk = Desk::new(replies)?;
    let come = posts.as_ref().map_or(Ok(Come::InPipe), Posts::wait_for_one)?;
    let in_pipe = match come {
        Come::Over => return Ok(()),
        Come::AtGate => None,
        Come::InPipe => match FrameReader::new(calls).next::<ToWorker>()? {
            None => return Ok(()),
            frame => frame,
        },
    };
    // The whole call is here. From the gate on, what becomes of this process is the call's.
    let passed = ready.and_then(|()| Gate::pass(gate));
    let answer = match passed {
        Err(error) => cannot_begin(&error),
        Ok(Passed { words, .. }) => match in_pipe.or_else(|| whole_frame(&words)) {
            Some(Frame {
                message: ToWorker::Call(call),
                payload,
            }) if call.attached.is_empty() => Serving::new(&desk, image).perform(call, &payload.into()),
            _ => Reply::Refused {
                reason: "something else where a call was due".into(),
            }
            .into(),
        },
    };
    match posts {
        // What a task did to the pipe comes before its answer.
        Some(mut posts) if desk.has_pipe() && desk.replies.unread() == 0 => {
            desk.respond_posted(&mut posts, answer)?;
            // Who looks out for the answer may wait for this very core, and the end of a process takes longer than its task.
            sync::give_way();
        }
        _ => desk.respond(answer)?,
    }
    desk.linger();
    Ok(())
}

/// The frame that these bytes are.
fn whole_frame(mut bytes: &[u8]) -> Option<Frame<ToWorker>> {
    let frame = Assembler::new(sys::LONGEST_WORDS as u64).feed(&mut bytes).ok()?;
    frame.filter(|_| bytes.is_empty())
}

/// Goes once through what a task will need, so that its pages are there and its symbols are found: in the fork server, whose
/// workers inherit what can be inherited, and in a worker that has nothing to do yet.
pub(super) fn warm_up() {
    let frame = call_for_nobody(0, "").unwrap_or_default();
    let frame = Assembler::new(0).feed::<ToWorker>(&mut &*frame);
    let about = About {
        id: TaskId(0),
        name: Arc::default(),
        attempt: 1,
        limit: None,
    };
    let answer = task_context::run_as(about, Outlet::Pipe(Arc::new(Nowhere)), || {
        answer_of(|| frame.is_ok())
    });
    let report = wire::frame_head(
        &Report {
            pid: std::process::id(),
            reply: answer.reply,
        },
        answer.payload.len(),
    );
    sys::finish_output();
    drop(report);
    // A decoder that finds nothing to decode.
    drop(wire::decode::<Call>(&[]));
}

/// The frame of a call without arguments that nobody has made.
pub(super) fn call_for_nobody(entry: i64, type_name: &str) -> Result<Vec<u8>, String> {
    let call = Call {
        task: 0,
        entry,
        type_name: type_name.to_owned(),
        depth: 0,
        name: String::new(),
        attempt: 1,
        limit: None,
        setup: None,
        is_posted: false,
        remember: None,
        attached: Vec::new(),
    };
    wire::frame_head(&ToWorker::Call(call), 0)
}

/// Where a task that is none speaks to.
struct Nowhere;

impl Pipe for Nowhere {
    fn say_for(&self, _: TaskId, _: Reply, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

fn cannot_begin(error: &io::Error) -> Answer {
    Reply::Refused {
        reason: format!("set up the worker: {error}"),
    }
    .into()
}

/// The exit status of a worker that has no way to answer any more.
pub(super) const CANNOT_ANSWER: i32 = 122;
