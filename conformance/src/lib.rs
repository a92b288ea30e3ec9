#![doc = include_str!("../README.md")]
#![allow(clippy::unwrap_used, reason = "the laws are tests: they fail by panicking")]

mod control;
mod fixture;
pub mod laws;
#[cfg(any(feature = "ldk-0-2", feature = "ldk-0-3"))]
pub mod ldk;

mod model;
#[cfg(all(feature = "power-loss", target_os = "linux"))]
pub mod power_loss;
mod small_disk;
mod strategies;
mod support;

pub use control::{Control, Controlled};
pub use fixture::{Fixture, MemoryFixture};
pub use model::Model;
pub use small_disk::SmallDisk;
pub use strategies::{Operation, TRICKY_NAMES, operations};
