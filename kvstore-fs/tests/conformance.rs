//! The directory backend keeps every law, with each layout, and with limits so small that replay,
//! recycling and checkpoints happen all the time.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use conformance::Fixture;
use kvstore_core::{MAX_VALUE_LEN, Result};
use kvstore_fs::{FsBackend, FsOptions, Layout};
use tempfile::TempDir;

macro_rules! suite {
    ($name:ident, $layout:expr, $options:expr) => {
        mod $name {
            use super::*;

            struct Directory {
                _parent: TempDir,
                path: PathBuf,
            }

            fn open(path: &Path) -> Result<FsBackend> {
                let options: fn(FsOptions) -> FsOptions = $options;
                FsBackend::open(&options(FsOptions::new(path).layout($layout)))
            }

            impl Fixture for Directory {
                type Backend = FsBackend;

                fn new() -> Self {
                    let parent = tempfile::tempdir().unwrap();
                    Self { path: parent.path().join("store"), _parent: parent }
                }

                fn open(&self) -> Result<FsBackend> {
                    open(&self.path)
                }

                fn open_at(&self, path: &Path) -> Option<Result<FsBackend>> {
                    Some(open(path))
                }

                fn too_large(&self) -> usize {
                    MAX_VALUE_LEN + 1
                }

                fn directory(&self) -> Option<&Path> {
                    Some(&self.path)
                }

                fn keys_may_be_namespaces(&self) -> bool {
                    $layout != Layout::V1
                }
            }

            conformance::suite!(Directory);
        }
    };
}

suite!(v1, Layout::V1, |options| options);
suite!(v2, Layout::V2, |options| options);
suite!(v1_tiny, Layout::V1, |options| options.journal_bytes(0).pending_bytes(0));
suite!(v2_tiny, Layout::V2, |options| options.journal_bytes(0).pending_bytes(0));
suite!(v2_lazy, Layout::V2, |options| options.journal_bytes(0).large_value_bytes(1000));
