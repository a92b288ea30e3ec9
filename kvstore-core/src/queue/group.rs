//! Which mutations a group commits, and what becomes of its members.

use std::collections::{HashMap, HashSet};

use super::state::{Submission, poisoned};
use crate::{EntryId, Error, ErrorKind, Mutation, Result};

/// A prefix of the queue that is committed together.
pub(crate) struct Group {
    submissions: Vec<Submission>,
}

/// What a group came to.
#[derive(Default)]
pub(super) struct Outcome {
    /// Weight to give back to the queue.
    pub(super) weight: usize,
    /// Entries that are durable now, each up to a sequence number.
    pub(super) committed: Vec<(EntryId, u64)>,
    /// Lazy removes to try again, and the entries that they are about.
    pub(super) failed_lazy: Vec<(Submission, Error)>,
    failed_ids: HashSet<EntryId>,
    /// Why the store must stop, if it must.
    pub(super) poison: Option<Error>,
    /// Whom to tell what.
    pub(super) settled: Vec<(Submission, Result<()>)>,
}

impl Group {
    pub(super) fn new(submissions: Vec<Submission>) -> Self {
        Self { submissions }
    }

    /// How many submissions it has.
    pub(super) fn len(&self) -> usize {
        self.submissions.len()
    }

    /// Commits the group as one, or its members one by one if only some are at fault.
    pub(super) fn commit(self, mut commit: impl FnMut(&[Mutation]) -> Result<()>) -> Outcome {
        let mut outcome = Outcome {
            weight: self.submissions.iter().map(|s| s.weight).sum(),
            settled: Vec::with_capacity(self.submissions.len()),
            ..Outcome::default()
        };
        match commit_members(self.submissions.iter(), &mut commit) {
            Err(error) if error.kind().concerns_single_batches() && self.submissions.len() > 1 => {
                for run in runs(self.submissions) {
                    outcome.commit_run(run, &mut commit);
                }
            }
            result => outcome.settle_all(self.submissions, &result),
        }
        outcome
    }
}

/// Members one by one, except that lazy removes that follow each other stay together: thousands of
/// them may wait for room on a full disk, and one more or less makes no difference there.
fn runs(submissions: Vec<Submission>) -> Vec<Vec<Submission>> {
    let mut runs: Vec<Vec<Submission>> = Vec::new();
    for submission in submissions {
        match runs.last_mut() {
            Some(run) if submission.is_lazy() && run[0].is_lazy() => run.push(submission),
            _ => runs.push(vec![submission]),
        }
    }
    runs
}

impl Outcome {
    fn commit_run(
        &mut self,
        run: Vec<Submission>,
        commit: &mut impl FnMut(&[Mutation]) -> Result<()>,
    ) {
        let result = match &self.poison {
            // Nothing after a poisoning failure may be tried.
            Some(cause) => Err(poisoned(cause)),
            None => self.try_run(&run, commit),
        };
        match result {
            Err(error)
                if run.len() > 1
                    && error.kind().concerns_single_batches()
                    && error.kind() != ErrorKind::StorageFull =>
            {
                for submission in run {
                    self.commit_run(vec![submission], commit);
                }
            }
            result => self.settle_all(run, &result),
        }
    }

    /// Commits members along with the lazy removes of their entries that failed before: an entry
    /// that is put again is new (contract L4).
    fn try_run(
        &self,
        run: &[Submission],
        commit: &mut impl FnMut(&[Mutation]) -> Result<()>,
    ) -> Result<()> {
        let touched = self.failed_among(run);
        let lazy = self.failed_lazy.iter().map(|(lazy, _)| lazy);
        let lazy = lazy.filter(|lazy| lazy.mutations.iter().any(|m| touched.contains(m.id())));
        commit_members(lazy.chain(run), commit)
    }

    /// The entries of these submissions that have a lazy remove that failed.
    fn failed_among(&self, submissions: &[Submission]) -> HashSet<EntryId> {
        if self.failed_ids.is_empty() {
            return HashSet::new();
        }
        let ids = submissions.iter().flat_map(|s| &s.mutations).map(Mutation::id);
        ids.filter(|id| self.failed_ids.contains(*id)).cloned().collect()
    }

    fn settle_all(&mut self, submissions: Vec<Submission>, result: &Result<()>) {
        if result.is_ok() {
            let settled = self.failed_among(&submissions);
            if !settled.is_empty() {
                let is_settled = |lazy: &Submission| {
                    lazy.mutations.iter().any(|mutation| settled.contains(mutation.id()))
                };
                self.failed_lazy.retain(|(lazy, _)| !is_settled(lazy));
                self.failed_ids.retain(|id| !settled.contains(id));
            }
        }
        for submission in submissions {
            self.settle(submission, result.clone());
        }
    }

