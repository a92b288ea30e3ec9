#![doc = include_str!("../README.md")]

mod arguments;
mod bounds;
mod channel;
mod failure;
mod life;
mod location;
mod measure;
mod model;
mod names;
mod random;
mod report;
mod run;
mod sample;
mod scale;
mod values;
mod verify;
mod victim;
mod writer;

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::Arguments;

/// Runs the soak, or, with a hidden argument, the process that is killed in it.
///
/// Exit codes: 0 if every check holds, 1 if one fails, 2 for wrong usage.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = if arguments.victim { victim::live(&arguments) } else { run::run(&arguments) };
    done.map_or_else(|failure| failure.report(), |()| ExitCode::SUCCESS)
}
