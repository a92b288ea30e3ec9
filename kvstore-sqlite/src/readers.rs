//! A pool of read-only connections.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use kvstore_core::{ErrorKind, Result};
use rusqlite::Connection;

use crate::error::error;

pub(crate) struct Readers {
    state: Mutex<State>,
    returned: Condvar,
}

struct State {
    idle: Vec<Connection>,
    lent: usize,
    closed: bool,
}

impl Readers {
    pub(crate) fn new(connections: Vec<Connection>) -> Self {
        let state = State { idle: connections, lent: 0, closed: false };
        Self { state: Mutex::new(state), returned: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one read on an idle connection; waits for one if all are lent.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let lent = self.lend()?;
        // A panic would lose the connection, and `close` would wait for it: `Lent` brings it back.
        read(lent.connection())
    }

    fn lend(&self) -> Result<Lent<'_>> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return Err(error(ErrorKind::Closed, "use store", "the store was closed"));
            }
            if let Some(connection) = state.idle.pop() {
                state.lent += 1;
                return Ok(Lent { readers: self, connection: Some(connection) });
            }
            state = self.returned.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for the reads under way, then closes all connections.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        self.returned.notify_all();
        while state.lent > 0 {
            state = self.returned.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.idle.clear();
    }
}

struct Lent<'a> {
    readers: &'a Readers,
    /// `Some` until it is dropped.
    connection: Option<Connection>,
}

impl Lent<'_> {
    fn connection(&self) -> &Connection {
        self.connection.as_ref().expect("only drop takes the connection")
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut state = self.readers.lock();
        state.lent -= 1;
        state.idle.extend(self.connection.take());
        drop(state);
        self.readers.returned.notify_all();
    }
}
