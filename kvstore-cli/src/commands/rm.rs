//! `kvstore rm`

use clap::Args;
use lightning_kvstore::EntryId;

use super::with_store;
use crate::failure::Failure;
use crate::name;

/// Remove an entry; ends with exit code 1 if there is none.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kvstore rm sqlite:node.sqlite notes/backup
  kvstore rm --lazy sqlite:node.sqlite monitor_updates/some_channel/7")]
pub struct Arguments {
    /// The store, as sqlite:PATH, fs:PATH or postgres://….
    url: String,
    /// KEY, PRIMARY/KEY or PRIMARY/SECONDARY/KEY.
    #[arg(value_parser = name::entry)]
    name: EntryId,
    /// Remove lazily, as LDK does: with the store's next flush, here the one of closing it.
    #[arg(long)]
    lazy: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Arguments { url, name, lazy } = arguments;
    with_store(url, false, |store| {
        if store.get_blocking(name)?.is_none() {
            return Err(Failure::NotFound(name.clone()));
        }
        if *lazy {
            store.remove_lazy(name)?
        } else {
            store.remove_blocking(name)?
        }
        Ok(())
    })
}
