#![doc = include_str!("../README.md")]

mod backend;
mod connection;
mod error;
mod options;
mod queries;
mod readers;
mod schema;

pub use backend::SqliteBackend;
pub use options::SqliteOptions;
