//! `kvstore`: looks after the storage of a Lightning node.

#![allow(unreachable_pub, reason = "a binary has no public interface")]

mod commands;
mod failure;
mod file;
mod name;
mod output;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands::{get, ls, put, rm, stat};
use crate::failure::Failure;

/// Looks after the storage of a Lightning node.
#[derive(Debug, Parser)]
#[command(name = "kvstore", version, arg_required_else_help = true, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Ls(ls::Arguments),
    Get(get::Arguments),
    Put(put::Arguments),
    Rm(rm::Arguments),
    Stat(stat::Arguments),
}

const AFTER_HELP: &str = "\
Stores:
  sqlite:PATH[?table=NAME]  an SQLite database, ours or ldk-node's
  fs:PATH[?layout=v1|v2]    a directory of files, ours or LDK's
  sled:PATH[?cache=BYTES]   a directory with a sled database of ours, if the tool
                            was built with the feature `sled`
  postgres://USER@HOST/DB[?table=NAME]
                            a table of PostgreSQL, ours or ldk-node's; the password
                            is taken from PGPASSWORD, or from the URL

Examples:
  kvstore stat sqlite:ldk_node_data.sqlite
  kvstore ls --long sqlite:ldk_node_data.sqlite monitors
  kvstore get sqlite:ldk_node_data.sqlite manager > manager.bin

Exit codes: 0 done, 1 no such entry, 2 wrong usage, 3 the store or a file failed.
A store has one owner: stop the node before you look at its store.";

fn main() -> ExitCode {
    let format = tracing_subscriber::fmt().with_writer(std::io::stderr).without_time();
    format.with_max_level(tracing_subscriber::filter::LevelFilter::WARN).init();
    let done = match Cli::parse().command {
        Command::Ls(arguments) => ls::run(&arguments),
        Command::Get(arguments) => get::run(&arguments),
        Command::Put(arguments) => put::run(&arguments),
        Command::Rm(arguments) => rm::run(&arguments),
        Command::Stat(arguments) => stat::run(&arguments),
    };
    done.map_or_else(Failure::report, |()| ExitCode::SUCCESS)
}
