//! The life of the two nodes and their recovery, written once for every release of `lightning`.

mod controls;
mod life;
mod node;
mod pair;
mod penalty;
mod recorder;
mod recovery;
mod seen;
pub(crate) mod stand_ins;
pub(crate) mod types;
mod wire;

pub(crate) use life::live;
pub(crate) use recovery::recover;
