//! The PostgreSQL backend keeps every law: alone, behind a transaction pooler, and in a table that
//! ldk-node made.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use conformance::Fixture;
use kvstore_core::{MAX_VALUE_LEN, Result};
use kvstore_postgres::{PostgresBackend, PostgresOptions};
use support::Place;

mod support;

macro_rules! suite {
    ($name:ident, $available:expr, $place:expr, $options:expr) => {
        mod $name {
            use super::*;

            struct Site(Place);

            impl Fixture for Site {
                type Backend = PostgresBackend;

                fn is_available() -> bool {
                    $available.is_some()
                }

                fn new() -> Self {
                    Self($place.unwrap())
                }

                fn open(&self) -> Result<PostgresBackend> {
                    PostgresBackend::open(&$options(self.0.options()))
                }

                fn too_large(&self) -> usize {
                    MAX_VALUE_LEN + 1
                }

                fn directory(&self) -> Option<&Path> {
                    None
                }
            }

            conformance::suite!(Site);
        }
    };
}

suite!(plain, support::server(), Place::plain(), |options| options);
suite!(pooled, support::pooler(), Place::pooled(), |options: PostgresOptions| options.pooler(true));
suite!(of_ldk_node, support::server(), Place::of_ldk_node(), |options| options);
