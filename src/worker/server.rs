//! The fork server: a process with one thread that forks workers on request.
//!
//! It ends when the program does, and takes its workers along.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use crate::nesting;
use crate::sys::{self, Control, Fd, ForkServer, Request, SameImage, ServerEvent};
use crate::wire::{self, FromServer, Hello, Reply, ToServer};
use crate::worker::posts::Posts;
use crate::worker::rehearsal::rehearse;
use crate::worker::{panics, run};

/// Serves until the program is gone; whatever ends it, its workers' groups end with it.
pub(super) fn serve(control: Control, hello: Hello, image: Result<SameImage, Reply>) -> io::Result<()> {
    let server = ForkServer::new(control)?;
    sys::watch_forks();
    let mut serving = Serving {
        server,
        pids: HashMap::new(),
        workers: HashMap::new(),
    };
    let ended = match image.and_then(|image| preload(&hello, image).map(|()| image)) {
        Ok(image) => serving.run(image),
        Err(reply) => serving.tell(&FromServer::Refused(reply)),
    };
    serving
        .workers
        .keys()
        .for_each(|pid| serving.server.signal(*pid, true));
    match ended {
        // The program has ended while it was spoken to.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
            ) =>
        {
            Ok(())
        }
        ended => ended,
    }
}

struct Serving {
    server: ForkServer,
    pids: HashMap<u64, i32>,
    workers: HashMap<i32, u64>,
}

impl Serving {
    fn run(&mut self, image: SameImage) -> io::Result<()> {
        // What every worker would do first is done once.
        panics::install();
        run::warm_up();
        sys::flush_output();
        self.server.settle()?;
        self.tell(&FromServer::Ready)?;
        loop {
            match self.server.next()? {
                ServerEvent::Request(Request { bytes, fds }) => match wire::decode(&bytes) {
                    Ok(ToServer::Launch { worker }) => {
                        let forked = self.server.fork(fds, |calls, replies, ready| {
                            serve_one(calls, replies, ready, image);
                        });
                        self.made(worker, forked)?;
                    }
                    Ok(ToServer::Prepare {
                        worker,
                        has_board,
                        likely,
                    }) => {
                        let forked =
                            self.server
                                .fork_ready(fds, has_board, |calls, replies, gate, board, ready| {
                                    serve_when_called(calls, replies, (gate, board), ready, image, likely);
                                });
                        self.made(worker, forked)?;
                    }
                    Ok(ToServer::Signal { worker, kill }) => {
                        // A worker that is not in the table has been reaped, and its exit is on its way.
                        if let Some(pid) = self.pids.get(&worker) {
                            self.server.signal(*pid, kill);
                        }
                    }
                    Ok(ToServer::Hello(_)) | Err(_) => {
                        return Err(io::Error::new(io::ErrorKind::InvalidData, "an unknown request"));
                    }
                },
                ServerEvent::Ended { pid, status } => {
                    if let Some(worker) = self.workers.remove(&pid) {
                        self.pids.remove(&worker);
                        self.tell(&FromServer::Exited { worker, status })?;
                    }
                }
                ServerEvent::ParentGone => return Ok(()),
            }
        }
    }

    fn made(&mut self, worker: u64, forked: io::Result<i32>) -> io::Result<()> {
        match forked {
            Ok(pid) => {
                self.pids.insert(worker, pid);
                self.workers.insert(pid, worker);
                self.tell(&FromServer::Launched { worker, pid })
            }
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(0);
                self.tell(&FromServer::NotLaunched {
                    worker,
                    step: "fork".into(),
                    errno,
                })
            }
        }
    }

    fn tell(&self, message: &FromServer) -> io::Result<()> {
        self.server
            .send(&wire::encode(message).map_err(io::Error::other)?)
    }
}

/// In a worker.
fn serve_one(calls: &Fd, replies: Fd, ready: io::Result<()>, image: SameImage) {
    if run::run_served(calls, replies, ready, image).is_err() {
        sys::exit_now(run::CANNOT_ANSWER);
    }
}

/// In a worker that was made before its call.
fn serve_when_called(
    calls: &Fd,
    replies: Fd,
    (gate, board): (Fd, Option<Fd>),
    ready: io::Result<()>,
    image: SameImage,
    likely: Option<i64>,
) {
    // The program says there where its call is: without it, this is for another worker.
    let Ok(posts) = board.as_ref().map(Posts::of_fd).transpose() else {
        sys::exit_now(run::CANNOT_ANSWER);
    };
    drop(board);
    if posts
        .as_ref()
        .is_some_and(|posts| !posts.is_expected_within(REST))
    {
        // If it fails, the call finds less prepared.
        let _ = rehearse(image, likely);
    }
    if run::run_when_called(calls, replies, posts, ready, image, gate).is_err() {
        sys::exit_now(run::CANNOT_ANSWER);
    }
}

/// Who makes one call after the other is not kept waiting by a rehearsal.
const REST: Duration = Duration::from_millis(1);

/// What all workers share: runs once, and must leave the process with one thread.
fn preload(hello: &Hello, image: SameImage) -> Result<(), Reply> {
    nesting::inherit_preload(hello.preload);
    if let Some(distance) = hello.preload {
        let function = image
            .function(distance)
            .map_err(|reason| Reply::Refused { reason })?;
        match run::answer_of(function).reply {
            Reply::Returned { .. } => {}
            Reply::Panicked(mut panic) => {
                // It must fit into a datagram.
                panic.message.truncate(panic.message.floor_char_boundary(4 << 10));
                panic
                    .backtrace
                    .truncate(panic.backtrace.floor_char_boundary(8 << 10));
                return Err(Reply::Panicked(panic));
            }
            other => return Err(other),
        }
        sys::flush_output();
    }
    match sys::other_threads(0) {
        Ok(0) | Err(_) => Ok(()),
        Ok(count) => Err(Reply::Refused {
            reason: format!(
                "preload left {count} threads running, which no worker would have; join them in it"
            ),
        }),
    }
}
