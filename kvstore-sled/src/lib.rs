#![doc = include_str!("../README.md")]

mod backend;
mod batch;
mod cost;
mod directory;
mod encoding;
mod engine;
mod error;
mod flush;
mod large;
mod options;
mod reader;
mod recovery;
mod scratch;
mod segments;
mod stamp;
mod view;
mod writer;

pub use backend::SledBackend;
pub use options::SledOptions;
