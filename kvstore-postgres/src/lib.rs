#![doc = include_str!("../README.md")]

mod backend;
mod connection;
mod connector;
mod error;
mod gets;
mod keeper;
mod lease;
mod link;
mod lock;
mod names;
mod options;
mod queries;
mod readers;
mod request;
mod schema;
mod seats;
mod server;
mod table;
mod tls;
mod url;
mod writer;

pub use backend::PostgresBackend;
pub use options::{PostgresOptions, SynchronousCommit, Wait};
pub use server::ServerInfo;
pub use tls::{RootCertificates, TlsMode};
