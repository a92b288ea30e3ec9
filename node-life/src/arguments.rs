//! The command line.

use clap::Parser;

/// Lives months of a node's life on one store and checks contents, disk, memory and descriptors.
#[derive(Debug, Parser)]
#[command(after_help = "Exit codes: 0 every check holds, 1 a check failed, 2 wrong usage.")]
pub(crate) struct Arguments {
    /// The store, as SCHEME:PATH[?OPTION=VALUE]; it must hold no entries. Without it, a directory
    /// and then an SQLite file in new temporary directories, which are removed after a run in which
    /// every check holds.
    #[arg(long, value_name = "URL")]
    pub(crate) store: Option<String>,
    /// How many months to live.
    #[arg(
        long,
        value_name = "N",
        env = "NODE_LIFE_MONTHS",
        default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub(crate) months: u64,
    /// Decides sizes, channels and moments of kills; random by default.
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// At each month's end, also kills a process that writes to the store.
    #[arg(long)]
    pub(crate) kills: bool,
    /// Leaves no slack in any bound, which shows that the checks can fail.
    #[arg(long, hide = true)]
    pub(crate) zero_slack: bool,
    /// Be the process that is killed.
    #[arg(long, hide = true, requires = "store", requires = "seed")]
    pub(crate) victim: bool,
}
