//! `StartMethod::ForkServer`, the program's side: one helper process that forks workers on request.
//!
//! The channel to it never blocks. Few launches are under way at a time, so that the others wait as entries, without
//! descriptors, and can still be taken back.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ffi::OsString;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::board::Sheet;
use crate::error::Cause;
use crate::ids::WorkerId;
use crate::launch::{
    Entrance, Far, Lines, Order, Ready, Surroundings, cookie, errno, first_call, pipe, pipes, program,
    set_nonblocking, title,
};
use crate::nesting;
use crate::options::Options;
use crate::sys::{self, Boot, Child, Control, Fd, Gate, Spawn, SpawnStderr};
use crate::transport::Outgoing;
use crate::wire::{self, FromServer, Hello, MAGIC, Reply, Role, Setup, ToServer, VERSION};

/// A fork server, from its start to its end.
#[derive(Debug)]
pub(crate) struct Server {
    control: Control,
    /// Another descriptor of the channel, to wait on for room.
    room: Fd,
    child: Child,
    /// What its workers inherit.
    surroundings: Arc<Surroundings>,
    /// Workers are numbered as their tasks come.
    waiting: BTreeMap<WorkerId, Launch>,
    signals: VecDeque<(WorkerId, bool)>,
    /// Launches that were sent and not answered.
    under_way: usize,
    /// Those that were sent, until they are gone.
    workers: HashSet<WorkerId>,
    is_ready: bool,
    is_retired: bool,
    refused: Option<Cause>,
}

/// A launch that waits for its turn.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) worker: WorkerId,
    pub(crate) options: Options,
    pub(crate) order: Order,
    /// Made when it is this launch's turn, and kept while the channel is full.
    made: Option<Made>,
}

#[derive(Debug)]
struct Made {
    lines: Lines,
    far: Far,
    far_calls: Fd,
}

/// What became of a launch that was to be sent.
enum Sent {
    Yes(Box<Lines>),
    /// There is no room in the channel.
    NotNow,
    /// The server is gone.
    Never(io::Error),
}

/// Why a server's workers are gone.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It never served; this is why.
    Refused(Cause),
    /// It ended after it had served.
    Lost(String),
}

impl Server {
    /// Starts one, whose workers inherit these surroundings. It may be sent launches at once.
    pub(crate) fn start(surroundings: Arc<Surroundings>) -> Result<Server, Cause> {
        let step = |what: &'static str| move |error| Cause::launch(format!("fork server: {what}"), error);
        let (control, far) = sys::control_pair().map_err(step("make its channel"))?;
        let cookie = cookie();
        let hello = ToServer::Hello(Hello {
            magic: MAGIC,
            version: VERSION,
            role: Role::Server,
            cookie,
            build_id: sys::build_id().to_vec(),
            depth: 0,
            preload: nesting::use_preload(),
        });
        let hello =
            wire::encode(&hello).map_err(|reason| Cause::refused(format!("fork server: {reason}")))?;
        // The handshake lies in the channel before the server exists: it need not wait for one that may never come.
        control.send(&hello, &[]).map_err(step("send the handshake"))?;
        let room = control.duplicate().map_err(step("duplicate its channel"))?;
        let program = program(&Options::new())?;
        let child = sys::spawn(&Spawn {
            program: &program,
            title: &title("inparallel fork server"),
            boot: &Boot::Server {
                cookie,
                control: &far,
            },
            environment: surroundings.environment.pairs(),
            stderr: SpawnStderr::Inherit,
        })
        .map_err(|error| Cause::launch(format!("fork server: execute {}", program.display()), error))?;
        Ok(Server {
            control,
            room,
            child,
            surroundings,
            waiting: BTreeMap::new(),
            signals: VecDeque::new(),
            under_way: 0,
            workers: HashSet::new(),
            is_ready: false,
            is_retired: false,
            refused: None,
        })
    }

    pub(crate) fn control(&self) -> &Fd {
        self.control.fd()
    }

    pub(crate) fn room(&self) -> &Fd {
        &self.room
    }

