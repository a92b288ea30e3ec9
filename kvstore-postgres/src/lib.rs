#![doc = include_str!("../README.md")]

mod backend;
mod connection;
mod error;
mod keeper;
mod lease;
mod link;
mod lock;
mod options;
mod queries;
mod readers;
mod schema;
mod table;
mod tls;
mod writer;

pub use backend::PostgresBackend;
pub use connection::ServerInfo;
pub use options::{PostgresOptions, SynchronousCommit, Wait};
pub use tls::{RootCertificates, TlsMode};
