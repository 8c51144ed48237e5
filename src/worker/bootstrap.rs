//! From a fresh execution of the program to a worker or a fork server.
//!
//! An environment variable alone runs nothing. It must name inherited descriptors that are pipes or sockets, and the
//! first of them must hold a handshake already, with the same cookie and from the same build. Everything else ends the
//! process with a message and status [`REFUSED`]: it never falls through to `main`.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::nesting;
use crate::sys::{self, Control, Fd, SameImage};
use crate::transport::{self, FrameReader};
use crate::wire::{self, Frame, Hello, Reply, Report, Role, ToServer, ToWorker};
use crate::worker::{run, server};

/// See [`inparallel::init`](crate::init).
pub(crate) fn init() {
    REACHABLE.store(true, Ordering::Relaxed);
    run_if_asked();
}

/// Whether a fresh execution of this program would become a worker: the constructor is in it, or `init` was called.
pub(crate) fn is_reachable() -> bool {
    cfg!(feature = "ctor") || REACHABLE.load(Ordering::Relaxed)
}

/// Becomes what the environment asks for, and never returns; returns at once in an ordinary start.
pub(crate) fn run_if_asked() {
    let Some(boot) = sys::boot_descriptors() else {
        return;
    };
    let ended = boot.and_then(|(cookie, fds)| match <[Fd; 3]>::try_from(fds) {
        Ok([calls, replies, lifeline]) => be_worker(cookie, &calls, replies, lifeline),
        Err(mut fds) => match fds.pop() {
            Some(control) => be_server(cookie, control),
            None => Err("no descriptor".to_owned()),
        },
    });
    let code = match ended {
        Ok(()) => 0,
        Err(what) => {
            // Nobody is left to tell if even that fails.
            let _ = writeln!(
                std::io::stderr(),
                "inparallel: this process was started as a worker and cannot be one: {what}"
            );
            REFUSED
        }
    };
    sys::exit_now(code)
}

fn be_worker(cookie: u128, calls: &Fd, replies: Fd, lifeline: Fd) -> Result<(), String> {
    if !calls.has_input() {
        return Err("no handshake is waiting".into());
    }
    // The whole handshake is in the pipe, or it is none: no half of one keeps this process waiting.
    calls.set_blocking(false).map_err(|error| error.to_string())?;
    let mut reader = FrameReader::new(calls);
    let hello = match reader.next::<ToWorker>() {
        Ok(Some(Frame {
            message: ToWorker::Hello(hello),
            ..
        })) => hello,
        Ok(_) => return Err("the first message is no handshake".into()),
        Err(error) => return Err(format!("no handshake: {error}")),
    };
    let image = match check(&hello, cookie, Role::Worker)? {
        Ok(image) => image,
        Err(reply) => {
            let report = Report {
                pid: std::process::id(),
                reply,
            };
            transport::write_frame(&replies, &report, &[]).map_err(|error| error.to_string())?;
            return Err("it is another build than the program that started it".into());
        }
    };
    nesting::set_depth_of_process(hello.depth);
    nesting::inherit_preload(hello.preload);
    sys::become_worker(Some(lifeline)).map_err(|error| format!("cannot watch the program: {error}"))?;
    calls.set_blocking(true).map_err(|error| error.to_string())?;
    let desk = run::Desk::new(replies).map_err(|error| error.to_string())?;
    run::report_ready(&desk).map_err(|error| error.to_string())?;
    run::serve(&mut reader, &desk, image).map_err(|error| error.to_string())
}

fn be_server(cookie: u128, control: Fd) -> Result<(), String> {
    if !control.has_input() {
        return Err("no handshake is waiting".into());
    }
    let control = Control::new(control);
    let request = control
        .receive()
        .map_err(|error| error.to_string())?
        .ok_or("no handshake")?;
    let hello = match wire::decode::<ToServer>(&request.bytes) {
        Ok(ToServer::Hello(hello)) => hello,
        Ok(_) => return Err("the first message is no handshake".into()),
        Err(error) => return Err(format!("no handshake: {error}")),
    };
    let image = check(&hello, cookie, Role::Server)?;
    server::serve(control, hello, image).map_err(|error| error.to_string())
}

/// The outer error: nobody is there who speaks our language. The inner one: another build, to be told so.
fn check(hello: &Hello, cookie: u128, role: Role) -> Result<Result<SameImage, Reply>, String> {
    if hello.magic != wire::MAGIC || hello.cookie != cookie || hello.role != role {
        return Err("the handshake is not the one that the environment speaks of".into());
    }
    if hello.version != wire::VERSION {
        return Err(format!(
            "the handshake has version {}, not {}",
            hello.version,
            wire::VERSION
        ));
    }
    let other = || Reply::WrongBinary {
        theirs: sys::build_id().to_vec(),
    };
    Ok(SameImage::check(&hello.build_id).ok_or_else(other))
}

static REACHABLE: AtomicBool = AtomicBool::new(false);

/// The exit status of a process that was to become a worker and could not.
const REFUSED: i32 = 121;