    pub(crate) fn child(&self) -> &Child {
        &self.child
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// Whether its workers are the same users as the program is now.
    pub(crate) fn fits(&self, order: &Order) -> bool {
        self.surroundings.identity == order.surroundings.identity
    }

    /// Workers whose launches were sent.
    pub(crate) fn workers(&self) -> Vec<WorkerId> {
        self.workers.iter().copied().collect()
    }

    /// It gets no more launches, and ends when its last worker has.
    pub(crate) fn retire(&mut self) {
        self.is_retired = true;
        self.end_if_unneeded();
    }

    /// Queues a launch. [`pump`](Server::pump) sends it.
    pub(crate) fn queue(&mut self, launch: Launch) {
        self.waiting.insert(launch.worker, launch);
    }

    /// Has a worker made for a call that is still to come. `None`: there is other work, or no room in the channel.
    /// `likely`: what the call before ran.
    pub(crate) fn prepare(
        &mut self,
        worker: WorkerId,
        likely: Option<i64>,
    ) -> Result<Option<(Lines, Ready)>, Cause> {
        let is_busy = !self.waiting.is_empty() || self.under_way >= MOST_UNDER_WAY;
        if is_busy || !self.is_ready || self.is_retired {
            return Ok(None);
        }
        let (replies, stderr, far) = pipes(&Options::new())?;
        let (far_calls, calls) =
            sys::call_pair().map_err(|error| Cause::launch("make a channel for calls", error))?;
        let gate = Gate::pair().map_err(|error| Cause::launch("make a gate", error));
        let ((gate, far_gate), Some(far_stderr)) = (gate?, &far.stderr) else {
            return Ok(None);
        };
        // Without one the answer comes by the pipe only.
        let (sheet, far_board) = Sheet::new().ok().unzip();
        let message = encode(&ToServer::Prepare {
            worker: worker.0,
            has_board: far_board.is_some(),
            likely,
        });
        let sent = message.and_then(|message| {
            let lines = [&far_calls, &far.replies, &far_gate, far_stderr];
            self.control.send_prepare(&message, lines, far_board.as_ref())
        });
        match sent {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            // Its end is on the way.
            Err(error) if is_gone(&error) => return Ok(None),
            Err(error) => return Err(Cause::launch("hand it to the fork server", error)),
        }
        self.under_way += 1;
        self.workers.insert(worker);
        let lines = Lines {
            calls: None,
            setup: None,
            replies,
            stderr,
            _lifeline: None,
            child: None,
            is_up: false,
        };
        let ready = Ready {
            worker,
            pid: None,
            calls: Some(calls),
            entrance: Arc::new(Entrance::new(gate, sheet)),
            base: Arc::clone(&self.surroundings),
            has_said: AtomicBool::new(false),
            generation: sys::generation(),
        };
        Ok(Some((lines, ready)))
    }

    /// Queues a signal. False: the worker's launch was not sent yet, and is taken back.
    pub(crate) fn signal(&mut self, worker: WorkerId, kill: bool) -> bool {
        if self.waiting.remove(&worker).is_some() {
            return false;
        }
        self.signals.push_back((worker, kill));
        true
    }

    /// Sends what can be sent now. `opened` gets the workers whose lines exist from here on, or never will. Whether the
    /// channel is full: then pump again when there is [`room`](Server::room). An error: the server is gone.
    pub(crate) fn pump(&mut self, opened: &mut Vec<(WorkerId, Result<Lines, Cause>)>) -> io::Result<bool> {
        while let Some((worker, kill)) = self.signals.front() {
            let message = ToServer::Signal {
                worker: worker.0,
                kill: *kill,
            };
            if !self.control.send(&encode(&message)?, &[])? {
                return Ok(true);
            }
            self.signals.pop_front();
        }
        while self.under_way < MOST_UNDER_WAY
            && let Some(mut entry) = self.waiting.first_entry()
        {
            let worker = *entry.key();
            match entry.get_mut().send(&self.control, &self.surroundings) {
                Ok(Sent::NotNow) => return Ok(true),
                Ok(Sent::Never(error)) => return Err(error),
                Ok(Sent::Yes(lines)) => {
                    self.under_way += 1;
                    self.workers.insert(worker);
                    opened.push((worker, Ok(*lines)));
                }
                Err(cause) => opened.push((worker, Err(cause))),
            }
            entry.remove();
        }
        self.control.holds_back()
    }

    /// The next word from the server; `Ok(None)`: nothing now.
    pub(crate) fn receive(&mut self) -> io::Result<Option<FromServer>> {
        let Some(request) = self.control.receive()? else {
            return Ok(None);
        };
        let message: FromServer = wire::decode(&request.bytes).map_err(io::Error::other)?;
        match &message {
            FromServer::Ready => self.is_ready = true,
            FromServer::Launched { .. } => self.under_way = self.under_way.saturating_sub(1),
            FromServer::NotLaunched { worker, .. } => {
                self.under_way = self.under_way.saturating_sub(1);
                self.workers.remove(&WorkerId(*worker));
            }
            FromServer::Exited { worker, .. } => _ = self.workers.remove(&WorkerId(*worker)),
            FromServer::Refused(reply) => self.refused = Some(refusal(reply)),
        }
        self.end_if_unneeded();
        Ok(Some(message))
    }

    /// Launches that were not sent: nothing of them is lost with the server. None if it never served, since another one
    /// would not either.
    pub(crate) fn take_unsent(&mut self) -> Vec<Launch> {
        if !self.is_ready {
            return Vec::new();
        }
        let unsent = std::mem::take(&mut self.waiting);
        unsent.into_values().map(Launch::unmade).collect()
    }

    /// The server has ended: its workers, and what becomes of them.
    pub(crate) fn ended(self, status: &str) -> (Vec<WorkerId>, Ended) {
        let ended = match self.refused {
            Some(cause) => Ended::Refused(cause),
            None if self.is_ready => Ended::Lost(format!("the fork server {status}")),
            None => Ended::Refused(Cause::refused(format!(
                "the fork server {status} before it was ready"
            ))),
        };
        (
            self.workers.into_iter().chain(self.waiting.into_keys()).collect(),
            ended,
        )
    }

    fn end_if_unneeded(&self) {
        if self.is_retired && self.workers.is_empty() && self.waiting.is_empty() {
            self.control.close();
        }
    }
}

impl Launch {
    pub(crate) fn new(worker: WorkerId, options: Options, order: Order) -> Launch {
        Launch {
            worker,
            options,
            order,
            made: None,
        }
    }

