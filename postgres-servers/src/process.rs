//! A server's process and its children.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, Signal};

use crate::error::{Doing, Error, Result};
use crate::family;
use crate::home::Home;
use crate::log::Log;
use crate::port;

/// How often a port may be snatched between the look and the start.
const SNATCHES: usize = 5;

/// A server's process and its children, all of which end when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: Log,
    running: bool,
    home: Arc<Home>,
}

impl Process {
    /// Starts it and waits until it has said one of the texts.
    pub(crate) fn start(home: &Arc<Home>, mut command: Command, ready: &[&str]) -> Result<Self> {
        command.process_group(0).stdout(Stdio::null()).stderr(Stdio::piped());
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = command.spawn().doing(format_args!("start {program}"))?;
        let Some(pipe) = child.stderr.take() else { unreachable!("standard error is piped") };
        let home = Arc::clone(home);
        let process = Self { child, log: Log::listen(pipe), running: true, home };
        process.home.watch(process.id())?;
        if process.log.wait_for(ready)? {
            return Ok(process);
        }
        Err(Error::Ended { program, log: process.log() })
    }

    /// Starts it on a free port, and on another one if somebody took that in the meantime.
    pub(crate) fn start_on_free_port(
        home: &Arc<Home>,
        command: impl Fn(u16) -> Result<Command>,
        ready: &[&str],
    ) -> Result<(Self, u16)> {
        let mut snatched = 0;
        loop {
            let port = port::free()?;
            match Self::start(home, command(port)?, ready) {
                Ok(process) => return Ok((process, port)),
                Err(Error::Ended { log, .. }) if is_snatched(&log) && snatched < SNATCHES => {
                    snatched += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether it runs; notices that it has ended by itself or by somebody else's hand.
    pub(crate) fn is_running(&mut self) -> Result<bool> {
        if self.running && self.child.try_wait().doing("look after a server")?.is_some() {
            self.wait()?;
        }
        Ok(self.running)
    }

    pub(crate) fn id(&self) -> Option<u32> {
        self.running.then(|| self.child.id())
    }

    pub(crate) fn log(&self) -> String {
        self.log.text()
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        family::signal(self.pid()?, signal)
    }

    /// Asks it to end, and waits until it and its children have.
    pub(crate) fn end(&mut self, signal: Signal) -> Result<()> {
        self.signal(signal)?;
        self.wait()
    }

    /// Kills it and its children, paused or not, and waits until none is left.
    pub(crate) fn kill(&mut self) -> Result<()> {
        let root = self.pid()?;
        // So that it has no more children than those we see.
        family::halt(root)?;
        let children = family::under(root)?;
        family::signal(root, Signal::KILL)?;
        for child in children {
            family::signal(child, Signal::KILL)?;
        }
        self.wait()
    }

    pub(crate) fn pause(&self) -> Result<()> {
        let root = self.pid()?;
        family::halt(root)?;
        family::under(root)?.into_iter().try_for_each(family::halt)
    }

    pub(crate) fn resume(&self) -> Result<()> {
        let root = self.pid()?;
        for child in family::under(root)? {
            family::signal(child, Signal::CONT)?;
        }
        family::signal(root, Signal::CONT)
    }

    pub(crate) fn pause_one(&self, pid: i32) -> Result<()> {
        family::halt(family::member(self.pid()?, pid)?)
    }

    pub(crate) fn resume_one(&self, pid: i32) -> Result<()> {
        family::signal(family::member(self.pid()?, pid)?, Signal::CONT)
    }

    fn wait(&mut self) -> Result<()> {
        self.log.wait_for_end()?;
        // Before its id can become another process's.
        self.home.watch(None)?;
        self.child.wait().doing("wait for a server's end")?;
        self.running = false;
        Ok(())
    }

    fn pid(&self) -> Result<Pid> {
        let id = self.id().ok_or(Error::NotRunning)?;
        Pid::from_raw(id as i32).ok_or(Error::NotRunning)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.running {
            // Nobody is left to tell.
            let _ = self.kill();
        }
    }
}

fn is_snatched(log: &str) -> bool {
    log.contains("Address already in use")
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::{Pooler, Server, or_skip, pooler, server};

    fn says_snatched(started: Result<Process>) {
        match started {
            Err(Error::Ended { log, .. }) => assert!(is_snatched(&log), "{log}"),
            other => panic!("it started on a port that is taken: {other:?}"),
        }
    }

    #[test]
    fn a_snatched_port_is_recognized() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let Some(mut server) = or_skip(Server::start()) else { return };
        server.kill().unwrap();
        let command = server::command(&server.programs, &server.home, port).unwrap();
        says_snatched(Process::start(&server.home, command, &server::READY));

        let Some(_installed) = or_skip(Pooler::start(&server)) else { return };
        let home = Arc::new(Home::make(server.programs.account).unwrap());
        home.write(&home.path().join("users"), "").unwrap();
        let command = pooler::command(server.programs.account, &home, port, 1).unwrap();
        says_snatched(Process::start(&home, command, &pooler::READY));
    }
}
