//! The nodes on `lightning` 0.2.

pub(crate) use lightning_0_2 as lightning;

pub(crate) mod compat;
mod deferred;
#[path = "../flow/mod.rs"]
pub(crate) mod flow;
