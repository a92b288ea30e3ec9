//! One commit: what changes in the tree, and the way to the disk.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use kvstore_core::local::{Directory, OwnerLock};
use kvstore_core::{EntryId, ErrorKind, MAX_VALUE_LEN, Mutation, Result};
use sled::IVec;

use crate::encoding::{
    CREATED_BELOW, Content, INTENT, Stored, large_key, order_key, parse_number, parse_order,
    parse_order_key, value_key,
};
use crate::engine::{Change, MAX_INLINE, apply_in_order, apply_together, guarded, read};
use crate::error::{self, error, named};
use crate::flush::LogFiles;
use crate::large::{self, Superseded};
use crate::view::View;
use crate::{batch, cost};

/// How many creation numbers are set aside at a time.
const NUMBERS: u64 = 1 << 20;

/// What the one who commits knows.
pub(crate) struct Writer {
    files: LogFiles,
    values: Directory,
    superseded: Superseded,
    /// The next number for a new entry or a large value.
    next: u64,
    /// Where the numbers that were set aside end. A new owner begins there, above every number that
    /// was ever given out, since a page token may still name one (contract L7).
    below: u64,
    /// Dropped last, so that the next owner finds the files at rest.
    _lock: OwnerLock,
}

/// What a commit changes.
#[derive(Default)]
struct Plan {
    changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// What the keys that readers look at held before.
    before: BTreeMap<Vec<u8>, Option<IVec>>,
    /// Numbers of large values that were written for it, and that nobody needs after it.
    written: Vec<u64>,
    unneeded: Vec<u64>,
    /// A key of the creation order and the one of its value, which may be all that changes.
    pair: Option<(Vec<u8>, Vec<u8>)>,
    /// The checksum of the file that holds the changes, if they are too many for one step.
    in_steps: Option<u32>,
}

impl Writer {
    /// Takes up where the last owner stopped.
    pub(crate) fn open(
        view: &View,
        files: LogFiles,
        values: Directory,
        lock: OwnerLock,
    ) -> Result<Self> {
        let below = view.get(CREATED_BELOW)?;
        let below = below.map_or(Ok(1), |found| parse_number(&found))?;
        let superseded = Superseded::default();
        Ok(Self { files, values, superseded, next: below, below, _lock: lock })
    }

    pub(crate) fn commit(
        &mut self,
        view: &RwLock<Option<View>>,
        mutations: &[Mutation],
    ) -> Result<()> {
        let mut plan = Plan::default();
        let prepared = self.prepare(view, mutations, &mut plan);
        if prepared.is_err() || plan.changes.is_empty() {
            self.superseded.remove(&self.values, plan.written);
            return prepared;
        }
        let unneeded = std::mem::take(&mut plan.unneeded);
        guarded("commit", || self.apply(view, plan))?;
        if let Some(view) = view.write().unwrap_or_else(PoisonError::into_inner).as_mut() {
            view.before.clear();
        }
        self.superseded.remove(&self.values, unneeded);
        Ok(())
    }

    /// Everything that can fail without a trace.
    fn prepare(
        &mut self,
        view: &RwLock<Option<View>>,
        mutations: &[Mutation],
        plan: &mut Plan,
    ) -> Result<()> {
        let cost = guarded("prepare", || {
            let view = view.read().unwrap_or_else(PoisonError::into_inner);
            let view = view.as_ref().ok_or_else(|| closed("commit"))?;
            mutations.iter().try_for_each(|mutation| {
                self.plan(view, mutation, plan).map_err(|error| error.with_entry(mutation.id()))
            })?;
            cost::of_commit(view.engine.tree(), plan.changes.iter())
        })?;
        if !plan.written.is_empty() {
            self.values.sync().map_err(named)?;
        }
        let in_steps = cost > cost::MAX_AT_ONCE;
        let needed = if in_steps { batch::room_in_steps(cost) } else { batch::room(cost) };
        self.files.check_room("commit", needed).or_else(|_| {
            self.superseded.retry(&self.values);
            self.files.check_room("commit", needed)
        })?;
        if in_steps {
            plan.in_steps = Some(batch::write(&self.values, plan.changes.iter())?);
        }
        if let Some(view) = view.write().unwrap_or_else(PoisonError::into_inner).as_mut() {
            view.before = std::mem::take(&mut plan.before);
        }
        Ok(())
    }

    fn plan(&mut self, view: &View, mutation: &Mutation, plan: &mut Plan) -> Result<()> {
        let id = mutation.id();
        let key = value_key(id);
        let before = read(view.engine.tree(), &key)?;
        let old = before.as_deref().map(Stored::parse).transpose()?;
        if let Some(large) = old.and_then(|old| old.large()) {
            plan.changes.insert(large_key(large.number), None);
            plan.unneeded.push(large.number);
        }
        let (kept, gone) = match (mutation, old) {
            (Mutation::Remove { .. }, None) => return Ok(()),
            (Mutation::Put { renew: false, .. }, Some(old)) => (Some(old.created), None),
            (_, old) => (None, old.map(|old| old.created)),
        };
        if let Some(created) = gone {
            let order = order_key(id, created);
            plan.pair = Some((order.clone(), key.clone()));
            plan.change(order, Some(id.key().into()), None);
        }
        let stored = match mutation {
            Mutation::Remove { .. } => None,
            Mutation::Put { value, .. } => {
                let created = kept.unwrap_or_else(|| self.number(id, &key, plan));
                Some(Stored { created, content: self.content(value, plan)? }.encode())
            }
        };
        plan.change(key, before, stored);
        Ok(())
    }

