//! The sled backend keeps every law, also with a cache so small that pages come from the disk.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use conformance::Fixture;
use kvstore_core::{MAX_VALUE_LEN, Result};
use kvstore_sled::{SledBackend, SledOptions};
use tempfile::TempDir;

macro_rules! suite {
    ($name:ident, $options:expr) => {
        mod $name {
            use super::*;

            struct Directory(TempDir);

            fn open(path: &Path) -> Result<SledBackend> {
                let options: fn(SledOptions) -> SledOptions = $options;
                SledBackend::open(&options(SledOptions::new(path.join("store"))))
            }

            impl Fixture for Directory {
                type Backend = SledBackend;

                fn new() -> Self {
                    Self(tempfile::tempdir().unwrap())
                }

                fn open(&self) -> Result<SledBackend> {
                    open(self.0.path())
                }

                fn open_at(&self, path: &Path) -> Option<Result<SledBackend>> {
                    Some(open(path))
                }

                fn too_large(&self) -> usize {
                    MAX_VALUE_LEN + 1
                }

                fn directory(&self) -> Option<&Path> {
                    Some(self.0.path())
                }
            }

            conformance::suite!(Directory);
        }
    };
}

suite!(default, |options| options);
suite!(tiny_cache, |options| options.cache_bytes(1));
