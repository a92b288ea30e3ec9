//! What the disk and SQLite do with nothing in between.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::{iter, thread};

use rusqlite::{Connection, params};
use tokio::sync::oneshot;

use crate::Done;
use crate::contestants::entry;

/// The limit: what the disk does with nothing in between.
pub struct RawAppend(File);

impl RawAppend {
    pub fn create(directory: &Path) -> std::io::Result<Self> {
        File::create(directory.join("raw")).map(Self)
    }

    pub fn sync(mut self) -> impl FnMut(usize, Vec<u8>) -> Done {
        move |_, value| {
            self.0.write_all(&value)?;
            Ok(self.0.sync_data()?)
        }
    }
}

/// The limit for many writers: a thread appends whatever waits, with one flush for all of it.
#[derive(Clone)]
pub struct RawGroups(Sender<(Vec<u8>, oneshot::Sender<()>)>);

impl RawGroups {
    pub fn create(directory: &Path) -> std::io::Result<Self> {
        let mut file = File::create(directory.join("raw"))?;
        let (sender, waiting) = channel::<(Vec<u8>, oneshot::Sender<()>)>();
        thread::spawn(move || {
            while let Ok(first) = waiting.recv() {
                let group: Vec<_> = iter::once(first).chain(waiting.try_iter()).collect();
                group.iter().try_for_each(|(value, _)| file.write_all(value))?;
                file.sync_data()?;
                for (_, answer) in group {
                    // A writer that is gone has failed, and says so itself.
                    let _ = answer.send(());
                }
            }
            std::io::Result::Ok(())
        });
        Ok(Self(sender))
    }

    pub async fn write(&self, value: Vec<u8>) -> Done {
        let (sender, answer) = oneshot::channel();
        self.0.send((value, sender))?;
        Ok(answer.await?)
    }
}

/// SQLite as fast as one connection makes it.
pub struct Rusqlite(Connection);

impl Rusqlite {
    pub fn create(directory: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open(directory.join("bare"))?;
        connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
        connection.execute_batch(
            "PRAGMA synchronous = FULL; CREATE TABLE entries (key TEXT PRIMARY KEY, value BLOB);",
        )?;
        Ok(Self(connection))
    }

    pub fn sync(self) -> impl FnMut(usize, Vec<u8>) -> Done {
        move |at, value| {
            let sql = "INSERT INTO entries (key, value) VALUES (?1, ?2) \
                       ON CONFLICT (key) DO UPDATE SET value = excluded.value";
            self.0.prepare_cached(sql)?.execute(params![entry(at)?.key(), value])?;
            Ok(())
        }
    }
}
