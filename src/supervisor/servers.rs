//! The event loop's dealings with fork servers: which one gets a launch, what they say, and what their end means.

use crate::error::Cause;
use crate::ids::WorkerId;
use crate::launch::{self, Ended, Launch, Server};
use crate::supervisor::event_loop::{Channel, EventLoop};
use crate::supervisor::state::Event;
use crate::sys::{self, ExitStatus, Interest};
use crate::wire::FromServer;

impl EventLoop {
    /// Queues a launch at the fork server, and starts that if need be.
    pub(super) fn launch(&mut self, launch: Launch) {
        let id = launch.worker;
        if let Some(serial) = self.serving
            && let Some(server) = self.servers.get_mut(&serial)
            && !server.fits(&launch.order)
        {
            // The program gave up rights, or took some: a worker has those that the program has at the call.
            server.retire();
            self.serving = None;
            self.discard_ready(serial);
        }
        let serial = match self.serving {
            Some(serial) => serial,
            None => match self.start_server(&launch) {
                Ok(serial) => serial,
                Err(cause) => return self.open(id, Err(cause)),
            },
        };
        let (Some(server), Some(worker)) = (self.servers.get_mut(&serial), self.workers.get_mut(&id)) else {
            return;
        };
        worker.server = Some(serial);
        server.queue(launch);
        self.pump(serial);
    }

    pub(super) fn start_server(&mut self, first: &Launch) -> Result<u64, Cause> {
        let server = Server::start(first.order.surroundings.clone())?;
        let serial = self.servers_made;
        self.servers_made += 1;
        let watched = self.poller.add(
            server.control(),
            Channel::ServerControl.token(serial),
            Interest::Readable,
        );
        let watched = watched.and_then(|()| {
            self.poller.add(
                server.child().exit(),
                Channel::ServerExit.token(serial),
                Interest::Readable,
            )
        });
        if let Err(error) = watched {
            self.poller.remove(server.control());
            server.child().end();
            return Err(Cause::launch("fork server: watch it", error));
        }
        self.servers.insert(serial, server);
        self.serving = Some(serial);
        Ok(serial)
    }

    /// Sends to a server what it takes now.
    pub(super) fn pump(&mut self, serial: u64) {
        let Some(server) = self.servers.get_mut(&serial) else {
            return;
        };
        let mut opened = Vec::new();
        let pumped = server.pump(&mut opened);
        self.poller.remove(server.room());
        let is_full = matches!(pumped, Ok(true));
        if is_full {
            // If it cannot be watched, the next word from the server leads here again.
            let _ = self.poller.add(
                server.room(),
                Channel::ServerRoom.token(serial),
                Interest::Writable,
            );
        }
        for (id, lines) in opened {
            self.open(id, lines);
        }
        if pumped.is_err() {
            self.dismiss(serial);
        }
    }

    /// A server that does not work any more makes no new workers; its exit tells what becomes of those that it made.
    pub(super) fn dismiss(&mut self, serial: u64) {
        if self.serving == Some(serial) {
            self.serving = None;
        }
        let Some(server) = self.servers.get_mut(&serial) else {
            return;
        };
        self.poller.remove(server.control());
        self.poller.remove(server.room());
        server.child().signal(true);
        let unsent = server.take_unsent();
        self.discard_ready(serial);
        for launch in unsent {
            self.launch(launch);
        }
    }

    pub(super) fn hear_server(&mut self, serial: u64) {
        // Bounded, so that one chatty server does not keep the loop.
        for _ in 0..MESSAGES_AT_ONCE {
            let Some(server) = self.servers.get_mut(&serial) else {
                return;
            };
            match server.receive() {
                Ok(Some(FromServer::Ready)) => {
                    // From now on a launch takes no longer than one does.
                    for id in server.workers() {
                        self.tell(id, Event::Awaited);
                    }
                }
                Ok(Some(message)) => self.server_said(message),
                Ok(None) => break,
                Err(_) => return self.dismiss(serial),
            }
        }
        self.pump(serial);
    }

    pub(super) fn server_said(&mut self, message: FromServer) {
        match message {
            // The exit that follows tells what becomes of its workers.
            FromServer::Ready | FromServer::Refused(_) => {}
            FromServer::Launched { worker, pid } => {
                let id = WorkerId(worker);
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.set_pid(id, pid.cast_unsigned());
                }
                self.tell(id, Event::Launched);
            }
            FromServer::NotLaunched { worker, step, errno } => {
                let id = WorkerId(worker);
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.launch_failure = Some(launch::not_launched(&step, errno));
                }
                self.tell(id, Event::LaunchFailed);
            }
            FromServer::Exited { worker, status } => {
                self.exited(WorkerId(worker), sys::status_from_server(status));
            }
        }
    }

    pub(super) fn server_exited(&mut self, serial: u64) {
        let Some(status) = self
            .servers
            .get(&serial)
            .and_then(|server| server.child().try_reap())
        else {
            return;
        };
        // Its last words are about workers that ended before it, or about why it refuses to serve.
        while let Some(message) = self
            .servers
            .get_mut(&serial)
            .and_then(|server| server.receive().ok().flatten())
        {
            self.server_said(message);
        }
        if self.serving == Some(serial) {
            self.serving = None;
        }
        let Some(mut server) = self.servers.remove(&serial) else {
            return;
        };
        let unsent = server.take_unsent();
        self.poller.remove(server.control());
        self.poller.remove(server.room());
        self.poller.remove(server.child().exit());
        let (workers, ended) = server.ended(&describe(status));
        for id in workers {
            match &ended {
                Ended::Lost(what) => {
                    self.settle(id);
                    self.drain(id);
                    self.give_back(id);
                    self.call_again(id);
                    self.tell(id, Event::Lost(what.clone()));
                }
                Ended::Refused(cause) => {
                    if let Some(worker) = self.workers.get_mut(&id) {
                        worker.launch_failure = Some(cause.clone());
                    }
                    self.tell(id, Event::LaunchFailed);
                }
            }
        }
        for launch in unsent {
            self.launch(launch);
        }
    }
}

pub(super) fn describe(status: ExitStatus) -> String {
    match status {
        ExitStatus::Exited(code) => format!("exited with status {code}"),
        ExitStatus::Signaled { signal, .. } => format!("was killed by {}", sys::signal_name(signal)),
        ExitStatus::Unknown => "ended, nobody knows how".into(),
    }
}

/// One chatty server does not keep the loop.
const MESSAGES_AT_ONCE: usize = 64;
