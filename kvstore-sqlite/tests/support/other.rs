//! Another process that has the database open: this test again, in a process of its own.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rusqlite::Connection;

/// What the other process is told: the path, and statements.
const ROLE: [&str; 2] = ["KVSTORE_OTHER_PATH", "KVSTORE_OTHER_SQL"];
const READY: &str = "the statements are done";

/// Runs the statements on the database if this is the other process, and keeps it open until it is
/// told to end.
pub(crate) fn is_other() -> bool {
    let [Some(path), Some(sql)] = ROLE.map(std::env::var_os) else { return false };
    let connection = Connection::open(path).unwrap();
    connection.execute_batch(sql.to_str().unwrap()).unwrap();
    println!("\n{READY}");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    true
}

/// A process that has run statements on a database and has it open. Closes it when dropped.
pub(crate) struct Other(Child);

impl Other {
    /// Starts it from the test `name`, which asks [`is_other`] first.
    pub(crate) fn start(name: &str, path: &Path, sql: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture", "--test-threads=1"])
            .envs([(ROLE[0], path.as_os_str()), (ROLE[1], sql.as_ref())])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == READY), "the other process failed");
        Self(child)
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let mut rest = Vec::new();
        let _ = self.0.stdout.take().map(|mut stdout| stdout.read_to_end(&mut rest));
        let _ = self.0.wait();
    }
}
