//! Crash states of a store on local files: what a loss of power or a kill may leave, at every
//! operation.
//!
//! The store runs on a file system in memory (FUSE) that records every change and every flush, in
//! one sequence with what was submitted and acknowledged. From the recording the files are rebuilt
//! as a crash may leave them, under each [`Model`], and the store is opened there. It must hold what
//! a prefix of the submissions left, with everything that was acknowledged (contract O5, B1, P1),
//! open without a repair step (P2), and take another write.
//!
//! [`power_loss_suite!`](crate::power_loss_suite) makes tests of all that:
//!
//! ```no_run
//! # fn main() {}
//! mod power_loss {
//!     # use kvstore_core::{MemoryBackend, Result};
//!     # fn open(directory: &std::path::Path) -> Result<MemoryBackend> { Ok(MemoryBackend::new()) }
//!     conformance::power_loss_suite!(open, leftovers = conformance::power_loss::files);
//! }
//! ```
//!
//! The function after `leftovers` finds the files that a closed store does not have: here any file.
//! Without it all may be left.
//!
//! **Limits**: `sync(2)`, `syncfs` and `sync_file_range` do not reach a file system of this kind,
//! so they count as no flush. Memory that is mapped for writing is seen late. Damage that a flushed
//! disk does later, and disks that lie about flushes, are not modelled.

mod choice;
mod content;
mod disk;
mod history;
mod lives;
mod operations;
mod oracle;
mod ordered;
mod recording;
mod report;
mod session;
mod shared_memory;
mod state;
mod tree;
mod weak;
mod workload;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use std::{env, fmt, fs, io, thread};

use kvstore_core::{Backend, Result};
use tempfile::TempDir;

use choice::{Keep, Random};
use lives::{Chain, Refused};
use oracle::{Opener, examine};
use recording::Phase;
use session::{Failure, Life, Session};
use state::{Crash, Walk, moments};
use tree::Tree;

pub use oracle::Leftovers;
pub use report::{Bad, Report};
pub use state::Model;
pub use workload::Workload;

/// How many states are tried of each recovery.
const PER_RECOVERY: usize = 20;

/// How many states are tried of each recording of several lives.
const PER_CHAIN: usize = 10;

/// What the store is doing when it crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Making itself on an empty directory, up to its first writes.
    Creation,
    /// Writing.
    Writes,
    /// Opening after a crash, the first writes after it, and the close.
    Recovery,
    /// Any but the first of two to four lives, of which each but the last was ended by a kill,
    /// mostly between a write and the flush that follows it.
    Lives,
    /// The later ones of many lives that were closed or killed, and so long that journals and logs
    /// use their space again.
    History,
    /// Closing.
    Close,
}

/// How a store is crashed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Check {
    /// What it is doing.
    pub part: Part,
    /// What is done to it before.
    pub workload: Workload,
    /// Fixes the workload and the states; threads of the store may still take turns differently.
    pub seed: u64,
    /// How many states are tried.
    pub states: usize,
    /// Finds what a store should not have left in its directory after the crash and a clean close;
    /// by default nothing.
    pub leftovers: Leftovers,
}

impl Check {
    /// The default workload and number of states for a part.
    #[must_use]
    pub fn new(part: Part, seed: u64) -> Self {
        let workload = match part {
            Part::Creation => Workload::new(2),
            Part::Writes => Workload::new(40),
            Part::Recovery | Part::Lives | Part::Close => Workload::new(12),
            // Of each of its lives.
            Part::History => Workload::filling(16),
        };
        let states = if part == Part::History { 200 } else { 100 };
        Self { part, workload, seed, states, leftovers: |_| Vec::new() }
    }

    /// Replaces the workload.
    #[must_use]
    pub fn workload(mut self, workload: Workload) -> Self {
        self.workload = workload;
        self
    }

    /// Sets how many states are tried.
    #[must_use]
    pub fn states(mut self, states: usize) -> Self {
        self.states = states;
        self
    }

    /// Sets how leftovers are found.
    #[must_use]
    pub fn leftovers(mut self, leftovers: Leftovers) -> Self {
        self.leftovers = leftovers;
        self
    }

