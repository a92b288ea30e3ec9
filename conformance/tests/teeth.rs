//! The suite catches backends that break a law: one defect each, on top of the reference backend.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use conformance::Fixture;
use kvstore_core::{
    Backend, Bytes, EntryId, EntryInfo, Error, ErrorKind, Key, MAX_VALUE_LEN, MemoryBackend,
    MemoryDisk, Mutation, Namespace, PageEntry, Position, Result, async_trait,
};
use tempfile::TempDir;

/// What is wrong with a backend.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Defect {
    FoldsCase,
    MatchesPrefixes,
    ListsSubNamespaces,
    CutsLongNames,
    NamespaceReplacesKey,
    EmptyIsAbsent,
    KeepsTextOnly,
    CutsLargeValues,
    TooLargeIsIo,
    TearsBatches,
    NumbersBackwards,
    CommitsInBackground,
    ReturnsOldValues,
    TearsReads,
    MixesReads,
    ErrorsAreAbsence,
    RemoveNeedsEntry,
    RenewRemoves,
    IgnoresRenew,
    UpdateIsNew,
    ForgetsOrderOnOpen,
    TokenNeedsEntry,
    PagesByOffset,
    UnknownNamespaceFails,
    ListingFailsDuringCommits,
    PageOmitsValues,
    ListAllMisses,
    ListAllRepeats,
    LosesLastOnDrop,
    OpensTwice,
    StaysLocked,
    OpenFiles,
    WritesOutside,
    LosesEmptyNamespaces,
    FollowsItsPath,
    KeepsWhatIsSuperseded,
}

struct Broken {
    inner: MemoryBackend,
    defect: Defect,
    /// The group committed last, for defects that delay or repeat.
    last: Mutex<Vec<Mutation>>,
    calls: AtomicUsize,
    /// Where its files are by name.
    path: PathBuf,
}

impl Broken {
    fn has(&self, defect: Defect) -> bool {
        self.defect == defect
    }

    /// The entry that the backend confuses `id` with.
    fn confused(&self, id: &EntryId) -> EntryId {
        let (primary, secondary, key) = (id.primary(), id.secondary(), id.key());
        let cut = |name: &str| name[..name.len().min(119)].to_owned();
        let names = match self.defect {
            Defect::FoldsCase => [primary, secondary, key].map(str::to_lowercase),
            Defect::CutsLongNames => [primary, secondary, key].map(cut),
            Defect::LosesEmptyNamespaces if secondary.is_empty() => {
                ["default", "", key].map(str::to_owned)
            }
            _ => return id.clone(),
        };
        EntryId::new(&names[0], &names[1], &names[2]).unwrap()
    }

    fn changed(&self, mutation: &Mutation) -> Option<Mutation> {
        let id = self.confused(mutation.id());
        let Mutation::Put { value, renew, .. } = mutation else {
            return Some(Mutation::Remove { id });
        };
        let put = |value: Bytes, renew| Some(Mutation::Put { id: id.clone(), value, renew });
        match self.defect {
            Defect::EmptyIsAbsent if value.is_empty() => Some(Mutation::Remove { id }),
            Defect::KeepsTextOnly => {
                put(String::from_utf8_lossy(value).into_owned().into(), *renew)
            }
            Defect::CutsLargeValues => put(value.slice(..value.len().min(16 << 20)), *renew),
            Defect::RenewRemoves if *renew => Some(Mutation::Remove { id }),
            Defect::IgnoresRenew => put(value.clone(), false),
            Defect::UpdateIsNew => put(value.clone(), true),
            _ => put(value.clone(), *renew),
        }
    }

    fn error(message: &'static str) -> Error {
        Error::new(ErrorKind::Io, "break", message)
    }
}

