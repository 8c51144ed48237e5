//! What these tests share: a gate that tasks stand at, a watchdog, and the check that nothing is left behind.

#[cfg(target_os = "linux")]
mod resting;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use inparallel::StartMethod;

/// The methods under which a task goes on beside its caller. `Inline` does not, and `Fork` is refused under this harness.
pub(crate) const BESIDE: [StartMethod; 3] =
    [StartMethod::ForkServer, StartMethod::Spawn, StartMethod::Thread];

/// Every method that works under this harness as it is.
pub(crate) const ALL: [StartMethod; 4] = [
    StartMethod::ForkServer,
    StartMethod::Spawn,
    StartMethod::Thread,
    StartMethod::Inline,
];

/// Longer than anything here takes, on a machine under strain too.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A place that tasks stop at, so that the test knows what they have reached and says when they go on.
pub(crate) struct Gate(TcpListener);

impl Gate {
    pub(crate) fn new() -> Self {
        Gate(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap())
    }

    /// What tasks are given to find it.
    pub(crate) fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    /// Waits until a task stands at the gate. One that was killed on its way there does not count.
    pub(crate) fn arrival(&self) -> Arrival {
        loop {
            let (mut stream, _) = self.0.accept().unwrap();
            let mut number = [0; 4];
            if stream.read_exact(&mut number).is_ok() {
                return Arrival {
                    number: u32::from_le_bytes(number),
                    stream,
                };
            }
        }
    }

    /// Waits for `count` tasks, and gives them in the order of their numbers.
    pub(crate) fn arrivals(&self, count: usize) -> Vec<Arrival> {
        let mut arrivals: Vec<_> = (0..count).map(|_| self.arrival()).collect();
        arrivals.sort_by_key(|arrival| arrival.number);
        arrivals
    }
}

/// A task that stands at a gate; it goes on when this is dropped.
pub(crate) struct Arrival {
    pub(crate) number: u32,
    stream: TcpStream,
}

impl Arrival {
    pub(crate) fn let_go(mut self) {
        // A task that was killed needs no leave.
        let _ = self.stream.write_all(&[0]);
    }

    /// Waits until the process of the task is gone.
    pub(crate) fn wait_until_gone(mut self) {
        let mut byte = [0];
        let read = self.stream.read(&mut byte);
        assert!(matches!(read, Ok(0) | Err(_)), "the task spoke: {read:?}");
    }
}

/// In a task: stands at the gate until it is let go.
pub(crate) fn stand_at(port: u16, number: u32) {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.write_all(&number.to_le_bytes()).unwrap();
    // A test that has ended lets everybody go.
    let _ = stream.read(&mut [0]);
}

/// Ends the program with a word if a test hangs, instead of never.
pub(crate) struct Watchdog(
    #[expect(dead_code, reason = "its end is what the watchdog waits for")] Sender<()>,
);

impl Watchdog {
    #[track_caller]
    pub(crate) fn new() -> Self {
        let place = std::panic::Location::caller();
        let (alive, ended) = mpsc::channel();
        let watch = move || {
            if ended.recv_timeout(LONGEST_TEST) == Err(RecvTimeoutError::Timeout) {
                eprintln!("watchdog: the test at {place} hangs");
                #[expect(
                    clippy::disallowed_methods,
                    reason = "a test that hangs cannot be ended in another way"
                )]
                std::process::abort();
            }
        };
        std::thread::Builder::new()
            .name("watchdog".into())
            .spawn(watch)
            .unwrap();
        Watchdog(alive)
    }
}

/// What a process holds that must not grow.
#[derive(Debug)]
pub(crate) struct Holdings {
    descriptors: usize,
    /// Of the library; those of the harness come and go.
    threads: usize,
    zombies: usize,
}

impl Holdings {
    /// As they are when no task runs. Outside Linux there is nothing to count.
    pub(crate) fn now() -> Self {
        assert!(inparallel::wait_idle(LONG), "tasks are left over");
        #[cfg(target_os = "linux")]
        if let Some(server) = resting::fork_server() {
            resting::wait_for_rest(server);
        }
        let names = |folder: &str| -> Vec<String> {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            entries
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect()
        };
        let own = std::process::id().to_string();
        let is_own_thread = |id: &String| {
            let name = std::fs::read_to_string(format!("/proc/self/task/{id}/comm"));
            name.is_ok_and(|name| name.starts_with("inparallel"))
        };
        let is_own_zombie = |id: &String| {
            let status = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            let mut fields = status.rsplit(") ").next().unwrap_or_default().split(' ');
            fields.next() == Some("Z") && fields.next() == Some(own.as_str())
        };
        Holdings {
            descriptors: names("/proc/self/fd").len(),
            threads: names("/proc/self/task")
                .iter()
                .filter(|id| is_own_thread(id))
                .count(),
            zombies: names("/proc").iter().filter(|id| is_own_zombie(id)).count(),
        }
    }

    /// Panics if there is more now than then.
    #[track_caller]
    pub(crate) fn check(&self) {
        assert_eq!(self.zombies, 0, "{self:?}");
        // A thread of `StartMethod::Thread` and one of the harness take a moment to go once they have nothing to do.
        let give_up = Instant::now() + LONG;
        loop {
            let now = Holdings::now();
            // Then a thread may have been on its way out as well: there may be fewer now.
            if now.descriptors <= self.descriptors && now.threads <= self.threads && now.zombies == 0 {
                return;
            }
            assert!(Instant::now() < give_up, "{now:?} is left of {self:?}");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

const LONGEST_TEST: Duration = Duration::from_secs(120);
