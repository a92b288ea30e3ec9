//! Names of entries as parameters of a statement.

use kvstore_core::EntryId;
use tokio_postgres::types::ToSql;

/// The names of several entries, an array for each column.
#[derive(Default)]
pub(crate) struct Names<'a> {
    pub(crate) primary: Vec<&'a str>,
    pub(crate) secondary: Vec<&'a str>,
    pub(crate) key: Vec<&'a str>,
}

impl<'a> Names<'a> {
    pub(crate) fn push(&mut self, id: &'a EntryId) {
        self.primary.push(id.primary());
        self.secondary.push(id.secondary());
        self.key.push(id.key());
    }

    pub(crate) fn all(&self) -> [&(dyn ToSql + Sync); 3] {
        [&self.primary, &self.secondary, &self.key]
    }

    /// Of the first, which has to be there.
    pub(crate) fn first(&self) -> [&(dyn ToSql + Sync); 3] {
        [&self.primary[0], &self.secondary[0], &self.key[0]]
    }
}
