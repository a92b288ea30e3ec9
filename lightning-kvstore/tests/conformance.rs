//! Boxed stores that are opened by URL keep every law, also through LDK's traits.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(feature = "sqlite")]

use std::path::Path;

use conformance::Fixture;
use lightning_kvstore::{Backend, OpenOptions, Result, open_backend};
use tempfile::TempDir;

struct SqliteUrl(TempDir);

impl Fixture for SqliteUrl {
    type Backend = Box<dyn Backend>;

    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn open(&self) -> Result<Self::Backend> {
        let url = format!("sqlite:{}/store/node.sqlite", self.0.path().display());
        open_backend(&url.parse()?, &OpenOptions::default())
    }

    fn too_large(&self) -> usize {
        1_000_000_001
    }

    fn directory(&self) -> Option<&Path> {
        Some(self.0.path())
    }
}

mod sqlite {
    conformance::suite!(super::SqliteUrl);
}

#[cfg(feature = "ldk-0-2")]
mod ldk_0_2 {
    conformance::ldk_0_2_suite!(super::SqliteUrl);
}

#[cfg(feature = "ldk-0-3")]
mod ldk_0_3 {
    conformance::ldk_0_3_suite!(super::SqliteUrl);
}
