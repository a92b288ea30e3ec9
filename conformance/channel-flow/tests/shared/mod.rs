//! What the releases have in common: `crate::lightning` is the one at hand, and `crate::release`
//! holds what the other calls by another name.

mod flow;
mod migration;

pub(crate) use flow::{CHANNEL_SATS, NoSpawner};
#[allow(unused_imports, reason = "the asynchronous migration came with 0.3")]
pub(crate) use migration::{fill, snapshot};
