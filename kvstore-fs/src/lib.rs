#![doc = include_str!("../README.md")]

mod backend;
mod baseline;
mod checkpoint_state;
mod checkpointer;
mod error;
mod files;
mod journal;
mod layout;
mod namespaces;
mod open;
mod options;
mod reader;
mod record;
mod recovery;
mod scan;
mod shared;
mod spool;
mod state;
mod writer;

pub use backend::FsBackend;
pub use layout::Layout;
pub use options::FsOptions;
