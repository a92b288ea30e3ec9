#![doc = include_str!("../README.md")]

mod backend;
mod connection;
mod create;
mod error;
mod journal;
mod location;
mod open;
mod options;
mod queries;
mod readers;
mod recovery;
mod schema;
mod shape;
mod stamp;
mod wal;
mod writer;

pub use backend::SqliteBackend;
pub use options::SqliteOptions;
