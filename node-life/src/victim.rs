//! Unclean restarts: a process that writes to the store until it is killed.
//!
//! Each of its batches names its own number and changes several entries. So the number that is
//! found after the kill says which state all of them must have, and it cannot be lower than that of
//! the last batch that was acknowledged.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use lightning_kvstore::{DynStore, EntryId};

use crate::arguments::Arguments;
use crate::failure::{Context, Failure, Result, ensure};
use crate::location::Location;
use crate::model::{Change, Model, batch};
use crate::names;
use crate::random::Random;
use crate::report::line;
use crate::values::value;

/// Notes that are there at a time.
const NOTES: u64 = 32;

/// Every so many batches one rewrites a large value.
const LARGE_EVERY: u64 = 8;

/// Batches that wait for the disk at a time.
const IN_FLIGHT: usize = 16;

fn number_id() -> Result<EntryId> {
    names::id("victim", "", "number")
}

fn note_id(number: u64) -> Result<EntryId> {
    names::id("victim", "notes", &number.to_string())
}

/// The batch of this number: a new note, the oldest one removed, now and then a large value.
fn changes(number: u64) -> Result<Vec<Change>> {
    let len = 300 + 37 * (number as usize % 16);
    let mut changes = vec![
        Change::Put(number_id()?, number.to_string().into_bytes()),
        Change::Put(note_id(number)?, value(number, len)),
    ];
    if number > NOTES {
        changes.push(Change::Remove(note_id(number - NOTES)?));
    }
    if number.is_multiple_of(LARGE_EVERY) {
        changes.push(Change::Put(names::id("victim", "", "large")?, value(number, 1 << 20)));
    }
    Ok(changes)
}

/// The number of the last batch that the store holds.
fn last_number(store: &DynStore) -> Result<u64> {
    let value = store.get_blocking(&number_id()?).context("read the number")?;
    let Some(value) = value else { return Ok(0) };
    String::from_utf8_lossy(&value).parse().context("read the number")
}

/// Writes in this process until it is killed, and says which batches are durable.
pub(crate) fn live(arguments: &Arguments) -> Result<()> {
    let url = arguments.store.as_deref().unwrap_or_default();
    let (store, _) = Location::named(url)?.open()?;
    let mut tickets = VecDeque::new();
    for number in last_number(&store)? + 1.. {
        tickets.push_back((number, store.submit(batch(changes(number)?))));
        if tickets.len() < IN_FLIGHT {
            continue;
        }
        if let Some((number, ticket)) = tickets.pop_front() {
            ticket.wait().context("commit a batch")?;
            line(&number.to_string())?;
        }
    }
    Ok(())
}

/// Runs that process on the closed store, kills it, and gives the number of the last batch that it
/// acknowledged.
pub(crate) fn kill(location: &Location, random: &mut Random) -> Result<u64> {
    let program = std::env::current_exe().context("find this program")?;
    let mut command = Command::new(program);
    command.args(["--victim", "--seed", "0", "--store", location.text()]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().context("start the process that is killed")?;
    let heard = listen(&mut child, random.between(20, 120));
    // Also when listening failed: nothing may be left running.
    let killed = child.kill().context("kill the process");
    child.wait().context("wait for the process that is killed")?;
    let (last, rest) = heard?;
    killed?;
    // What it said before it died, but nobody had read yet, counts too.
    rest.last().unwrap_or(Ok(last))
}

/// Reads so many acknowledgements.
fn listen(
    child: &mut Child,
    count: u64,
) -> Result<(u64, impl Iterator<Item = Result<u64>> + use<>)> {
    let no_pipe = || Failure::new("the process that is killed has no standard output");
    let mut output = BufReader::new(child.stdout.take().ok_or_else(no_pipe)?);
    let mut numbers = std::iter::from_fn(move || {
        let mut line = String::new();
        match output.read_line(&mut line).context("listen to the process that is killed") {
            // The kill may cut off the last line.
            Ok(_) => line.strip_suffix('\n').map(|text| text.parse().context("read a number")),
            Err(failure) => Some(Err(failure)),
        }
    });
    let ended = || Failure::new("the process ended before it was killed");
    let mut last = 0;
    for _ in 0..count {
        last = numbers.next().ok_or_else(ended)??;
    }
    Ok((last, numbers))
}

/// Adds to the model what the killed process left in the store, which must be all that it
/// acknowledged; [`verify`](crate::verify) then holds the two against each other.
pub(crate) fn adopt(
    store: &DynStore,
    model: &mut Model,
    adopted: &mut u64,
    acknowledged: u64,
) -> Result<()> {
    let last = last_number(store)?;
    ensure(last >= acknowledged, || {
        format!(
            "batch {acknowledged} was acknowledged before the kill, and the store ends at {last}"
        )
    })?;
    for number in *adopted + 1..=last {
        model.apply(&changes(number)?);
    }
    *adopted = last;
    Ok(())
}

#[cfg(test)]
mod tests {
    use lightning_kvstore::{Backend, MemoryBackend, Store};

    use super::*;
    use crate::verify;

    fn store(batches: u64) -> DynStore {
        let backend: Box<dyn Backend> = Box::new(MemoryBackend::new());
        let store = Store::open(backend).unwrap();
        for number in 1..=batches {
            store.commit_blocking(batch(changes(number).unwrap())).unwrap();
        }
        store
    }

    #[test]
    fn a_prefix_that_holds_what_was_acknowledged_is_adopted() {
        let (store, mut model, mut adopted) = (store(50), Model::default(), 0);
        adopt(&store, &mut model, &mut adopted, 47).unwrap();
        assert_eq!(adopted, 50);
        verify::everything(&store, &model).unwrap();
        // Half a batch.
        store.remove_blocking(&note_id(50).unwrap()).unwrap();
        assert!(verify::everything(&store, &model).is_err());
    }

    #[test]
    fn a_lost_acknowledged_batch_fails() {
        let failed = adopt(&store(46), &mut Model::default(), &mut 0, 47).unwrap_err();
        assert!(failed.to_string().contains("the store ends at 46"), "{failed}");
    }
}
