#![doc = include_str!("../README.md")]

mod control;
mod fixture;
pub mod laws;

mod model;
mod strategies;
mod support;

pub use control::{Control, Controlled};
pub use fixture::{Fixture, MemoryFixture};
pub use model::Model;
pub use strategies::{Operation, TRICKY_NAMES, operations};
