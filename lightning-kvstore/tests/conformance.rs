//! Boxed stores that are opened by URL keep every law, also through LDK's traits.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(any(feature = "fs", feature = "sqlite", feature = "sled", feature = "postgres"))]

use std::path::Path;

use conformance::Fixture;
use lightning_kvstore::{Backend, MAX_VALUE_LEN, OpenOptions, Result, open_backend};

fn open(url: &str) -> Result<Box<dyn Backend>> {
    open_backend(&url.parse()?, &OpenOptions::default())
}

/// The suite for the fixture `ByUrl`, and LDK's traits on top.
macro_rules! suites {
    () => {
        conformance::suite!(ByUrl);

        #[cfg(feature = "ldk-0-2")]
        mod ldk_0_2 {
            conformance::ldk_0_2_suite!(super::ByUrl);
        }

        #[cfg(feature = "ldk-0-3")]
        mod ldk_0_3 {
            conformance::ldk_0_3_suite!(super::ByUrl);
        }
    };
}

/// A fixture for the stores at `URL` in a directory, and its suites.
macro_rules! local {
    ($backend:ident, $feature:literal, $url:literal) => {
        #[cfg(feature = $feature)]
        mod $backend {
            use super::*;

            struct ByUrl(tempfile::TempDir);

            impl Fixture for ByUrl {
                type Backend = Box<dyn Backend>;

                fn new() -> Self {
                    Self(tempfile::tempdir().unwrap())
                }

                fn open(&self) -> Result<Self::Backend> {
                    open(&format!($url, self.0.path().display()))
                }

                fn too_large(&self) -> usize {
                    MAX_VALUE_LEN + 1
                }

                fn directory(&self) -> Option<&Path> {
                    Some(self.0.path())
                }
            }

            suites!();
        }
    };
}

local!(fs, "fs", "fs:{}/store/directory");
local!(sqlite, "sqlite", "sqlite:{}/store/node.sqlite");
local!(sled, "sled", "sled:{}/store/node.sled");

#[cfg(feature = "postgres")]
mod postgres {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use postgres_servers::{Server, or_skip};

    use super::*;

    static SERVER: OnceLock<Option<Server>> = OnceLock::new();

    fn server() -> Option<&'static Server> {
        SERVER.get_or_init(|| or_skip(Server::start())).as_ref()
    }

    /// A table of its own on the server of this program, which goes with it.
    struct ByUrl(String);

    impl Fixture for ByUrl {
        type Backend = Box<dyn Backend>;

        fn is_available() -> bool {
            server().is_some()
        }

        fn new() -> Self {
            static TABLES: AtomicU64 = AtomicU64::new(0);
            let table = TABLES.fetch_add(1, Ordering::Relaxed);
            Self(format!("{}?table=entries_{table}", server().unwrap().url()))
        }

        fn open(&self) -> Result<Self::Backend> {
            open(&self.0)
        }

        fn too_large(&self) -> usize {
            MAX_VALUE_LEN + 1
        }

        fn directory(&self) -> Option<&Path> {
            None
        }
    }

    suites!();
}
