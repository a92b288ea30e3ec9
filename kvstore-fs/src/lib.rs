#![doc = include_str!("../README.md")]

mod backend;
mod checkpoint;
mod disk;
mod error;
mod journal;
mod layout;
mod options;
mod record;
mod state;

pub use backend::FsBackend;
pub use layout::Layout;
pub use options::FsOptions;
