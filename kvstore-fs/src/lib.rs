#![doc = include_str!("../README.md")]

mod backend;
mod checkpoint;
mod disk;
mod error;
mod journal;
mod layout;
mod options;
mod record;
mod recovery;
mod spool;
mod state;
mod writer;

pub use backend::FsBackend;
pub use layout::Layout;
pub use options::FsOptions;