    /// Gives an entry a creation number of its own.
    fn number(&mut self, id: &EntryId, key: &[u8], plan: &mut Plan) -> u64 {
        let created = self.take(plan);
        let order = order_key(id, created);
        plan.pair = Some((order.clone(), key.to_vec()));
        plan.change(order, None, Some(id.key().into()));
        created
    }

    fn take(&mut self, plan: &mut Plan) -> u64 {
        let taken = self.next;
        self.next += 1;
        // Also after a commit that failed: the next one sets them aside then.
        if self.next > self.below {
            let below = taken + NUMBERS;
            plan.changes.insert(CREATED_BELOW.to_vec(), Some(below.to_be_bytes().to_vec()));
        }
        taken
    }

    fn content<'a>(&mut self, value: &'a [u8], plan: &mut Plan) -> Result<Content<'a>> {
        if value.len() > MAX_VALUE_LEN {
            let message = format!("{} bytes are more than {MAX_VALUE_LEN}", value.len());
            return Err(error(ErrorKind::ValueTooLarge, "commit", message));
        }
        if value.len() <= MAX_INLINE {
            return Ok(Content::Inline(value));
        }
        let number = self.take(plan);
        plan.written.push(number);
        let len = value.len() as u64;
        plan.changes.insert(large_key(number), Some(len.to_be_bytes().to_vec()));
        large::write(&self.values, number, value).map(Content::Large)
    }

    /// From here on the commit may be on the disk, whatever goes wrong.
    fn apply(
        &mut self,
        view: &RwLock<Option<View>>,
        Plan { changes, pair, in_steps, .. }: Plan,
    ) -> Result<()> {
        let view = view.read().unwrap_or_else(PoisonError::into_inner);
        let Some(view) = view.as_ref() else { return Err(closed("commit")) };
        let below = changes.get(CREATED_BELOW).cloned().flatten();
        let (engine, tree) = (&view.engine, view.engine.tree());
        let make_in_steps = |files: &mut LogFiles, changes: BTreeMap<_, _>, crc| {
            batch::commit(engine, files, &self.values, changes.into_iter().collect(), crc)
        };
        match (changes.len(), pair, in_steps) {
            (_, _, Some(crc)) => make_in_steps(&mut self.files, changes, crc)?,
            (1, ..) => apply_in_order(tree, changes.into_iter().collect())?,
            (2, Some(pair), _) => apply_in_order(tree, in_order(changes, pair))?,
            _ => apply_together(tree, changes.into_iter().collect())?,
        }
        engine.flush().map_err(error::commit)?;
        self.files.sync()?;
        if let Some(below) = below {
            self.below = parse_number(&below)?;
        }
        Ok(())
    }
}

impl Plan {
    fn change(&mut self, key: Vec<u8>, before: Option<IVec>, after: Option<Vec<u8>>) {
        self.before.insert(key.clone(), before);
        self.changes.insert(key, after);
    }
}

/// An entry comes or goes with its creation number, without a batch: the manifest of one costs a
/// write of its own.
///
/// First the intent names the creation number, and the value comes after it or goes before it. So a
/// crash can leave a creation number without its value, and [`finish_intent`] knows which.
fn in_order(
    mut changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    (order, value): (Vec<u8>, Vec<u8>),
) -> Vec<Change> {
    let intent = (INTENT.to_vec(), Some(order.clone()));
    let order_change = changes.remove(&order).flatten();
    let value_change = changes.remove(&value).flatten();
    match order_change {
        Some(_) => vec![intent, (order, order_change), (value, value_change)],
        None => vec![intent, (value, None), (order, None)],
    }
}

/// Removes the creation number that a crash left without its entry.
pub(crate) fn finish_intent(view: &View) -> Result<()> {
    let tree = view.engine.tree();
    let Some(order) = read(tree, INTENT)? else { return Ok(()) };
    let Some(key) = read(tree, &order)? else { return Ok(()) };
    let id = parse_order(&order, &key)?;
    let value = read(tree, &value_key(&id))?;
    let created = value.map(|value| Stored::parse(&value).map(|stored| stored.created));
    if created.transpose()? != Some(parse_order_key(&order)?) {
        apply_in_order(tree, vec![(order.to_vec(), None)])?;
        view.engine.flush().map_err(error::commit)?;
    }
    Ok(())
}

pub(crate) fn closed(operation: &'static str) -> kvstore_core::Error {
    error(ErrorKind::Closed, operation, "the store was closed")
}
