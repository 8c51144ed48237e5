//! Where processes run: left to the system, ours and the reference fall on one core or on two by chance, which makes more of a
//! difference than what is measured.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::Fallible;

/// The cores of a caller and of who works for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places {
    pub(crate) here: usize,
    pub(crate) there: usize,
}

/// One has to make room for the other.
pub(crate) fn together() -> Fallible<Places> {
    let here = *allowed()?.first().ok_or("no core to run on")?;
    Ok(Places { here, there: here })
}

/// `None`: there are no two.
pub(crate) fn apart() -> Fallible<Option<Places>> {
    Ok(match allowed()?.as_slice() {
        &[here, there, ..] => Some(Places { here, there }),
        _ => None,
    })
}

/// Puts each thread of a process on this core.
pub(crate) fn pin(process: u32, core: usize) -> Fallible<()> {
    let mut cores = CpuSet::new();
    cores.set(core)?;
    for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let thread: i32 = thread?.file_name().to_string_lossy().parse()?;
        sched_setaffinity(Pid::from_raw(thread), &cores)?;
    }
    Ok(())
}

/// Those that this thread may use now.
fn allowed() -> Fallible<Vec<usize>> {
    let cores = sched_getaffinity(Pid::from_raw(0))?;
    let is_allowed = |core: &usize| cores.is_set(*core).unwrap_or(false);
    Ok((0..CpuSet::count()).filter(is_allowed).collect())
}
