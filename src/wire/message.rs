//! The messages. Both ends are the same build of the same program, so the enums may change freely between versions;
//! [`VERSION`] only serves to give a clear error when that rule is broken.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::BoardName;

/// First bytes of a handshake.
pub(crate) const MAGIC: [u8; 8] = *b"inparall";

/// Raised with every change of a message.
pub(crate) const VERSION: u32 = 5;

/// What a re-executed process is to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Role {
    /// Runs tasks.
    Worker,
    /// Forks workers.
    Server,
}

/// The first frame to a re-executed process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) magic: [u8; 8],
    pub(crate) version: u32,
    pub(crate) role: Role,
    /// The same number as in the environment variable: the descriptor and the variable belong together.
    pub(crate) cookie: u128,
    /// Which build of which program asks. A worker of another build must not run anything.
    pub(crate) build_id: Vec<u8>,
    /// How many programs up the first one is.
    pub(crate) depth: u32,
    /// The distance from the anchor of the function that a fork server runs before it serves: this one, or one that the
    /// worker's tasks start.
    pub(crate) preload: Option<i64>,
}

/// From the program to a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ToWorker {
    /// Prove who you are; only to a re-executed process.
    Hello(Hello),
    /// Run this task. The payload holds the encoded arguments.
    Call(Call),
    /// From now on calls stand on this board too.
    Board(Board),
    /// Look at the board.
    Bell,
}

/// Where calls and short answers stand beside the pipes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Board {
    pub(crate) name: BoardName,
    /// How long the worker may look out for a call before it sleeps.
    pub(crate) spin: Duration,
    /// The worker's stderr is read by the program.
    pub(crate) is_heard: bool,
    /// As in a call.
    pub(crate) setup: Option<Setup>,
}

/// One task for a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Call {
    pub(crate) task: u64,
    /// Distance of the task's entry from the anchor of the image.
    pub(crate) entry: i64,
    /// The entry's own idea of its type: checked before anything runs.
    pub(crate) type_name: String,
    pub(crate) depth: u32,
    /// What the task is told of itself.
    pub(crate) name: String,
    pub(crate) attempt: u32,
    pub(crate) limit: Option<Duration>,
    /// Working directory and environment, where they differ from what the worker inherited.
    pub(crate) setup: Option<Setup>,
    /// It has its turn when the board says so.
    pub(crate) is_posted: bool,
    /// From now on the board calls this entry and name by a number.
    pub(crate) remember: Option<u32>,
    /// What the arguments name by its index.
    pub(crate) attached: Vec<Attached>,
}

/// Bytes that belong to the arguments of a call and are not among them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Attached {
    /// They stand behind the arguments, in this length.
    Behind { len: u64 },
    /// They lie in a descriptor of a process, which has this file open there, sealed.
    Memory {
        pid: u32,
        number: i32,
        device: u64,
        inode: u64,
        len: u64,
    },
}

/// What stands before the arguments of many calls in one task. Each call's arguments follow, with their length before
/// them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Chunk {
    pub(crate) items: u32,
    /// Each result is sent as soon as it is there.
    pub(crate) is_careful: bool,
}

/// What a worker of the fork server adopts from the program before it runs a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) directory: Option<Vec<u8>>,
    pub(crate) environment: Option<Vec<(Vec<u8>, Vec<u8>)>>,
}

/// From a worker to the program: who speaks, and what. The number is there because an answer can be faster than the fork
/// server's word that the worker exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) pid: u32,
    pub(crate) reply: Reply,
}

/// What a worker has to say. The payload of `Returned` holds the encoded result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// The task returned. `is_err`: its value is the `Err` of a `Result`.
    Returned {
        is_err: bool,
    },
    Panicked(Panic),
    ArgumentNotDecodable {
        type_name: String,
        reason: String,
    },
    ResultNotEncodable {
        type_name: String,
        reason: String,
    },
    /// The process that was executed is a worker now.
    Ready,
    /// The board is open, or cannot be reached.
    Board {
        is_open: bool,
    },
    /// Look at the board.
    Bell,
    /// The task sends the payload to whoever holds its future; it goes on.
    Message,
    /// How far the task is; it goes on.
    Progress {
        done: u64,
        total: u64,
    },
    /// The worker cannot open what is attached to its call, and asks for the bytes instead.
    NeedsBytes,
    /// A copy that the task made of its process may still read what was attached to the call.
    Shares,
    /// The worker stays for tasks that its task detached; its answer follows.
    Lingers,
    /// The process is another build than the one that asks.
    WrongBinary {
        theirs: Vec<u8>,
    },
    /// The process cannot do what is asked; the text says what and why.
    Refused {
        reason: String,
    },
}

/// A panic, as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Panic {
    pub(crate) message: String,
    pub(crate) location: Option<Location>,
    pub(crate) backtrace: String,
}

/// Where a panic began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Location {
    pub(crate) file: String,
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// A reply and its payload, before they become a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) reply: Reply,
    pub(crate) payload: Vec<u8>,
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Answer {
            reply,
            payload: Vec::new(),
        }
    }
}

/// From the program to its fork server, one datagram each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ToServer {
    Hello(Hello),
    /// Fork a worker. Descriptors that come along: calls, replies, stdout, and stderr.
    Launch {
        worker: u64,
    },
    /// Fork a worker that waits for its first call. Descriptors that come along: calls, replies, its side of the gate, stderr,
    /// and its board if it has one.
    Prepare {
        worker: u64,
        has_board: bool,
        /// The entry of the call before: probably that of the call to come.
        likely: Option<i64>,
    },
    /// Signal the worker's process group.
    Signal {
        worker: u64,
        kill: bool,
    },
}

/// From the fork server to its program, one datagram each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FromServer {
    /// The server is up, its preload has run.
    Ready,
    /// The server cannot serve; the text says why. It exits.
    Refused(Reply),
    Launched {
        worker: u64,
        pid: i32,
    },
    NotLaunched {
        worker: u64,
        step: String,
        errno: i32,
    },
    /// The worker ended with this raw wait status.
    Exited {
        worker: u64,
        status: i32,
    },
}
