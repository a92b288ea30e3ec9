//! What the command line says.

use clap::{Parser, ValueEnum};

/// Kills two LDK nodes in the middle of payments and recovers them from the store.
#[derive(Debug, Parser)]
#[command(after_help = "Exit codes: 0 every claim holds, 1 a claim failed, 2 wrong usage.")]
pub(crate) struct Arguments {
    /// Alice's store, as SCHEME:PATH[?OPTION=VALUE]; Bob's lies beside it as PATH-bob, or in a table
    /// with `_bob` at the end of its name. Without it, an SQLite file in a new temporary directory.
    #[arg(long, value_name = "URL")]
    pub(crate) store: Option<String>,
    /// Starts a PostgreSQL server for the stores, which is gone when the story ends.
    #[cfg(feature = "postgres")]
    #[arg(long, conflicts_with = "store")]
    pub(crate) postgres: bool,
    /// Decides when the kill comes and what keys the nodes have; random by default.
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// The release of `lightning` that the nodes run; 0.3 needs the cargo feature `ldk-0-3`.
    #[arg(long, value_name = "RELEASE", value_enum, default_value_t = Release::default())]
    pub(crate) ldk: Release,
    /// Be the process that is killed.
    #[arg(long, hide = true, requires = "store", requires = "seed")]
    pub(crate) victim: bool,
}

/// The releases of `lightning` that this build has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Release {
    /// The 0.2 series.
    #[cfg(feature = "ldk-0-2")]
    #[value(name = "0.2")]
    V0_2,
    /// The 0.3 release candidates.
    #[cfg(feature = "ldk-0-3")]
    #[value(name = "0.3")]
    V0_3,
}

impl Default for Release {
    fn default() -> Self {
        Self::value_variants()[0]
    }
}

impl Release {
    /// As `--ldk` takes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            #[cfg(feature = "ldk-0-2")]
            Self::V0_2 => "0.2",
            #[cfg(feature = "ldk-0-3")]
            Self::V0_3 => "0.3",
        }
    }
}
