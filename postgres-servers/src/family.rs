//! The processes under a process.

use std::fs;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use crate::error::{Doing, Error, Result};
use crate::patience::until;

/// A process as `/proc` shows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member {
    pub(crate) pid: Pid,
    parent: i32,
    state: char,
}

impl Member {
    /// The process of that id, unless it has ended.
    fn find(pid: Pid) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
        // The name stands in parentheses and may hold anything, even parentheses.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        Some(Self { pid, parent, state })
    }

    fn stands_still(self) -> bool {
        matches!(self.state, 'T' | 't' | 'Z' | 'X')
    }
}

/// All processes under `root`, however deep: PostgreSQL's children found groups of their own, so a
/// signal to the group of the server would miss them.
pub(crate) fn under(root: Pid) -> Result<Vec<Pid>> {
    let entries = fs::read_dir("/proc").doing("read /proc, which only Linux has")?;
    let ids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let all: Vec<Member> = ids.filter_map(Pid::from_raw).filter_map(Member::find).collect();
    let mut family = vec![root];
    let mut next = 0;
    while let Some(parent) = family.get(next).map(|pid| pid.as_raw_nonzero().get()) {
        family.extend(all.iter().filter(|one| one.parent == parent).map(|one| one.pid));
        next += 1;
    }
    Ok(family.split_off(1))
}

/// Sends a signal, unless the process is gone.
pub(crate) fn signal(pid: Pid, signal: Signal) -> Result<()> {
    match kill_process(pid, signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(errno) => Err(errno).doing(format_args!("signal process {}", pid.as_raw_nonzero())),
    }
}

/// Stops a process and waits until it really stands still: it may be in the middle of a write.
pub(crate) fn halt(pid: Pid) -> Result<()> {
    signal(pid, Signal::STOP)?;
    until("a process stands still", || {
        Ok(Member::find(pid).is_none_or(Member::stands_still).then_some(()))
    })
}

/// The process `pid`, if it is under `root`.
pub(crate) fn member(root: Pid, pid: i32) -> Result<Pid> {
    let found = under(root)?.into_iter().find(|one| one.as_raw_nonzero().get() == pid);
    found.ok_or(Error::NoBackend(pid))
}
