//! What a check found.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;
use std::{fmt, io};

use super::state::{Crash, Model, State};
use super::tree::Tree;

/// What a [`Check`](super::Check) found.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// How many states were tried, by model in the order of [`Model`].
    pub tried: [usize; 3],
    /// Those in which the store was not what it must be.
    pub bad: Vec<Bad>,
    /// How long it took.
    pub elapsed: Duration,
    /// Why nothing was tried, if the system cannot do what the store needs.
    pub skipped: Option<String>,
}

/// A state in which the store is not what it must be.
#[non_exhaustive]
pub struct Bad {
    /// What survived the crash.
    pub model: Model,
    /// What is wrong.
    pub says: String,
    crash: Crash,
    tree: Option<Tree>,
}

impl Bad {
    /// Writes the state to a new directory that stays.
    ///
    /// # Errors
    /// What the system says, and `NotFound` for a state that comes after 100 others of its report.
    pub fn keep(&self) -> io::Result<PathBuf> {
        let tree = self.tree.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let directory = tempfile::Builder::new().prefix("power-loss-").tempdir()?;
        tree.write_to(directory.path())?;
        Ok(directory.keep())
    }
}

impl Report {
    pub(super) fn add(&mut self, state: State, says: Option<String>) {
        // Of a long run with many of them, the files would fill the memory.
        const KEPT: usize = 100;
        let State { crash, tree, .. } = state;
        self.tried[crash.model as usize] += 1;
        let tree = Some(tree).filter(|_| self.bad.len() < KEPT);
        self.bad.extend(says.map(|says| Bad { model: crash.model, says, crash, tree }));
    }

    /// How many states were tried.
    #[must_use]
    pub fn states(&self) -> usize {
        self.tried.iter().sum()
    }

    /// The first state of each kind of failure: one may hide another.
    pub(super) fn examples(&self) -> impl Iterator<Item = &Bad> {
        // Messages begin with the kind; numbers and names come later.
        const KIND: usize = 16;
        let mut seen = HashSet::new();
        self.bad
            .iter()
            .filter(move |bad| seen.insert(bad.says.chars().take(KIND).collect::<String>()))
    }

    /// How many states of a model were bad.
    #[must_use]
    pub fn bad_of(&self, model: Model) -> usize {
        self.bad.iter().filter(|bad| bad.model == model).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(why) = &self.skipped {
            return write!(f, "SKIPPED: {why}");
        }
        for (model, tried) in Model::ALL.into_iter().zip(self.tried) {
            write!(f, "{model}: {} of {tried} states bad, ", self.bad_of(model))?;
        }
        let rate = self.states() as f64 / self.elapsed.as_secs_f64();
        write!(f, "{rate:.0} states a second")
    }
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, says, crash, .. } = self;
        write!(f, "{model} state after operation {} ({:?}): {says}", crash.after, crash.keep)
    }
}

impl fmt::Debug for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
