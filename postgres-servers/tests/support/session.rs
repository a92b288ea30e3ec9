//! A connection that stays open.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use postgres_servers::Server;

/// A `psql` that waits for statements.
pub(crate) struct Session {
    psql: Child,
    answers: Receiver<String>,
}

impl Session {
    pub(crate) fn open(server: &Server) -> Self {
        let mut psql = server.access().psql();
        let mut psql = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(psql.stdout.take().unwrap()).lines();
        let (send, answers) = channel();
        std::thread::spawn(move || {
            lines.map_while(Result::ok).try_for_each(|line| send.send(line)).ok();
        });
        Self { psql, answers }
    }

    pub(crate) fn say(&mut self, sql: &str) {
        writeln!(self.psql.stdin.as_mut().unwrap(), "{sql}").unwrap();
    }

    pub(crate) fn answer(&self) -> String {
        self.answers.recv_timeout(Duration::from_secs(60)).expect("an answer comes")
    }

    pub(crate) fn ask(&mut self, sql: &str) -> String {
        self.say(sql);
        self.answer()
    }

    /// Gives an answer that must not come some time to come.
    pub(crate) fn is_silent(&self) -> bool {
        self.answers.recv_timeout(Duration::from_millis(200)).is_err()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.psql.kill();
        let _ = self.psql.wait();
    }
}
