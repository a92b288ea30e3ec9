//! The stamp by which a database and its log are known to belong together (contract G4).
//!
//! SQLite replays a log over whatever database has its name, also over a backup that somebody put in
//! the place of the one that the log was begun on. So the header's `application_id` holds two
//! numbers: in its upper half one that is drawn anew for every log, in its lower half the one before
//! it, which the database has when the log is begun. A checkpoint takes the new one over.
//!
//! | the database alone | with its log | |
//! |---|---|---|
//! | a, before a | b, before a | the log was begun on it |
//! | b, before a | b, before a | a checkpoint moved the log into it, in part or whole |
//! | anything else | b, before a | the log is another database's |
//!
//! A file that was never stamped has two zeros. The number is in the log's first transaction, or in
//! one right after it if another program's checkpoint, or SQLite's own, let the log begin anew.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{Read, Seek};

use kvstore_core::log;
use rusqlite::Connection;

use crate::wal::{HEADER_LEN, salts};

/// The two numbers in the field `application_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Of the log in use, or of the last one.
    current: u16,
    /// What the database had when that log was begun.
    base: u16,
}

impl Stamp {
    pub(crate) fn from_application_id(field: u32) -> Self {
        let [a, b, c, d] = field.to_be_bytes();
        Self { current: u16::from_be_bytes([a, b]), base: u16::from_be_bytes([c, d]) }
    }

    fn application_id(self) -> i32 {
        let ([a, b], [c, d]) = (self.current.to_be_bytes(), self.base.to_be_bytes());
        i32::from_be_bytes([a, b, c, d])
    }

    /// Whether a database with this stamp may have a log in which it has the other one.
    pub(crate) fn is_of_same_store(self, with_log: Self) -> bool {
        self == with_log || self.current == with_log.base
    }

    /// The stamp of the next log.
    fn next(self) -> Self {
        let current = std::iter::repeat_with(|| RandomState::new().hash_one(self.current) as u16)
            .find(|drawn| ![0, self.current, self.base].contains(drawn));
        Self { current: current.unwrap_or_default(), base: self.current }
    }
}

/// Knows when SQLite begins a log anew.
#[derive(Debug)]
pub(crate) struct Stamper {
    file: File,
    /// The salts of the newest log that was stamped. `None` if none is begun yet.
    stamped: Option<[u8; 8]>,
}

impl Stamper {
    /// Watches an open log, which is stamped if it has these salts.
    pub(crate) fn new(file: File, stamped: Option<[u8; 8]>) -> Self {
        Self { file, stamped }
    }

    /// Whether the next transaction is to be stamped, since it begins a log.
    pub(crate) fn is_due(&self) -> bool {
        self.stamped.is_none()
    }

    /// Whether the log was begun anew since it was last stamped, by a transaction without a stamp.
    pub(crate) fn has_new_log(&self) -> bool {
        self.salts().is_some_and(|salts| self.stamped != Some(salts))
    }

    /// Notes that the log is stamped. To stamp one twice would be wrong: the database may still be
    /// as it was before the first. `false` if the log cannot be read, so that no one can tell.
    #[must_use]
    pub(crate) fn set_stamped(&mut self) -> bool {
        self.stamped = self.salts();
        self.stamped.is_some()
    }

    fn salts(&self) -> Option<[u8; 8]> {
        let mut header = [0; HEADER_LEN];
        let read = (&self.file).rewind().and_then(|()| (&self.file).read_exact(&mut header));
        if let Err(error) = read {
            log(|| tracing::warn!(%error, "the log cannot be read, so it is not stamped"));
            return None;
        }
        Some(salts(&header))
    }
}

/// Gives the database its next stamp, in the transaction that is open.
pub(crate) fn write(connection: &Connection) -> rusqlite::Result<()> {
    let field: i32 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let next = Stamp::from_application_id(field.cast_unsigned()).next();
    connection.pragma_update(None, "application_id", next.application_id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_knows_its_predecessor_and_itself_alone() {
        let never = Stamp::from_application_id(0);
        let (first, other) = (never.next(), never.next());
        let second = first.next();
        let third = second.next();
        for (database, with_log, expected) in [
            (never, never, true),
            (never, first, true),
            (first, first, true),
            (first, second, true),
            (never, second, false),
            (first, third, false),
            (third, second, false),
            (second, first, false),
        ] {
            assert_eq!(database.is_of_same_store(with_log), expected, "{database:?} {with_log:?}");
        }
        assert!(other == first || !other.is_of_same_store(first.next()));
        let field = third.application_id().cast_unsigned();
        assert_eq!(Stamp::from_application_id(field), third);
    }
}
