//! What a crash leaves of a directory is a store, with each layout, and with limits so small that
//! replay, recycling and checkpoints happen all the time.

#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};

use conformance::power_loss;
use kvstore_core::Result;
use kvstore_fs::{FsBackend, FsOptions, Layout};

/// Files that are not an entry's: the names of those have no dot.
fn leftovers(directory: &Path) -> Vec<PathBuf> {
    let files = power_loss::files(directory).into_iter();
    files.filter(|path| path.strip_prefix(directory).is_ok_and(has_dot)).collect()
}

fn has_dot(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().contains(&b'.')
}

macro_rules! suite {
    ($name:ident, $layout:expr, $options:expr) => {
        mod $name {
            use super::*;

            fn open(directory: &Path) -> Result<FsBackend> {
                let options: fn(FsOptions) -> FsOptions = $options;
                let at = FsOptions::new(directory.join("store")).layout($layout);
                FsBackend::open(&options(at.journal_bytes(0)))
            }

            conformance::power_loss_suite!(open, leftovers = leftovers);
        }
    };
}

suite!(v1, Layout::V1, |options| options);
suite!(v2, Layout::V2, |options| options);
suite!(v1_tiny, Layout::V1, |options| options.pending_bytes(0).large_value_bytes(1000));
suite!(v2_tiny, Layout::V2, |options| options.pending_bytes(0).large_value_bytes(1000));
