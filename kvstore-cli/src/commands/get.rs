//! `kvstore get`

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::Args;
use lightning_kvstore::EntryId;

use super::with_store;
use crate::failure::Failure;
use crate::file;
use crate::name;
use crate::output::Output;

/// Write the value of an entry to the standard output or a file, unchanged.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kvstore get sqlite:node.sqlite manager > manager.bin
  kvstore get sqlite:node.sqlite monitors/some_channel -o monitor.bin")]
pub struct Arguments {
    /// The store, as sqlite:PATH, fs:PATH or postgres://….
    url: String,
    /// KEY, PRIMARY/KEY or PRIMARY/SECONDARY/KEY.
    #[arg(value_parser = name::entry)]
    name: EntryId,
    /// Write to this file instead of the standard output. One that is there is replaced at once,
    /// and as a whole; the new one is for its owner only.
    #[arg(short, long)]
    output: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Arguments { url, name, output } = arguments;
    with_store(url, false, |store| {
        let value = store.get_blocking(name)?.ok_or_else(|| Failure::NotFound(name.clone()))?;
        match output {
            Some(path) => file::write(path, &value),
            None => print(&value),
        }
    })
}

fn print(value: &[u8]) -> Result<(), Failure> {
    if io::stdout().is_terminal() && !is_text(value) {
        let message = format!(
            "the value is {} bytes of binary data, which can garble a terminal; redirect it or \
             use --output FILE",
            value.len()
        );
        return Err(Failure::Usage(message));
    }
    let mut output = Output::new();
    output.bytes(value)?;
    output.finish()
}

fn is_text(value: &[u8]) -> bool {
    let printable = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    std::str::from_utf8(value).is_ok_and(|text| text.chars().all(printable))
}