    /// Runs a store, crashes it and opens it in each state. `open` opens the store whose files are
    /// in the directory, or makes it there.
    ///
    /// # Panics
    /// If the store fails although nothing crashed.
    pub fn run<B: Backend>(
        &self,
        open: impl Fn(&Path) -> Result<B> + Send + Sync + 'static,
    ) -> Report {
        let begun = Instant::now();
        let opener = Opener::new(open, self.leftovers);
        let first = session::first(&opener, Life { workload: self.workload, seed: self.seed });
        let mut report = Report::default();
        let first = match first {
            Ok(first) => first,
            Err(Failure::Missing(what)) => {
                report.skipped = Some(what);
                return report;
            }
            Err(Failure::Store(says)) => panic!("without a crash, {says}; {self}"),
        };
        let phase = match self.part {
            Part::Writes => Some(Phase::Writes),
            Part::Close => Some(Phase::Close),
            Part::Creation | Part::Recovery | Part::Lives | Part::History => None,
        };
        let moments = moments(&first.recording, phase, 0);
        match self.part {
            Part::Recovery => self.recover(&opener, &first, &moments, &mut report),
            Part::Lives => self.live_on(&opener, &first, &mut report),
            Part::History => self.live_long(&opener, &first, &mut report),
            _ => self.sample(&opener, &first, self.crashes(&moments), &mut report),
        }
        report.elapsed = begun.elapsed();
        report
    }

    /// Opens the store in the states that these crashes leave.
    fn sample(
        &self,
        opener: &Opener,
        session: &Session,
        mut crashes: Vec<Crash>,
        report: &mut Report,
    ) {
        // Stores wait for the disk much of the time, if only for that of the root directory.
        const AT_ONCE: usize = 4;
        crashes.sort_by_key(|crash| crash.after);
        let due = Mutex::new((Walk::new(&session.recording), crashes.into_iter()));
        let next = || {
            let (walk, crashes) = &mut *due.lock().unwrap_or_else(PoisonError::into_inner);
            crashes.next().map(|crash| walk.state(crash))
        };
        let report = Mutex::new(report);
        let work = || {
            while let Some(state) = next() {
                let outcome = examine(opener, &state, &session.history);
                report.lock().unwrap_or_else(PoisonError::into_inner).add(state, outcome.err());
            }
        };
        thread::scope(|scope| (0..AT_ONCE).for_each(|_| drop(scope.spawn(work))));
    }

    /// Crashes the store, and crashes it again while it recovers.
    fn recover(&self, opener: &Opener, first: &Session, moments: &[usize], report: &mut Report) {
        let mut walk = Walk::new(&first.recording);
        let mut kills = self.of(self.states.div_ceil(PER_RECOVERY), self.seed).crashes(moments);
        kills.sort_by_key(|crash| crash.after);
        for crash in kills {
            let state = walk.state(crash);
            let seed = self.seed ^ crash.after as u64;
            let life = Life { workload: self.workload.of_steps(2), seed };
            match session::again(opener, first, &state, life) {
                Ok(second) => {
                    let moments = state::moments(&second.recording, None, second.begun);
                    let crashes = self.of(PER_RECOVERY, seed).crashes(&moments);
                    self.sample(opener, &second, crashes, report);
                }
                Err(failure) => report.add(state, Some(failure.into())),
            }
        }
    }

    /// Kills the store time and again, and lets the power fail in the lives after that.
    fn live_on(&self, opener: &Opener, first: &Session, report: &mut Report) {
        let mut random = Random::new(self.seed);
        for _ in 0..self.states.div_ceil(PER_CHAIN) {
            let chain = lives::several(opener, first, self.workload.of_steps(6), &mut random);
            self.of(PER_CHAIN, random.next()).crash_chain(opener, chain, report);
        }
    }

    /// Lets the power fail after a long history.
    fn live_long(&self, opener: &Opener, first: &Session, report: &mut Report) {
        let mut random = Random::new(self.seed);
        let chain = lives::many(opener, first, self.workload, &mut random);
        self.crash_chain(opener, chain, report);
    }

    /// Crashes later lives: half of the times while one of them opens, since it acts on what it
    /// finds then.
    fn crash_chain(
        &self,
        opener: &Opener,
        chain: std::result::Result<Chain, Box<Refused>>,
        report: &mut Report,
    ) {
        let Chain { session, from } = match chain {
            Ok(chain) => chain,
            Err(refused) => {
                let Refused { state, failure } = *refused;
                return report.add(state, Some(failure.into()));
            }
        };
        let crashes = [Some(Phase::Open), None].into_iter().flat_map(|phase| {
            let moments = state::moments(&session.recording, phase, from);
            let moments = state::around_flushes(&session.recording, moments);
            self.of(self.states / 2, self.seed ^ phase.map_or(0, |_| 1)).crashes(&moments)
        });
        let crashes = crashes.collect();
        self.sample(opener, &session, crashes, report);
    }

    /// The same check with another number of states and another seed.
    fn of(&self, states: usize, seed: u64) -> Self {
        Self { seed, states, ..self.clone() }
    }

