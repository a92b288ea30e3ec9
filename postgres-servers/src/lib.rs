#![doc = include_str!("../README.md")]
#![cfg(unix)]

mod access;
mod account;
mod cluster;
mod database;
mod error;
mod family;
mod home;
mod log;
mod patience;
mod pooler;
mod port;
mod process;
mod programs;
mod server;
mod skip;
mod standby;
mod template;
mod tls;

pub use access::Access;
pub use cluster::{Cluster, ClusterBuilder, Rejoined};
pub use database::Database;
pub use error::{Error, Result};
pub use pooler::Pooler;
pub use server::{Server, ServerBuilder, Stop};
pub use skip::or_skip;
