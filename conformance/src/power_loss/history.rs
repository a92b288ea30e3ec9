//! What a store may hold after each submission.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::RangeInclusive;
use std::sync::Arc;

use kvstore_core::{Batch, Bytes, EntryId, Namespace};

/// A batch: values to put, or `None` to remove.
#[derive(Clone, Debug)]
pub(super) struct Submission(pub(super) Vec<(EntryId, Option<Bytes>)>);

impl Submission {
    pub(super) fn batch(&self) -> Batch {
        self.0.iter().fold(Batch::new(), |batch, (id, value)| match value {
            Some(value) => batch.put(id, value.clone()),
            None => batch.remove(id),
        })
    }

    /// What these contents become.
    pub(super) fn after(&self, contents: &Contents) -> Contents {
        let mut contents = contents.clone();
        self.0.iter().for_each(|(id, value)| apply(&mut contents, id, value.as_ref()));
        contents
    }
}

/// Keys and values of every namespace that has some, newest first.
pub(super) type Contents = BTreeMap<Namespace, Vec<(String, Bytes)>>;

/// The contents before the first submission, and after each.
///
/// A clone shares them, since every life and every state has one of its own.
#[derive(Clone, Debug)]
pub(super) struct History(Vec<Arc<Contents>>);

impl History {
    pub(super) fn new() -> Self {
        Self(vec![Arc::default()])
    }

    pub(super) fn contents(&self, number: usize) -> &Contents {
        &self.0[number]
    }

    /// The number of the last contents.
    pub(super) fn last(&self) -> usize {
        self.0.len() - 1
    }

    /// Adds what comes after contents that are known, and gives its number.
    pub(super) fn add(&mut self, after: usize, submission: &Submission) -> usize {
        self.0.push(Arc::new(submission.after(&self.0[after])));
        self.last()
    }

    /// The last of the allowed contents that is the same as what was found.
    ///
    /// # Errors
    /// What is different, without the values.
    pub(super) fn find(
        &self,
        found: &Contents,
        allowed: RangeInclusive<usize>,
    ) -> Result<usize, String> {
        if let Some(number) = allowed.clone().rev().find(|number| *self.0[*number] == *found) {
            return Ok(number);
        }
        let (first, last) = (*allowed.start(), *allowed.end());
        let mut says = match self.0[..first].iter().rposition(|contents| **contents == *found) {
            Some(older) => format!(
                "acknowledged writes are lost: it holds what {older} submissions left, and {first} \
                 of {last} were acknowledged"
            ),
            None => format!(
                "it holds what no number of submissions left; {first} of {last} were acknowledged"
            ),
        };
        let _ = write!(says, "\n{}", difference(found, &self.0[first]));
        Err(says)
    }
}

fn apply(contents: &mut Contents, id: &EntryId, value: Option<&Bytes>) {
    let entries = contents.entry(id.namespace()).or_default();
    let at = entries.iter().position(|(key, _)| key == id.key());
    match (at, value) {
        (Some(at), Some(value)) => entries[at].1 = value.clone(),
        (Some(at), None) => drop(entries.remove(at)),
        (None, Some(value)) => entries.insert(0, (id.key().to_owned(), value.clone())),
        (None, None) => {}
    }
    if entries.is_empty() {
        contents.remove(&id.namespace());
    }
}

/// Where two contents differ, each entry by the length of its value and a checksum.
pub(super) fn difference(found: &Contents, expected: &Contents) -> String {
    let mut says = String::new();
    let namespaces: std::collections::BTreeSet<_> = found.keys().chain(expected.keys()).collect();
    for namespace in namespaces {
        if found.get(namespace) != expected.get(namespace) {
            let _ = writeln!(says, "  {namespace}, newest first:");
            let _ = writeln!(says, "    found    {}", entries(found.get(namespace)));
            let _ = writeln!(says, "    expected {}", entries(expected.get(namespace)));
        }
    }
    says
}

fn entries(entries: Option<&Vec<(String, Bytes)>>) -> String {
    let entry = |(key, value): &(String, Bytes)| {
        let sum = value.iter().fold(0_u16, |sum, byte| sum.rotate_left(3) ^ u16::from(*byte));
        format!("{key} ({} bytes, {sum:04x})", value.len())
    };
    let entries: Vec<_> = entries.into_iter().flatten().map(entry).collect();
    if entries.is_empty() { "nothing".to_owned() } else { entries.join(", ") }
}
