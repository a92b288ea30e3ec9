//! Boxed stores that are opened by URL keep every law, also through LDK's traits.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(any(feature = "fs", feature = "sqlite", feature = "sled"))]

use std::path::Path;

use tempfile::TempDir;

/// A fixture for the stores at `URL` in a directory, the suite, and LDK's traits on top.
macro_rules! suites {
    ($backend:ident, $feature:literal, $url:literal) => {
        #[cfg(feature = $feature)]
        mod $backend {
            use super::*;
            use conformance::Fixture;
            use lightning_kvstore::{Backend, MAX_VALUE_LEN, OpenOptions, Result, open_backend};

            struct ByUrl(TempDir);

            impl Fixture for ByUrl {
                type Backend = Box<dyn Backend>;

                fn new() -> Self {
                    Self(tempfile::tempdir().unwrap())
                }

                fn open(&self) -> Result<Self::Backend> {
                    let url = format!($url, self.0.path().display());
                    open_backend(&url.parse()?, &OpenOptions::default())
                }

                fn too_large(&self) -> usize {
                    MAX_VALUE_LEN + 1
                }

                fn directory(&self) -> Option<&Path> {
                    Some(self.0.path())
                }
            }

            conformance::suite!(ByUrl);

            #[cfg(feature = "ldk-0-2")]
            mod ldk_0_2 {
                conformance::ldk_0_2_suite!(super::ByUrl);
            }

            #[cfg(feature = "ldk-0-3")]
            mod ldk_0_3 {
                conformance::ldk_0_3_suite!(super::ByUrl);
            }
        }
    };
}

suites!(fs, "fs", "fs:{}/store/directory");
suites!(sqlite, "sqlite", "sqlite:{}/store/node.sqlite");
suites!(sled, "sled", "sled:{}/store/node.sled");
