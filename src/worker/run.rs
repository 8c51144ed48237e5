//! Running tasks: from encoded arguments to an answer.

use std::io;
use std::marker::PhantomData;

use serde::Serialize;

use crate::argument::Refused;
use crate::nesting;
use crate::sys::{self, Entry, Fd, Runnable, SameImage};
use crate::transport::{self, FrameReader};
use crate::wire::{self, Answer, Assembler, Call, Frame, Reply, Report, ToWorker};
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

impl<C, R, D, F> Runnable<Answer> for Remote<C, R, D, F>
where
    R: Serialize,
    D: Fn(&mut &[u8]) -> Result<C, Refused>,
    F: Fn(C) -> R,
{
    fn run(self, mut input: &[u8]) -> Answer {
        let arguments = match panics::catch(|| (self.decode)(&mut input)) {
            Ok(Ok(arguments)) if input.is_empty() => arguments,
            Ok(Ok(_)) => {
                let reason = format!("{} bytes are left over after the arguments", input.len());
                return Reply::ArgumentNotDecodable {
                    type_name: wire::type_name_of::<C>(),
                    reason,
                }
                .into();
            }
            Ok(Err(Refused { type_name, reason })) => {
                return Reply::ArgumentNotDecodable { type_name, reason }.into();
            }
            Err(panic) => return Reply::Panicked(panic).into(),
        };
        answer_of(|| (self.function)(arguments))
    }
}

/// Runs a task here and now; its panic, and its result, become an answer.
pub(crate) fn answer_of<R: Serialize>(task: impl FnOnce() -> R) -> Answer {
    let answered = panics::catch(|| {
        let value = task();
        let is_err = wire::is_err_value(&value);
        match wire::encode(&value) {
            Ok(payload) => Answer {
                reply: Reply::Returned { is_err },
                payload,
            },
            Err(reason) => Reply::ResultNotEncodable {
                type_name: wire::type_name_of::<R>(),
                reason,
            }
            .into(),
        }
    });
    answered.unwrap_or_else(|panic| Reply::Panicked(panic).into())
}

/// Where a worker answers, and who it is: a task may do anything to its process.
struct Desk<'a> {
    replies: &'a Fd,
    pipe: sys::FileId,
    pid: u32,
}

impl<'a> Desk<'a> {
    fn new(replies: &'a Fd) -> io::Result<Self> {
        Ok(Desk {
            replies,
            pipe: replies.file_id()?,
            pid: std::process::id(),
        })
    }

    /// What the task printed comes before its answer: with the answer its output is complete.
    fn respond(&self, answer: Answer) -> io::Result<()> {
        if std::process::id() != self.pid {
            // A copy that the task made of its process, which came back from the task too. The answer is not its own.
            sys::exit_now(0);
        }
        sys::finish_output();
        if nesting::has_detached() {
            self.say(Reply::Lingers, &[])?;
        }
        self.say(answer.reply, &answer.payload)
    }

    fn say(&self, reply: Reply, payload: &[u8]) -> io::Result<()> {
        if self.replies.file_id().ok() != Some(self.pipe) {
            // The task closed it, and the number may be a file of its own by now.
            return Err(io::Error::other("the task closed the descriptor of its worker"));
        }
        transport::write_frame(self.replies, &Report { pid: self.pid, reply }, payload)
    }

    /// Stays for what the task detached, and until that too is written out.
    fn linger(&self) {
        if nesting::has_detached() {
            nesting::linger();
            sys::finish_output();
        }
    }
}

/// Tells the program that the process which it executed is a worker now.
pub(super) fn report_ready(replies: &Fd) -> io::Result<()> {
    Desk::new(replies)?.say(Reply::Ready, &[])
}

/// Runs tasks until the program closes the channel.
pub(crate) fn serve(reader: &mut FrameReader<'_>, replies: &Fd, image: SameImage) -> io::Result<()> {
    let desk = Desk::new(replies)?;
    while let Some(Frame { message, payload }) = reader.next::<ToWorker>()? {
        let answer = match message {
            ToWorker::Call(call) => perform(&call, &payload, image),
            ToWorker::Hello(_) => Reply::Refused {
                reason: "a second handshake".into(),
            }
            .into(),
        };
        desk.respond(answer)?;
    }
    desk.linger();
    Ok(())
}

/// In a copy that `StartMethod::Fork` made: runs the one task that it was made for.
pub(crate) fn run_forked<R: Serialize>(
    replies: &Fd,
    ready: io::Result<()>,
    depth: u32,
    task: impl FnOnce() -> R,
) {
    nesting::set_depth_of_process(depth);
    let Ok(desk) = Desk::new(replies) else {
        sys::exit_now(CANNOT_ANSWER);
    };
    let answer = match ready {
        Ok(()) => answer_of(task),
        Err(error) => cannot_begin(&error),
    };
    match desk.respond(answer) {
        Ok(()) => desk.linger(),
        // The program is gone, or the task closed the way to it.
        Err(_) => sys::exit_now(CANNOT_ANSWER),
    }
}

/// In a copy that the fork server made: runs tasks until the program closes the channel.
pub(super) fn run_served(
    calls: &Fd,
    replies: &Fd,
    ready: io::Result<()>,
    image: SameImage,
) -> io::Result<()> {
    match ready {
        Ok(()) => serve(&mut FrameReader::new(calls), replies, image),
        Err(error) => Desk::new(replies)?.respond(cannot_begin(&error)),
    }
}

/// In a worker that has nothing to do yet: goes once through what a task will need, so that its pages are there.
pub(super) fn warm_up() {
    let call = Call {
        task: 0,
        entry: 0,
        type_name: String::new(),
        depth: 0,
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

fn perform(call: &Call, arguments: &[u8], image: SameImage) -> Answer {
    nesting::set_depth_of_process(call.depth);
    if let Some(setup) = &call.setup
        && let Err(error) = sys::adopt_setup(setup.directory.as_deref(), setup.environment.as_deref())
    {
        let reason = format!("cannot enter the program's working directory: {error}");
        return Reply::Refused { reason }.into();
    }
    let entry: Result<&Entry<Answer>, _> = image.find(call.entry, &call.type_name);
    match entry {
        Ok(entry) => (entry.run)(arguments),
        Err(reason) => Reply::Refused { reason }.into(),
    }
}

/// The exit status of a worker that has no way to answer any more.
pub(super) const CANNOT_ANSWER: i32 = 122;