    /// A sample of the crashes at these moments: each with nothing, everything and some of what was
    /// not flushed.
    fn crashes(&self, moments: &[usize]) -> Vec<Crash> {
        let mut random = Random::new(self.seed);
        let mut crashes = Vec::new();
        while crashes.len() < self.states && !moments.is_empty() {
            for after in moments.iter().copied() {
                for model in Model::ALL {
                    let keeps = [
                        Keep::Nothing,
                        Keep::Everything,
                        Keep::Some(random.next()),
                        Keep::Some(random.next()),
                    ];
                    let keeps = if model == Model::Killed { &keeps[..1] } else { &keeps[..] };
                    crashes.extend(keeps.iter().map(|keep| Crash { after, model, keep: *keep }));
                }
            }
        }
        for at in 0..self.states.min(crashes.len()) {
            let other = at + random.below(crashes.len() - at);
            crashes.swap(at, other);
        }
        crashes.truncate(self.states);
        crashes
    }
}

/// Whether recordings can be made here; says so if not.
#[must_use]
#[allow(clippy::print_stdout, reason = "a skipped test says so")]
pub fn is_possible() -> bool {
    match disk::Disk::mount(Tree::new(), Vec::new(), None) {
        Ok(_) => true,
        Err(error) => {
            println!("SKIPPED: no file system can be mounted by FUSE ({error}); run as root");
            false
        }
    }
}

/// Fails if the store is not what it must be after some crash; the state is kept for a look.
///
/// Runs with two fixed seeds, a long history with one, and with a fresh one, which is printed:
/// `POWER_LOSS_SEED` repeats it. `POWER_LOSS_STATES` sets how many states there are for each seed, by
/// default 100, and 200 of a long history.
///
/// # Panics
/// If a state is bad.
#[allow(clippy::print_stdout, reason = "a test says what it did")]
pub fn check<B: Backend>(
    part: Part,
    open: impl Fn(&Path) -> Result<B> + Clone + Send + Sync + 'static,
    leftovers: Option<Leftovers>,
) {
    if !is_possible() {
        return;
    }
    let number = |name| env::var(name).ok().and_then(|text: String| text.parse().ok());
    let fresh = number("POWER_LOSS_SEED").unwrap_or_else(crate::support::fresh_seed);
    let seeds = [20_261_123, 7, fresh];
    let seeds = if part == Part::History { &seeds[1..] } else { &seeds[..] };
    let (mut states, begun) = (0, Instant::now());
    for seed in seeds.iter().copied() {
        let mut check = Check::new(part, seed);
        check.leftovers = leftovers.unwrap_or(check.leftovers);
        check.states = number("POWER_LOSS_STATES").map_or(check.states, |states| states as usize);
        println!("{check}");
        let report = check.run(open.clone());
        println!("{report}");
        if report.skipped.is_some() {
            return;
        }
        for bad in report.examples() {
            let kept = bad.keep().unwrap_or_else(|error| PathBuf::from(error.to_string()));
            println!("{bad}\nthe state is kept in {}", kept.display());
        }
        assert!(report.bad.is_empty(), "{report}\n{check}");
        states += report.states();
    }
    println!("{part:?}: none of {states} states bad, in {:.0?}", begun.elapsed());
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { part, seed, states, .. } = self;
        write!(f, "{part:?} with POWER_LOSS_SEED={seed} POWER_LOSS_STATES={states}")
    }
}

/// All files under a directory, from which a function of the kind [`Leftovers`] may choose; none if it
/// cannot be read.
#[must_use]
pub fn files(directory: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// A new directory, in memory if the system has a place for that.
fn place() -> io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix("power-loss-");
    builder.tempdir_in("/dev/shm").or_else(|_| builder.tempdir())
}

/// Makes a test of every [`Part`] for the store that a function opens in a directory. With
/// `leftovers`, a function of the kind [`Leftovers`](crate::power_loss::Leftovers), what it finds
/// after a crash, a write and a clean close is a failure.
#[macro_export]
macro_rules! power_loss_suite {
    ($open:expr) => {
        $crate::power_loss_suite!(@parts $open, None);
    };
    ($open:expr, leftovers = $leftovers:expr) => {
        $crate::power_loss_suite!(@parts $open, Some($leftovers));
    };
    (@parts $open:expr, $leftovers:expr) => {
        $crate::power_loss_suite!(@part creation, Creation, $open, $leftovers);
        $crate::power_loss_suite!(@part writes, Writes, $open, $leftovers);
        $crate::power_loss_suite!(@part recovery, Recovery, $open, $leftovers);
        $crate::power_loss_suite!(@part lives, Lives, $open, $leftovers);
        $crate::power_loss_suite!(@part long_history, History, $open, $leftovers);
        $crate::power_loss_suite!(@part close, Close, $open, $leftovers);
    };
    (@part $name:ident, $part:ident, $open:expr, $leftovers:expr) => {
        /// P1, P2, O5 and B1: a crash leaves a prefix of the submissions.
        #[test]
        fn $name() {
            $crate::power_loss::check($crate::power_loss::Part::$part, $open, $leftovers);
        }
    };
}
