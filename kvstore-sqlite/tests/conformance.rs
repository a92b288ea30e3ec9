//! The SQLite backend keeps every law, with each schema.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use conformance::Fixture;
use kvstore_core::Result;
use kvstore_sqlite::{SqliteBackend, SqliteOptions};
use tempfile::TempDir;

mod support;

macro_rules! suite {
    ($schema:ident, $prepare:expr) => {
        mod $schema {
            use super::*;

            struct Database(TempDir);

            fn open(path: &Path) -> Result<SqliteBackend> {
                SqliteBackend::open(&SqliteOptions::new(path.join("node.sqlite")))
            }

            impl Fixture for Database {
                type Backend = SqliteBackend;

                fn new() -> Self {
                    let directory = tempfile::tempdir().unwrap();
                    $prepare(&directory.path().join("node.sqlite"));
                    Self(directory)
                }

                fn open(&self) -> Result<SqliteBackend> {
                    open(self.0.path())
                }

                fn open_at(&self, path: &Path) -> Option<Result<SqliteBackend>> {
                    Some(open(path))
                }

                fn too_large(&self) -> usize {
                    1_000_000_001
                }

                fn directory(&self) -> Option<&Path> {
                    Some(self.0.path())
                }
            }

            conformance::suite!(Database);
        }
    };
}

suite!(schema_2, |path: &Path| drop(support::ldk_node_file(path, 2)));
suite!(schema_3, |_: &Path| {});