#[async_trait]
impl Backend for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }

    fn blocks(&self) -> bool {
        false
    }

    async fn commit(&self, mutations: &[Mutation]) -> Result<()> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.has(Defect::FollowsItsPath) {
            fs::create_dir_all(&self.path).unwrap();
        }
        if self.has(Defect::KeepsWhatIsSuperseded) {
            for value in mutations.iter().filter_map(Mutation::value) {
                let number = self.calls.fetch_add(1, Ordering::SeqCst);
                fs::write(self.path.join(number.to_string()), value).unwrap();
            }
        }
        let mut changed: Vec<_> = mutations.iter().filter_map(|m| self.changed(m)).collect();
        match self.defect {
            Defect::NumbersBackwards => changed.reverse(),
            Defect::TearsBatches => {
                for mutation in &changed {
                    self.inner.commit(std::slice::from_ref(mutation)).await?;
                }
                return Ok(());
            }
            Defect::RemoveNeedsEntry => {
                for mutation in &changed {
                    if matches!(mutation, Mutation::Remove { .. })
                        && self.inner.get(mutation.id()).await?.is_none()
                    {
                        return Err(Self::error("nothing to remove"));
                    }
                }
            }
            Defect::NamespaceReplacesKey => {
                for mutation in &changed {
                    let (primary, secondary) = (mutation.id().primary(), mutation.id().secondary());
                    if let Ok(id) = EntryId::new(primary, "", secondary) {
                        self.inner.commit(&[Mutation::Remove { id }]).await?;
                    }
                }
            }
            Defect::CommitsInBackground | Defect::LosesLastOnDrop => {
                let mut last = self.last.lock().unwrap();
                std::mem::swap(&mut *last, &mut changed);
            }
            Defect::ReturnsOldValues => *self.last.lock().unwrap() = changed.clone(),
            _ => {}
        }
        self.inner.commit(&changed).await.map_err(|error| match error.kind() {
            ErrorKind::ValueTooLarge if self.has(Defect::TooLargeIsIo) => Self::error("too large"),
            _ => error,
        })
    }

    async fn get(&self, id: &EntryId) -> Result<Option<Vec<u8>>> {
        if self.has(Defect::LosesLastOnDrop) {
            let last = self.last.lock().unwrap().clone();
            if let Some(mutation) = last.iter().rev().find(|mutation| mutation.id() == id) {
                return Ok(mutation.value().map(|value| value.to_vec()));
            }
        }
        let found = match self.inner.get(&self.confused(id)).await {
            Err(_) if self.has(Defect::ErrorsAreAbsence) => return Ok(None),
            found => found?,
        };
        let odd = self.calls.fetch_add(1, Ordering::SeqCst) % 2 == 1;
        Ok(match (self.defect, found) {
            (Defect::ReturnsOldValues, Some(mut value)) if odd && value.len() == 4 => {
                value[3] = value[3].saturating_sub(5);
                Some(value)
            }
            (Defect::TearsReads, Some(mut value)) if odd && value.len() > 2 => {
                value.truncate(value.len() / 2);
                Some(value)
            }
            (Defect::MixesReads, Some(_)) if odd => {
                self.inner.get(&id.namespace().entry(&Key::new("1")?)).await?
            }
            (_, found) => found,
        })
    }

    async fn page(
        &self,
        namespace: &Namespace,
        after: Option<&Position>,
        limit: usize,
        values: bool,
    ) -> Result<Vec<PageEntry>> {
        let all = |names: Namespace| async move {
            self.inner.page(&names, None, usize::MAX, values).await
        };
        let confused = self.confused(&namespace.entry(&Key::new("k")?)).namespace();
        if matches!(self.defect, Defect::MatchesPrefixes | Defect::ListsSubNamespaces) {
            let subs = self.defect == Defect::ListsSubNamespaces;
            let mut found = Vec::new();
            let spaces: HashSet<_> =
                self.inner.list_all().await?.iter().map(|entry| entry.id.namespace()).collect();
            for space in spaces {
                let (primary, secondary) = (space.primary(), space.secondary());
                let shown = if subs {
                    primary == namespace.primary()
                        && (namespace.secondary().is_empty() || secondary == namespace.secondary())
                } else {
                    primary.starts_with(namespace.primary())
                        && secondary.starts_with(namespace.secondary())
                };
                if shown {
                    found.extend(all(space).await?);
                }
            }
            return Ok(found);
        }
        match self.defect {
            Defect::UnknownNamespaceFails if all(confused.clone()).await?.is_empty() => {
                return Err(Self::error("no such namespace"));
            }
            Defect::ListingFailsDuringCommits if self.calls.swap(0, Ordering::SeqCst) > 1 => {
                return Err(Self::error("the namespace changed"));
            }
            Defect::TokenNeedsEntry => {
                if let Some(after) = after {
                    let id = namespace.entry(&after.key);
                    if self.inner.get(&id).await?.is_none() {
                        return Ok(Vec::new());
                    }
                }
            }
            Defect::PagesByOffset => {
                let mut found = all(confused).await?;
                if let Some(after) = after {
                    // As if the position were a count of entries from the oldest one.
                    let passed = found.len().saturating_sub(after.created as usize - 1);
                    found.drain(..passed.min(found.len()));
                }
                found.truncate(limit);
                return Ok(found);
            }
            _ => {}
        }
        let mut found = self.inner.page(&confused, after, limit, values).await?;
        if self.has(Defect::PageOmitsValues) {
            found.iter_mut().for_each(|entry| entry.value = None);
        }
        Ok(found)
    }

    async fn list_all(&self) -> Result<Vec<EntryInfo>> {
        let mut all = self.inner.list_all().await?;
        match self.defect {
            Defect::ListAllMisses => drop(all.pop()),
            Defect::ListAllRepeats => all.extend(all.first().cloned()),
            _ => {}
        }
        Ok(all)
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

/// Where a broken backend lives.
struct Place {
    disk: MemoryDisk,
    directory: TempDir,
    store: PathBuf,
    opened: AtomicUsize,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("store");
        fs::create_dir(&store).unwrap();
        Self { disk: MemoryDisk::new(), directory, store, opened: AtomicUsize::new(0) }
    }

    fn open_in(&self, directory: &Path, defect: Defect) -> Result<Broken> {
        let opened = self.opened.fetch_add(1, Ordering::SeqCst);
        let inner = match defect {
            Defect::OpensTwice => MemoryBackend::new(),
            Defect::StaysLocked if opened > 0 => {
                return Err(Error::new(ErrorKind::AlreadyOpen, "open", "a process once had it"));
            }
            _ => MemoryBackend::open(&self.disk)?,
        };
        if defect == Defect::ForgetsOrderOnOpen {
            renumber(&inner);
        }
        write_file(directory, defect == Defect::OpenFiles);
        if defect == Defect::WritesOutside {
            fs::write(self.directory.path().join("-rf"), "").unwrap();
        }
        let (last, calls) = (Mutex::default(), AtomicUsize::new(0));
        let path = directory.to_owned();
        Ok(Broken { inner, defect, last, calls, path })
    }
}