    fn send(&mut self, control: &Control, base: &Surroundings) -> Result<Sent, Cause> {
        let made = match self.made.take() {
            Some(made) => made,
            None => self.make(base)?,
        };
        let message = encode(&ToServer::Launch {
            worker: self.worker.0,
        });
        let sent = message.and_then(|message| {
            control.send_launch(
                &message,
                &made.far_calls,
                &made.far.replies,
                made.far.stderr(&self.options),
            )
        });
        match sent {
            Ok(true) => Ok(Sent::Yes(Box::new(made.lines))),
            Ok(false) => {
                self.made = Some(made);
                Ok(Sent::NotNow)
            }
            Err(error) if is_gone(&error) => {
                self.made = Some(made);
                Ok(Sent::Never(error))
            }
            Err(error) => Err(Cause::launch("hand it to the fork server", error)),
        }
    }

    fn make(&self, base: &Surroundings) -> Result<Made, Cause> {
        let (replies, stderr, far) = pipes(&self.options)?;
        let (far_calls, calls) = pipe("calls")?;
        set_nonblocking(&calls)?;
        let mut calls = Outgoing::new(calls);
        let setup = difference(base, &self.order.surroundings);
        let setup = first_call(&self.order, setup, &mut calls)?;
        calls.step();
        let lines = Lines {
            calls: Some(calls),
            setup,
            replies,
            stderr,
            _lifeline: None,
            child: None,
            is_up: false,
        };
        Ok(Made {
            lines,
            far,
            far_calls,
        })
    }

    /// As it was before anything was made for a server that is gone.
    fn unmade(mut self) -> Launch {
        self.made = None;
        self
    }
}

/// Whether the other end of the channel does not exist any more.
fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionReset | NotConnected)
}

/// What a worker must change of what it inherits from the server.
pub(super) fn difference(base: &Surroundings, wanted: &Surroundings) -> Option<Setup> {
    if std::ptr::eq(base, wanted) {
        return None;
    }
    let bytes = |text: &OsString| text.as_encoded_bytes().to_vec();
    let directory = wanted
        .directory
        .as_ref()
        .filter(|directory| base.directory.as_ref() != Some(directory))
        .map(bytes);
    let environment = (base.environment != wanted.environment).then(|| {
        wanted
            .environment
            .pairs()
            .iter()
            .map(|(name, value)| (bytes(name), bytes(value)))
            .collect::<Vec<_>>()
    });
    (directory.is_some() || environment.is_some()).then_some(Setup {
        directory,
        environment,
    })
}

fn refusal(reply: &Reply) -> Cause {
    match reply {
        Reply::Panicked(panic) => {
            let place = panic.location.as_ref();
            let place = place.map(|place| format!(" at {}:{}:{}", place.file, place.line, place.column));
            Cause::refused(format!(
                "preload panicked{}: {}",
                place.unwrap_or_default(),
                panic.message
            ))
        }
        Reply::WrongBinary { theirs } => Cause::WrongBinary {
            ours: sys::build_id().to_vec(),
            theirs: theirs.clone(),
        },
        Reply::Refused { reason } => Cause::refused(format!("fork server: {reason}")),
        other => Cause::refused(format!("fork server: it answered {other:?}")),
    }
}

/// The error of a launch that the server could not carry out.
pub(crate) fn not_launched(step: &str, number: i32) -> Cause {
    Cause::launch(format!("fork server: {step}"), errno(number))
}

fn encode(message: &ToServer) -> io::Result<Vec<u8>> {
    wire::encode(message).map_err(io::Error::other)
}

/// Enough to keep the server busy; each holds a handful of descriptors until it is answered.
const MOST_UNDER_WAY: usize = 32;
