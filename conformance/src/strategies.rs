//! Random operations on names that are easy to mix up.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::support::id;
use kvstore_core::EntryId;

/// Primary, secondary and key of entries that a careless backend confuses: prefixes of each other,
/// SQL wildcards, keys that are namespaces elsewhere, names that differ in case only.
pub const TRICKY_NAMES: &[(&str, &str, &str)] = &[
    ("", "", "manager"),
    ("", "", "p"),
    ("p", "", "k"),
    ("p", "", "s"),
    ("p", "k", "k"),
    ("p", "s", "k"),
    ("p", "s", "K"),
    ("p", "s", "k1"),
    ("p", "s", "k2"),
    ("p", "s", "k10"),
    ("p", "s2", "k"),
    ("P", "s", "k"),
    ("sub", "", "k"),
    ("sub2", "", "k"),
    ("a_b", "", "k"),
    ("aXb", "", "k"),
    ("p", "a_b", "k-_1"),
    ("p", "aXb", "k-_1"),
    ("monitor_updates", "channel", "1"),
    ("monitor_updates", "channel", "10"),
    ("monitor_updates", "channel", "2"),
];

/// One step of a random run.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Submits a put and goes on.
    Put(EntryId, Vec<u8>),
    /// Puts and blocks.
    PutBlocking(EntryId, Vec<u8>),
    /// Submits a remove and goes on.
    Remove(EntryId),
    /// Removes lazily.
    RemoveLazy(EntryId),
    /// Submits a batch: a value to put, or `None` to remove.
    Batch(Vec<(EntryId, Option<Vec<u8>>)>),
    /// Holds commits back, so that what is submitted next meets in one group.
    Gather,
    /// Waits for what was submitted and compares everything, with pages of so many entries.
    Compare(usize),
    /// Closes the store, or only drops it, and opens it again.
    Reopen {
        /// Whether to close it first.
        close: bool,
    },
}

/// Names of entries: primary, secondary, key.
pub(crate) type Names = Vec<(&'static str, &'static str, &'static str)>;

/// Half of the entries are of one namespace, so that their creation order matters.
fn entry(names: Names) -> impl Strategy<Value = EntryId> + Clone {
    let crowded = |name: &&(&str, &str, &str)| (name.0, name.1) == ("p", "s");
    let crowded: Names = names.iter().filter(crowded).copied().collect();
    let names = prop_oneof![select(names), select(crowded)];
    names.prop_map(|(primary, secondary, key)| id(primary, secondary, key))
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => vec(any::<u8>(), 0..40),
        1 => (any::<u8>(), 1000_usize..40_000).prop_map(|(byte, len)| vec![byte; len]),
    ]
}

/// Sequences of operations on entries of these names, with reopening as one of them.
pub fn operations(
    names: Vec<(&'static str, &'static str, &'static str)>,
) -> impl Strategy<Value = Vec<Operation>> {
    let entry = entry(names);
    let changes = vec((entry.clone(), proptest::option::weighted(0.7, value())), 0..6);
    let operation = prop_oneof![
        6 => (entry.clone(), value()).prop_map(|(id, value)| Operation::Put(id, value)),
        3 => (entry.clone(), value()).prop_map(|(id, value)| Operation::PutBlocking(id, value)),
        3 => entry.clone().prop_map(Operation::Remove),
        3 => entry.prop_map(Operation::RemoveLazy),
        3 => changes.prop_map(Operation::Batch),
        2 => Just(Operation::Gather),
        3 => (1_usize..5).prop_map(Operation::Compare),
        1 => any::<bool>().prop_map(|close| Operation::Reopen { close }),
    ];
    vec(operation, 1..80)
}
