//! `kvstore ls`

use clap::Args;
use lightning_kvstore::EntryInfo;
use serde::Serialize;

use super::with_store;
use crate::failure::Failure;
use crate::name::{self, Selection, Shown};
use crate::output::Output;

/// List entries by name.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kvstore ls sqlite:node.sqlite                   everything
  kvstore ls sqlite:node.sqlite monitor_updates   all updates of all channels
  kvstore ls sqlite:node.sqlite monitors/         the monitors, without sub-namespaces
  kvstore ls --json sqlite:node.sqlite | jq .key")]
pub struct Arguments {
    /// The store, as sqlite:PATH, fs:PATH or postgres://….
    url: String,
    /// PRIMARY for all its entries, PRIMARY/SECONDARY for one namespace.
    #[arg(value_parser = name::selection)]
    namespace: Option<Selection>,
    /// Show bytes and creation number too, and put the newest entry of a namespace first.
    #[arg(short, long)]
    long: bool,
    /// Print one JSON object per line: primary, secondary, key, bytes, created.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct JsonEntry<'a> {
    primary: &'a str,
    secondary: &'a str,
    key: &'a str,
    bytes: u64,
    created: u64,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    with_store(&arguments.url, false, |store| {
        let mut entries = store.list_all_blocking()?;
        let selected = |entry: &EntryInfo| match &arguments.namespace {
            Some(namespace) => namespace.contains(&entry.id),
            None => true,
        };
        entries.retain(selected);
        if arguments.long {
            entries.sort_by_key(|e| (e.id.namespace(), std::cmp::Reverse(e.created), e.id.clone()));
        } else {
            entries.sort_by(|a, b| a.id.cmp(&b.id));
        }
        let mut output = Output::new();
        for entry in &entries {
            if arguments.json {
                output.json(&JsonEntry::from(entry))?;
            } else if arguments.long {
                let EntryInfo { id, value_len, created } = entry;
                output.line(&format!("{value_len:>12} {created:>10} {}", Shown(id)))?;
            } else {
                output.line(&Shown(&entry.id).to_string())?;
            }
        }
        output.finish()
    })
}

impl<'a> From<&'a EntryInfo> for JsonEntry<'a> {
    fn from(entry: &'a EntryInfo) -> Self {
        let EntryInfo { id, value_len, created } = entry;
        Self {
            primary: id.primary(),
            secondary: id.secondary(),
            key: id.key(),
            bytes: *value_len,
            created: *created,
        }
    }
}
