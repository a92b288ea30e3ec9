#![doc = include_str!("../README.md")]
#![allow(clippy::duplicate_mod, reason = "`flow` is compiled once for each release of LDK")]

#[cfg(not(any(feature = "ldk-0-2", feature = "ldk-0-3")))]
compile_error!("node-crash needs the feature `ldk-0-2` or `ldk-0-3`");

mod arguments;
mod chance;
mod failure;
#[cfg(feature = "ldk-0-2")]
mod ldk_0_2;
#[cfg(feature = "ldk-0-3")]
mod ldk_0_3;
mod ledger;
mod place;
mod plan;
mod release;
mod remains;
mod report;
mod snapshot;
mod story;
mod victim;
mod voice;

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::Arguments;

/// Runs the example: the story, or, with a hidden argument, the process that is killed in it.
///
/// Exit codes: 0 if every claim holds, 1 if one fails, 2 for wrong usage.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = if arguments.victim { victim::live(&arguments) } else { story::tell(&arguments) };
    done.map_or_else(|failure| failure.report(), |()| ExitCode::SUCCESS)
}
