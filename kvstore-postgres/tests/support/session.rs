//! A `psql` that stays connected, to hold locks.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};

use postgres_servers::Access;

pub struct Session {
    psql: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Session {
    pub fn open(access: &Access) -> Self {
        let mut psql = access.psql();
        psql.env("PGAPPNAME", "a test's psql");
        let mut psql = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(psql.stdout.take().unwrap()).lines();
        Self { psql, lines }
    }

    /// Runs statements, and returns when they are done.
    pub fn run(&mut self, sql: &str) {
        self.ask(&format!("{sql}; SELECT 'done'"), "done");
    }

    /// Runs statements until one gives this line.
    pub fn ask(&mut self, sql: &str, until: &str) {
        writeln!(self.psql.stdin.as_mut().unwrap(), "{sql};").unwrap();
        let mut lines = self.lines.by_ref().map(Result::unwrap);
        assert!(lines.any(|line| line == until), "no {until:?} after {sql}");
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.psql.kill();
        let _ = self.psql.wait();
    }
}
