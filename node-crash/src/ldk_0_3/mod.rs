//! The nodes on `lightning` 0.3.

pub(crate) use lightning_0_3 as lightning;

pub(crate) mod compat;
#[path = "../flow/mod.rs"]
pub(crate) mod flow;
