//! What the tests look with.

mod remains;
mod session;
mod victim;

pub(crate) use remains::{Remains, processes_in};
pub(crate) use session::Session;
pub(crate) use victim::{kill_victim, live_as_victim};
