#![doc = include_str!("../README.md")]

mod backend;
mod batch;
mod entry;
mod error;
mod index;
pub mod ldk;
pub mod local;
mod log;
mod memory;
mod name;
mod namespace;
mod page;
mod queue;
mod store;

pub use backend::Backend;
pub use batch::{Batch, MAX_VALUE_LEN, Mutation};
pub use entry::{EntryId, Key};
pub use error::{Error, ErrorKind, Result};
pub use index::{CreationIndex, Indexed};
pub use log::log;
pub use memory::{MemoryBackend, MemoryDisk};
pub use name::{NAME_ALPHABET, NAME_MAX_LEN};
pub use namespace::Namespace;
pub use page::{EntryInfo, Page, PageEntry, PageToken, Position};
pub use queue::{QueueOptions, Ticket};
pub use store::{DynStore, Store, StoreBatch};

/// What an implementation of [`Backend`] needs beside this crate.
pub use async_trait::async_trait;
/// The type of values in a [`Mutation`].
pub use bytes::Bytes;
