//! What is done to a store before it crashes.

use kvstore_core::{Bytes, DynStore, EntryId};

use super::choice::Random;
use super::history::{History, Submission};
use super::recording::Recorder;
use crate::support::id;

/// A random sequence of puts, removes and batches, which a seed fixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Workload {
    /// How many steps there are: a blocking write, or several submissions before the first is
    /// waited for.
    pub steps: usize,
    /// Whether there are batches of several entries, lazy removes, and submissions that are not
    /// waited for one by one. Without them it suits stores that promise nothing about those.
    pub batches: bool,
    /// How many values have more than 256 KiB, so that backends treat them as large.
    pub large_values: usize,
    /// How many of the others, in percent, have 12 to 20 KiB, so that logs grow fast.
    pub medium_values: usize,
}

impl Workload {
    /// So many steps with all that a store promises, and two large values among them.
    #[must_use]
    pub fn new(steps: usize) -> Self {
        Self { steps, batches: true, large_values: 2.min(steps / 4), medium_values: 0 }
    }

    /// So many steps that fill logs and journals soon.
    #[must_use]
    pub fn filling(steps: usize) -> Self {
        Self { medium_values: 60, ..Self::new(steps) }
    }

    /// So many writes of one small entry each, the next after the one before was acknowledged.
    #[must_use]
    pub fn one_by_one(steps: usize) -> Self {
        Self { steps, batches: false, large_values: 0, medium_values: 0 }
    }

    /// The same kinds of steps, so many of them.
    pub(super) fn of_steps(self, steps: usize) -> Self {
        Self { steps, large_values: self.large_values.min(steps / 4), ..self }
    }

    /// Plans steps that go on from the last contents of the history.
    pub(super) fn plan(self, seed: u64, history: &mut History) -> Plan {
        // Far from the numbers of earlier plans, so that no value is the same as one of theirs.
        let written = (history.last() as u64) << 8;
        let random = Random::new(seed);
        let mut planner = Planner { workload: self, random, history, large: 0, written };
        let steps = (0..self.steps).map(|at| {
            let large = (at + 1) * self.large_values / self.steps;
            planner.large = large - at * self.large_values / self.steps;
            if self.batches { planner.step() } else { Step::Commit(vec![planner.single()]) }
        });
        Plan(steps.collect())
    }
}

/// The steps, each submission with the number of the contents after it.
pub(super) struct Plan(Vec<Step>);

type Numbered = (usize, Submission);

enum Step {
    /// Submits all, then waits for each.
    Commit(Vec<Numbered>),
    RemoveLazily(usize, EntryId),
}

struct Planner<'a> {
    workload: Workload,
    random: Random,
    history: &'a mut History,
    /// How many large values the step has room for.
    large: usize,
    written: u64,
}

impl Planner<'_> {
    fn step(&mut self) -> Step {
        match self.random.below(10) {
            0 => {
                let id = self.entry();
                let submission = Submission(vec![(id.clone(), None)]);
                Step::RemoveLazily(self.number(submission).0, id)
            }
            1 | 2 => Step::Commit((0..2 + self.random.below(4)).map(|_| self.some()).collect()),
            _ => Step::Commit(vec![self.some()]),
        }
    }

    fn some(&mut self) -> Numbered {
        if self.random.chance(50) { self.several() } else { self.single() }
    }

    fn single(&mut self) -> Numbered {
        let mutation = self.mutation();
        self.number(Submission(vec![mutation]))
    }

    fn several(&mut self) -> Numbered {
        let mutations = (0..2 + self.random.below(5)).map(|_| self.mutation()).collect();
        self.number(Submission(mutations))
    }

    fn number(&mut self, submission: Submission) -> Numbered {
        (self.history.add(self.history.last(), &submission), submission)
    }

    fn mutation(&mut self) -> (EntryId, Option<Bytes>) {
        let id = self.entry();
        let value = self.random.chance(75).then(|| self.value());
        (id, value)
    }

    /// One of 16 entries in 5 namespaces, half of them in one, so that their order matters.
    fn entry(&mut self) -> EntryId {
        let at = self.random.below(16);
        match at {
            0..8 => id("p", "s", &format!("k{at}")),
            8 => id("", "", "manager"),
            9..11 => id("q", "", &format!("k{at}")),
            11..14 => id("monitor_updates", "channel_0", &format!("{at}")),
            _ => id("monitor_updates", "channel_1", &format!("{at}")),
        }
    }

    /// Bytes that no other value of this history has, if there are enough of them.
    fn value(&mut self) -> Bytes {
        self.written += 1;
        let len = if self.large > 0 {
            self.large -= 1;
            (256 << 10) + self.random.below(64 << 10)
        } else if self.random.chance(self.workload.medium_values) {
            (12 << 10) + self.random.below(8 << 10)
        } else {
            match self.random.below(10) {
                0 => self.random.below(3),
                1 | 2 => 1000 + self.random.below(8000),
                _ => 8 + self.random.below(200),
            }
        };
        let mut bytes = self.written.to_le_bytes().to_vec();
        let fill = self.random.next() as u8 | 1;
        bytes.resize(len, fill);
        bytes.into()
    }
}

impl Plan {
    /// Runs the steps; what is acknowledged is recorded as soon as that is known.
    ///
    /// # Errors
    /// A write that failed.
    pub(super) fn run(&self, store: &DynStore, recorder: &Recorder) -> Result<(), String> {
        self.0.iter().try_for_each(|step| step.run(store, recorder))
    }
}

impl Step {
    fn run(&self, store: &DynStore, recorder: &Recorder) -> Result<(), String> {
        match self {
            Self::RemoveLazily(number, id) => {
                recorder.submitted(*number);
                store.remove_lazy(id).map_err(|error| format!("a lazy remove failed: {error}"))
            }
            Self::Commit(submissions) => {
                if let [(number, submission)] = &submissions[..] {
                    return commit(store, recorder, *number, submission);
                }
                let submit = |(number, submission): &Numbered| {
                    recorder.submitted(*number);
                    (*number, store.submit(submission.batch()))
                };
                let tickets: Vec<_> = submissions.iter().map(submit).collect();
                for (number, ticket) in tickets {
                    ticket.wait().map_err(|error| format!("a write failed: {error}"))?;
                    recorder.acknowledged(number);
                }
                Ok(())
            }
        }
    }
}

/// Commits one submission and waits for it.
fn commit(
    store: &DynStore,
    recorder: &Recorder,
    number: usize,
    submission: &Submission,
) -> Result<(), String> {
    recorder.submitted(number);
    let committed = store.commit_blocking(submission.batch());
    committed.map_err(|error| format!("a write failed: {error}"))?;
    recorder.acknowledged(number);
    Ok(())
}
