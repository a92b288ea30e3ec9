//! What a crash leaves of a database is a store, with each schema; and what less careful settings
//! of SQLite lose is seen.

#![cfg(target_os = "linux")]

use std::path::Path;

use kvstore_core::Result;
use kvstore_sqlite::{SqliteBackend, SqliteOptions};

fn open(directory: &Path) -> Result<SqliteBackend> {
    SqliteBackend::open(&SqliteOptions::new(directory.join("node.sqlite")).readers(1))
}

conformance::power_loss_suite!(open);
