//! A database for one test.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::access::Access;
use crate::error::Result;

/// An empty database under a name of its own; dropped with this, whoever is still connected.
#[derive(Debug)]
pub struct Database {
    name: String,
    access: Access,
}

impl Database {
    pub(crate) fn create(access: Access) -> Result<Self> {
        static CREATED: AtomicU64 = AtomicU64::new(0);
        let name = format!("test_{}", CREATED.fetch_add(1, Ordering::Relaxed));
        access.execute(&format!("CREATE DATABASE {name}"))?;
        Ok(Self { name, access })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its URL, through the server or pooler that created it.
    #[must_use]
    pub fn url(&self) -> String {
        self.access.url_of(&self.name)
    }

    /// What a statement in it returns, as [`Access::query`].
    ///
    /// # Errors
    ///
    /// As [`Access::execute`].
    pub fn query(&self, sql: &str) -> Result<String> {
        self.access.query_in(&self.name, sql)
    }

    /// Runs a statement in it.
    ///
    /// # Errors
    ///
    /// As [`Access::execute`].
    pub fn execute(&self, sql: &str) -> Result<()> {
        self.query(sql).map(|_| ())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // The server may be down or gone, and its databases with it.
        let _ = self.access.execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name));
    }
}
