//! LDK's directory layouts: where an entry's file lies.

use std::path::PathBuf;

use kvstore_core::{EntryId, Namespace};

/// How the files of a store lie in its directory.
///
/// **Source**: lightning-persister 0.2.3 (`FilesystemStore`) and 0.3.0-rc3 (`FilesystemStore`,
/// `FilesystemStoreV2`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `[primary/[secondary/]]key`: empty names are left out. A key cannot have the name of a
    /// namespace at the same level.
    V1 = 1,
    /// Always two levels, an empty name is the folder `[empty]`.
    V2 = 2,
}

/// The folder that stands for an empty name in [`Layout::V2`]. A new store has it from the start,
/// since it tells the second layout from the first.
pub(crate) const EMPTY: &str = "[empty]";

impl Layout {
    /// The directories on the way to a namespace's files.
    pub(crate) fn directories(self, namespace: &Namespace) -> Vec<String> {
        let names = [namespace.primary(), namespace.secondary()].into_iter();
        let names = names.filter_map(|name| match (self, name) {
            (Self::V1, "") => None,
            (Self::V2, "") => Some(EMPTY),
            (_, name) => Some(name),
        });
        names.map(str::to_owned).collect()
    }

    /// The path of an entry's file in the store's directory.
    pub(crate) fn file(self, id: &EntryId) -> PathBuf {
        let mut path: PathBuf = self.directories(&id.namespace()).into_iter().collect();
        path.push(id.key());
        path
    }

    /// What the layout cannot hold beside `id`: entries in the namespace whose directory would have
    /// to be this entry's file.
    pub(crate) fn namespace_in_the_way(self, id: &EntryId) -> Option<NamespaceConflict> {
        match (self, id.primary(), id.secondary()) {
            (Self::V1, "", _) => Some(NamespaceConflict::Primary(id.key().to_owned())),
            (Self::V1, primary, "") => {
                Namespace::new(primary, id.key()).ok().map(NamespaceConflict::Whole)
            }
            _ => None,
        }
    }

    /// The conflicts that an entry is part of by its namespace: what [`namespace_in_the_way`](
    /// Self::namespace_in_the_way) gives for a key with the namespace's name.
    pub(crate) fn conflicts_of_entries_in(self, id: &EntryId) -> Vec<NamespaceConflict> {
        if self == Self::V2 || id.primary().is_empty() {
            return Vec::new();
        }
        let mut conflicts = vec![NamespaceConflict::Primary(id.primary().to_owned())];
        if !id.secondary().is_empty() {
            conflicts.push(NamespaceConflict::Whole(id.namespace()));
        }
        conflicts
    }

    /// The entries whose files would have to be directories for `id`.
    pub(crate) fn keys_in_the_way(self, id: &EntryId) -> Vec<EntryId> {
        if self == Self::V2 || id.primary().is_empty() {
            return Vec::new();
        }
        let mut ids = vec![EntryId::new("", "", id.primary())];
        if !id.secondary().is_empty() {
            ids.push(EntryId::new(id.primary(), "", id.secondary()));
        }
        ids.into_iter().flatten().collect()
    }
}

/// Namespaces that have the name of a key in [`Layout::V1`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum NamespaceConflict {
    /// Every namespace with this primary name.
    Primary(String),
    /// This one.
    Whole(Namespace),
}
