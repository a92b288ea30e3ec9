#![doc = include_str!("../README.md")]

mod backend;
mod encoding;
mod engine;
mod error;
mod large;
mod options;
mod place;
mod view;
mod writer;

pub use backend::SledBackend;
pub use options::SledOptions;
