//! The ids of entries, as LDK and ldk-node name them.

use lightning_kvstore::EntryId;

use crate::failure::{Context, Result};
use crate::random::Random;

/// An entry of which there is one: the manager, the graph, the scorer.
pub(crate) fn single(key: &str) -> Result<EntryId> {
    id("", "", key)
}

/// The payment of this number.
pub(crate) fn payment(number: u64) -> Result<EntryId> {
    id("payments", "", &hash(number))
}

pub(crate) fn id(primary: &str, secondary: &str, key: &str) -> Result<EntryId> {
    EntryId::new(primary, secondary, key).context("name an entry")
}

/// As long as a hash, and in another order than the numbers, so that the order of the names says
/// nothing about the order of creation.
pub(crate) fn hash(number: u64) -> String {
    let mut random = Random::from_seed(number);
    (0..4).map(|_| format!("{:016x}", random.number())).collect()
}