/// Creates all entries anew in the order of their names.
fn renumber(backend: &MemoryBackend) {
    use futures_lite::future::block_on;
    let mut all = block_on(backend.list_all()).unwrap();
    all.sort_by(|a, b| a.id.cmp(&b.id));
    for EntryInfo { id, .. } in all {
        let value = block_on(backend.get(&id)).unwrap().unwrap().into();
        block_on(backend.commit(&[Mutation::Put { id, value, renew: true }])).unwrap();
    }
}

fn write_file(directory: &Path, open: bool) {
    let file = directory.join("data");
    fs::write(&file, "").unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = if open { 0o644 } else { 0o600 };
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// For each defect: a fixture, and a test that the laws named beside it fail.
macro_rules! defects {
    ($($defect:ident breaks $($theme:ident::$law:ident),+;)*) => {
        $(
            #[allow(non_snake_case, reason = "named after the defect")]
            mod $defect {
                use super::*;

                pub(super) struct Defective(Place);

                impl Fixture for Defective {
                    type Backend = Broken;

                    fn new() -> Self {
                        Self(Place::new())
                    }

                    fn open(&self) -> Result<Broken> {
                        self.0.open_in(&self.0.store, Defect::$defect)
                    }

                    fn open_at(&self, path: &Path) -> Option<Result<Broken>> {
                        Some(self.0.open_in(path, Defect::$defect))
                    }

                    fn too_large(&self) -> usize {
                        MAX_VALUE_LEN + 1
                    }

                    fn directory(&self) -> Option<&Path> {
                        Some(&self.0.store)
                    }
                }

                #[test]
                fn is_caught() {
                    $(
                        let law = conformance::laws::$theme::$law::<Defective>;
                        let caught = std::thread::spawn(move || catch_unwind(law).is_err());
                        assert!(caught.join().unwrap(), concat!(stringify!($law), " is blind"));
                    )+
                }
            }
        )*

        const CAUGHT: &[&str] = &[$($(stringify!($law)),+),*];
    };
}

defects! {
    FoldsCase breaks names::n7_case_matters, names::n1_names_use_the_alphabet_of_ldk;
    LosesEmptyNamespaces breaks names::n2_both_namespace_names_may_be_empty;
    MatchesPrefixes breaks names::n8_no_name_is_a_prefix_match, listing::l1_a_list_shows_its_namespace_only;
    ListsSubNamespaces breaks listing::l1_a_list_shows_its_namespace_only;
    CutsLongNames breaks names::n5_names_of_120_characters_round_trip;
    NamespaceReplacesKey breaks names::n6_a_key_and_a_namespace_may_share_their_text;
    EmptyIsAbsent breaks values::v1_an_empty_value_is_a_value;
    KeepsTextOnly breaks values::v2_every_byte_survives;
    CutsLargeValues breaks values::v3_values_of_64_mib_round_trip;
    TooLargeIsIo breaks values::v4_a_value_too_large_harms_only_its_batch;
    TearsBatches breaks batches::b1_a_batch_that_fails_leaves_nothing, values::v4_a_value_too_large_harms_only_its_batch;
    NumbersBackwards breaks order::o1_the_call_fixes_the_order, listing::l5_creation_order_survives_reopening;
    CommitsInBackground breaks reading::r1_an_acknowledged_value_is_seen, batches::b4_batches_keep_their_place;
    ReturnsOldValues breaks order::o2_an_earlier_value_never_comes_back;
    TearsReads breaks reading::r4_reads_are_never_torn;
    MixesReads breaks reading::r4_reads_at_once_get_their_own_answers;
    ErrorsAreAbsence breaks reading::r2_absence_is_none_and_errors_are_errors;
    RemoveNeedsEntry breaks removing::d1_removing_what_is_absent_is_ok;
    RenewRemoves breaks removing::d2_put_after_remove_wins, batches::b2_the_last_mutation_of_an_entry_wins;
    IgnoresRenew breaks listing::l4_pages_go_from_newest_to_oldest, random::random_operations_agree_with_the_model;
    UpdateIsNew breaks listing::l4_pages_go_from_newest_to_oldest;
    ForgetsOrderOnOpen breaks listing::l5_creation_order_survives_reopening;
    TokenNeedsEntry breaks listing::l7_a_token_outlives_its_entry;
    PagesByOffset breaks listing::l6_walking_pages_shows_what_stays_exactly_once;
    UnknownNamespaceFails breaks listing::l2_an_unknown_namespace_is_empty;
    ListingFailsDuringCommits breaks listing::l3_listing_during_changes_shows_what_stays;
    PageOmitsValues breaks listing::l9_a_page_with_values_is_one_operation;
    ListAllMisses breaks listing::l11_every_entry_is_listed_once;
    ListAllRepeats breaks listing::l11_every_entry_is_listed_once;
    LosesLastOnDrop breaks durability::p1_everything_acknowledged_is_there_after_reopening;
    OpensTwice breaks owner::w1_a_second_open_is_refused;
    StaysLocked breaks owner::w3_a_dropped_owner_is_forgotten;
    OpenFiles breaks safety::s1_files_are_for_their_owner_only;
    WritesOutside breaks safety::s3_names_stay_in_the_directory;
    FollowsItsPath breaks life::g5_a_moved_store_is_whole;
    KeepsWhatIsSuperseded breaks life::g2_superseded_values_give_their_space_back;
}

/// Laws that the store keeps for every backend, so that no backend can break them. Their tests were
/// seen to fail with a line of the store broken; CONTRIBUTING.md tells how.
const KEPT_BY_THE_STORE: &[&str] = &[
    "n3_n4_n9_bad_names_are_refused_and_change_nothing",
    "o3_dropped_tickets_are_committed",
    "o4_a_superseded_put_waits_for_what_supersedes_it",
    "o5_what_survives_is_a_prefix",
    "o7_any_thread_and_any_runtime",
    "r3_reads_do_not_wait_for_a_commit",
    "d3_a_lazy_remove_hides_at_once",
    "d4_a_lazy_remove_reaches_the_disk_by_itself",
    "d4_a_lazy_remove_rides_along_and_is_settled_on_close",
    "d4_a_lazy_remove_that_fails_is_tried_again",
    "l8_a_foreign_or_malformed_token_is_refused",
    "b3_an_empty_batch_is_ok",
    "p3_a_failed_batch_is_never_visible",
    "p3_p4_a_commit_in_doubt_stops_the_store",
    "p5_a_full_disk_is_an_error_and_passes",
    "queue_is_bounded",
    "close_commits_everything_and_is_final",
    "w2_a_fenced_owner_commits_nothing",
    "g3_a_page_holds_up_nothing",
    "s2_nothing_shows_a_value",
];

macro_rules! names_of_laws {
    ($($theme:ident { $($law:ident)* })*) => {
        const LAWS: &[&str] = &[$($(stringify!($law)),*),*];
    };
}

conformance::for_each_law!(names_of_laws,);

/// These laws see the defect and not what they do themselves: this one has nothing to do with files.
#[test]
fn a_defect_elsewhere_breaks_no_law_about_files() {
    conformance::laws::life::g2_superseded_values_give_their_space_back::<ListAllMisses::Defective>(
    );
    conformance::laws::life::g5_a_moved_store_is_whole::<ListAllMisses::Defective>();
}

/// A law without a defect that it catches would be a law that may see nothing.
#[test]
fn every_law_has_teeth() {
    let blind: Vec<_> = LAWS
        .iter()
        .filter(|law| !CAUGHT.contains(law) && !KEPT_BY_THE_STORE.contains(law))
        .collect();
    assert!(blind.is_empty(), "no defect breaks {blind:?}");
    assert!(KEPT_BY_THE_STORE.iter().all(|law| LAWS.contains(law)));
}
