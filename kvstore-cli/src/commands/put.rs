//! `kvstore put`

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use lightning_kvstore::EntryId;

use super::with_store;
use crate::failure::Failure;
use crate::name;

/// Store the bytes of a file or of the standard input, and return when they are durable.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kvstore put sqlite:node.sqlite notes/backup backup.bin
  date | kvstore put sqlite:node.sqlite notes/today")]
pub struct Arguments {
    /// The store, as sqlite:PATH, fs:PATH or postgres://…; it is created if there is none.
    url: String,
    /// KEY, PRIMARY/KEY or PRIMARY/SECONDARY/KEY.
    #[arg(value_parser = name::entry)]
    name: EntryId,
    /// The file to read; `-` is the standard input.
    #[arg(default_value = "-")]
    file: PathBuf,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Arguments { url, name, file } = arguments;
    let value = read(file).map_err(|error| Failure::Local(file.display().to_string(), error))?;
    with_store(url, true, |store| Ok(store.put_blocking(name, value)?))
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    if file != Path::new("-") {
        return fs::read(file);
    }
    let mut value = Vec::new();
    io::stdin().lock().read_to_end(&mut value)?;
    Ok(value)
}