    fn settle(&mut self, submission: Submission, result: Result<()>) {
        let result = result.map_err(|error| match &submission.mutations[..] {
            [only] if error.entry().is_none() => error.with_entry(only.id()),
            _ => error,
        });
        match &result {
            Ok(()) => {
                let ids = submission.mutations.iter().map(Mutation::id);
                self.committed.extend(ids.map(|id| (id.clone(), submission.sequence)));
            }
            Err(error) if error.kind().poisons() => {
                self.poison.get_or_insert_with(|| error.clone());
            }
            Err(error) if submission.is_lazy() => {
                self.failed_ids.extend(submission.mutations.iter().map(|m| m.id().clone()));
                self.failed_lazy.push((submission, error.clone()));
                return;
            }
            Err(_) => {}
        }
        self.settled.push((submission, result));
    }

    /// What a lazy remove came to that went down with the store: nobody waits for it, so the close
    /// has to say so.
    pub(super) fn lost_lazy(&self) -> Option<Error> {
        let mut lost = self.settled.iter().filter(|(submission, _)| submission.is_lazy());
        lost.find_map(|(_, result)| result.as_ref().err().cloned())
    }
}

fn commit_members<'a>(
    submissions: impl Iterator<Item = &'a Submission>,
    commit: &mut impl FnMut(&[Mutation]) -> Result<()>,
) -> Result<()> {
    match &submissions.collect::<Vec<_>>()[..] {
        [one] if one.mutations.is_empty() => Ok(()),
        [one] if one.mutations.len() == 1 => commit(&one.mutations),
        many => {
            let folded = fold(many.iter().flat_map(|submission| &submission.mutations));
            if folded.is_empty() { Ok(()) } else { commit(&folded) }
        }
    }
}

/// Keeps the last mutation of every entry, so that a backend sees none twice.
///
/// The result leads to the same entries, values and creation order as the mutations one after the
/// other: an updated entry stays where its first put stood, and one that was removed in between
/// moves to its last put and is marked to be created anew.
fn fold<'a>(mutations: impl Iterator<Item = &'a Mutation>) -> Vec<Mutation> {
    let mut kept: Vec<Option<Mutation>> = Vec::with_capacity(mutations.size_hint().0);
    let mut places: HashMap<&EntryId, usize> = HashMap::new();
    for mutation in mutations {
        let id = mutation.id();
        let earlier = places.get(id).map(|place| (*place, kept[*place].take()));
        let (place, mutation) = match (earlier, mutation.clone()) {
            (Some((place, Some(Mutation::Put { renew, .. }))), Mutation::Put { id, value, .. }) => {
                (place, Mutation::Put { id, value, renew })
            }
            (Some((_, Some(Mutation::Remove { .. }))), Mutation::Put { id, value, .. }) => {
                (kept.len(), Mutation::Put { id, value, renew: true })
            }
            (_, mutation) => (kept.len(), mutation),
        };
        if place == kept.len() {
            kept.push(None);
        }
        kept[place] = Some(mutation);
        places.insert(id, place);
    }
    kept.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    /// Entries with their value, and their order of creation.
    #[derive(Clone, Debug, Default, PartialEq)]
    struct Entries {
        values: BTreeMap<EntryId, Bytes>,
        oldest_first: Vec<EntryId>,
    }

    impl Entries {
        fn apply(mut self, mutations: &[Mutation]) -> Self {
            for mutation in mutations {
                let id = mutation.id();
                let renewed = matches!(mutation, Mutation::Put { renew: true, .. });
                if renewed || mutation.value().is_none() {
                    self.values.remove(id);
                    self.oldest_first.retain(|other| other != id);
                }
                let Some(value) = mutation.value() else { continue };
                if self.values.insert(id.clone(), value.clone()).is_none() {
                    self.oldest_first.push(id.clone());
                }
            }
            self
        }
    }

    fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
        let mutation = (0..5_u8, proptest::option::weighted(0.6, any::<u8>()));
        let mutation = mutation.prop_map(|(key, value)| {
            let id = EntryId::new("p", "s", &key.to_string()).unwrap();
            match value {
                Some(value) => Mutation::Put { id, value: vec![value].into(), renew: false },
                None => Mutation::Remove { id },
            }
        });
        proptest::collection::vec(mutation, 0..20)
    }

    proptest! {
        #[test]
        fn folding_changes_nothing_but_the_number(before in mutations(), group in mutations()) {
            let entries = Entries::default().apply(&before);
            let folded = fold(group.iter());
            let ids: std::collections::HashSet<_> = folded.iter().map(Mutation::id).collect();
            prop_assert_eq!(ids.len(), folded.len(), "an entry occurs twice");
            prop_assert_eq!(entries.clone().apply(&folded), entries.apply(&group));
        }
    }
}
