//! What a file is to hold.

use std::collections::{BTreeMap, BTreeSet};

/// Primary namespace, secondary namespace, key.
pub(crate) type Name = (String, String, String);

pub(crate) fn name(primary: &str, secondary: &str, key: &str) -> Name {
    (primary.to_owned(), secondary.to_owned(), key.to_owned())
}

/// Entries in creation order, and the names of those that are gone.
#[derive(Default)]
pub(crate) struct Expected {
    entries: Vec<(Name, Vec<u8>)>,
    removed: BTreeSet<Name>,
}

impl Expected {
    /// An update keeps the place in the order.
    pub(crate) fn put(&mut self, name: &Name, value: Vec<u8>) {
        self.removed.remove(name);
        match self.entries.iter_mut().find(|(kept, _)| kept == name) {
            Some((_, kept)) => *kept = value,
            None => self.entries.push((name.clone(), value)),
        }
    }

    pub(crate) fn remove(&mut self, name: &Name) {
        self.entries.retain(|(kept, _)| kept != name);
        self.removed.insert(name.clone());
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (&Name, &Vec<u8>)> {
        self.entries.iter().map(|(name, value)| (name, value))
    }

    pub(crate) fn removed(&self) -> impl Iterator<Item = &Name> {
        self.removed.iter()
    }

    /// The names of each namespace, oldest first; none for one that was emptied.
    pub(crate) fn by_namespace(&self) -> BTreeMap<(&str, &str), Vec<&Name>> {
        let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for name in &self.removed {
            found.entry((name.0.as_str(), name.1.as_str())).or_default();
        }
        for (name, _) in &self.entries {
            found.entry((name.0.as_str(), name.1.as_str())).or_default().push(name);
        }
        found
    }
}
