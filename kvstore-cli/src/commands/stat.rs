//! `kvstore stat`

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use humansize::{BINARY, format_size};
use lightning_kvstore::{EntryId, EntryInfo};
use serde::Serialize;

use super::with_store;
use crate::failure::Failure;
use crate::output::Output;

/// Show how many entries and bytes each namespace holds, with LDK's named for a reader.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kvstore stat sqlite:ldk_node_data.sqlite
  kvstore stat --json sqlite:ldk_node_data.sqlite | jq -s 'map(.bytes) | add'

Namespaces with the same primary name share a line, unless --all is given.")]
pub struct Arguments {
    /// The store, as sqlite:PATH, fs:PATH or postgres://….
    url: String,
    /// Show every secondary namespace on a line of its own.
    #[arg(long)]
    all: bool,
    /// Print one JSON object per line: namespace, meaning, namespaces, entries, bytes.
    #[arg(long)]
    json: bool,
}

/// What LDK keeps where.
///
/// **Source**: the constants of `lightning::util::persist`.
const MEANINGS: &[(&str, &str)] = &[
    ("manager", "channel manager"),
    ("network_graph", "network graph"),
    ("scorer", "scorer of payment paths"),
    ("output_sweeper", "output sweeper"),
    ("monitors/", "channel monitors"),
    ("monitor_updates/", "channel monitor updates"),
    ("archived_monitors/", "archived channel monitors"),
];

/// One line of the table.
#[derive(Default, Serialize)]
struct Line {
    namespace: String,
    meaning: &'static str,
    namespaces: usize,
    entries: usize,
    bytes: u64,
    #[serde(skip)]
    secondaries: BTreeSet<String>,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    with_store(&arguments.url, false, |store| {
        let lines = lines(&store.list_all_blocking()?, arguments.all);
        let mut output = Output::new();
        if arguments.json {
            lines.iter().try_for_each(|line| output.json(line))?;
        } else {
            table(&lines, &mut output)?;
        }
        output.finish()
    })
}

fn lines(entries: &[EntryInfo], all: bool) -> Vec<Line> {
    let mut lines: BTreeMap<String, Line> = BTreeMap::new();
    for EntryInfo { id, value_len, .. } in entries {
        let line = lines.entry(place(id, all)).or_default();
        line.entries += 1;
        line.bytes += value_len;
        line.secondaries.insert(id.secondary().to_owned());
        line.meaning = meaning(id);
    }
    let finish = |(namespace, line): (String, Line)| Line {
        namespace,
        namespaces: line.secondaries.len(),
        ..line
    };
    lines.into_iter().map(finish).collect()
}

/// The line that an entry counts for. LDK's entries without a namespace have one each.
fn place(id: &EntryId, all: bool) -> String {
    match (id.primary(), id.secondary()) {
        ("", _) if MEANINGS.iter().any(|(name, _)| *name == id.key()) => id.key().to_owned(),
        ("", _) => "/".into(),
        (primary, secondary) if all => format!("{primary}/{secondary}"),
        (primary, _) => format!("{primary}/"),
    }
}

fn meaning(id: &EntryId) -> &'static str {
    let place = match id.primary() {
        "" => id.key().to_owned(),
        primary => format!("{primary}/"),
    };
    MEANINGS.iter().find(|(name, _)| *name == place).map_or("", |(_, meaning)| meaning)
}

fn table(lines: &[Line], output: &mut Output) -> Result<(), Failure> {
    let width = lines.iter().map(|line| line.namespace.len()).max().unwrap_or(0).max(9);
    output.line(&format!("{:<width$} {:>8} {:>11}  meaning", "namespace", "entries", "bytes"))?;
    for Line { namespace, meaning, namespaces, entries, bytes, .. } in lines {
        let size = format_size(*bytes, BINARY);
        let spread =
            if *namespaces > 1 { format!(" in {namespaces} namespaces") } else { String::new() };
        let line = format!("{namespace:<width$} {entries:>8} {size:>11}  {meaning}{spread}");
        output.line(line.trim_end())?;
    }
    let entries: usize = lines.iter().map(|line| line.entries).sum();
    let bytes: u64 = lines.iter().map(|line| line.bytes).sum();
    let size = format_size(bytes, BINARY);
    output.line(&format!("{:<width$} {entries:>8} {size:>11}", "total"))
}
