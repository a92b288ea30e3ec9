//! SIGKILL while a process writes, opens, recovers and makes a store: it always opens again, with
//! everything that was acknowledged, in the order of the submissions and of the creations.
//!
//! `SLED_KILLS=200` asks for so many kills of each kind; `SLED_SEED` for a seed of an earlier run.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use kvstore_core::{Batch, EntryId, Namespace, Store};
use kvstore_sled::{SledBackend, SledOptions};

/// How many submissions the child has on their way at most.
const BURST: u64 = 4;

fn store(path: &Path) -> Store<SledBackend> {
    Store::open(SledBackend::open(&SledOptions::new(path)).expect("it opens again")).unwrap()
}

/// SplitMix64: the same numbers for the same seed, everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// The submission with this number: keys and new values, `None` for a remove.
fn submission(number: u64) -> Vec<(u64, Option<Vec<u8>>)> {
    let mut random = Random(number);
    let entries = if random.below(4) == 0 { 3 } else { 1 };
    let first = random.below(40);
    let mut entry = |key| {
        let longest = [600, 600, 600, 600, 600, 600, 600, 20_000, 20_000, 80_000];
        let longest = longest[random.below(10) as usize];
        let len = random.below(longest);
        let value = number.to_le_bytes().into_iter().cycle().take(len as usize).collect();
        (key, (random.below(5) > 0).then_some(value))
    };
    (0..entries).map(|at| entry((first + 13 * at) % 40)).collect()
}

/// What a store holds, in creation order.
type Entries = Vec<(u64, Vec<u8>)>;

fn apply(entries: &mut Entries, number: u64) {
    for (key, value) in submission(number) {
        let found = entries.iter().position(|(other, _)| *other == key);
        match (found, value) {
            (Some(at), Some(value)) => entries[at].1 = value,
            (None, Some(value)) => entries.push((key, value)),
            (Some(at), None) => drop(entries.remove(at)),
            (None, None) => {}
        }
    }
}

fn id(key: u64) -> EntryId {
    EntryId::new("p", "s", &key.to_string()).unwrap()
}

/// The process that is killed; without its variables there is nothing to do.
#[test]
fn child() {
    let Ok(path) = env::var("SLED_KILL_CHILD") else { return };
    say("opening");
    let store = store(Path::new(&path));
    say("open");
    let Ok(mut number) = env::var("SLED_KILL_FIRST").unwrap().parse() else {
        // It came to open the store and nothing else.
        loop {
            std::thread::park();
        }
    };
    let mut random = Random(number);
    loop {
        let tickets = (0..=random.below(BURST)).map(|_| {
            let batch =
                submission(number).into_iter().fold(
                    Batch::new(),
                    |batch, (key, value)| match value {
                        Some(value) => batch.put(&id(key), value),
                        None => batch.remove(&id(key)),
                    },
                );
            number += 1;
            (number - 1, store.submit(batch))
        });
        for (number, ticket) in tickets.collect::<Vec<_>>() {
            ticket.wait().unwrap();
            say(number);
        }
    }
}

/// One line in one write, past the harness and its buffers.
fn say(what: impl std::fmt::Display) {
    let line = format!("\nkill: {what}\n");
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
    std::io::stdout().lock().flush().unwrap();
}

struct Victim {
    child: Child,
    lines: BufReader<ChildStdout>,
    heard: Vec<String>,
}

impl Victim {
    fn start(path: &Path, first: Option<u64>) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env("SLED_KILL_CHILD", path)
            .env("SLED_KILL_FIRST", first.map_or("none".into(), |first| first.to_string()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines, heard: Vec::new() }
    }

    fn hear(&mut self) -> bool {
        let mut line = String::new();
        while self.lines.read_line(&mut line).unwrap() > 0 {
            if let Some(said) = line.trim().strip_prefix("kill: ") {
                self.heard.push(said.to_owned());
                return true;
            }
            line.clear();
        }
        false
    }

    /// Kills it some time after it has said so many lines, and gives all that it came to say.
    fn kill(mut self, lines: u64, random: &mut Random, longest: Duration) -> Vec<String> {
        (0..lines).for_each(|_| assert!(self.hear(), "the child ended after {:?}", self.heard));
        let until = Duration::from_nanos(random.below(longest.as_nanos() as u64 + 1));
        let start = Instant::now();
        while start.elapsed() < until {
            std::thread::yield_now();
        }
        self.child.kill().unwrap();
        while self.hear() {}
        self.child.wait().unwrap();
        self.heard
    }
}

/// The last submission that was acknowledged.
fn last(heard: &[String]) -> Option<u64> {
    heard.last().and_then(|said| said.parse().ok())
}

/// A store and what was acknowledged of it.
struct Story<'a> {
    path: &'a Path,
    entries: Entries,
    /// The number of the first submission that `entries` does not hold.
    next: u64,
}

impl Story<'_> {
    fn new(path: &Path) -> Story<'_> {
        Story { path, entries: Vec::new(), next: 0 }
    }

    fn acknowledge(&mut self, heard: &[String]) {
        let Some(last) = last(heard) else { return };
        (self.next..=last).for_each(|number| apply(&mut self.entries, number));
        self.next = last + 1;
    }

    /// Opens the store: it holds what was acknowledged, and at most some of what was on its way.
    fn check(&mut self) {
        let store = store(self.path);
        let page = store.page_with_values_blocking(&Namespace::new("p", "s").unwrap(), None, 1000);
        let mut found: Entries = Vec::new();
        for entry in page.unwrap().entries {
            let value = entry.value.unwrap();
            let key = entry.position.key.as_str().parse().unwrap();
            assert_eq!(store.get_blocking(&id(key)).unwrap().as_ref(), Some(&value));
            found.insert(0, (key, value));
        }
        assert_eq!(store.list_all_blocking().unwrap().len(), found.len());
        for _ in 0..BURST {
            if found == self.entries {
                break;
            }
            apply(&mut self.entries, self.next);
            self.next += 1;
        }
        assert!(found == self.entries, "nothing that was submitted up to {} fits", self.next);
        let probe = EntryId::new("", "", "probe").unwrap();
        store.put_blocking(&probe, vec![1]).unwrap();
        store.remove_blocking(&probe).unwrap();
        store.close_blocking().unwrap();
        let blobs = std::fs::read_dir(self.path.join("engine/blobs")).unwrap().count();
        assert_eq!(blobs, 0, "sled made files that it does not flush");
    }
}

/// A fixed seed and a fresh one, each with half of the kills.
fn each_seed(test: impl Fn(&mut Random, u64)) {
    let kills: u64 = env::var("SLED_KILLS").map_or(10, |kills| kills.parse().unwrap());
    let fresh = u64::from(std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos());
    let fresh = env::var("SLED_SEED").map_or(fresh, |seed| seed.parse().unwrap());
    for seed in [1, fresh] {
        println!("seed {seed}, {} kills", kills.div_ceil(2));
        test(&mut Random(seed), kills.div_ceil(2));
    }
}

#[test]
fn killed_while_it_writes() {
    each_seed(|random, kills| {
        let place = tempfile::tempdir().unwrap();
        let mut story = Story::new(place.path());
        for _ in 0..kills {
            let lines = 2 + random.below(40);
            let victim = Victim::start(story.path, Some(story.next));
            story.acknowledge(&victim.kill(lines, random, Duration::from_millis(3)));
            story.check();
        }
    });
}

#[test]
fn killed_while_it_opens() {
    each_seed(|random, kills| {
        let place = tempfile::tempdir().unwrap();
        let mut story = Story::new(place.path());
        let victim = Victim::start(story.path, Some(0));
        story.acknowledge(&victim.kill(500, random, Duration::ZERO));
        let start = Instant::now();
        story.check();
        let longest = start.elapsed();
        for _ in 0..kills {
            Victim::start(story.path, None).kill(1, random, longest);
            story.check();
        }
    });
}

#[test]
fn killed_while_it_recovers() {
    each_seed(|random, kills| {
        let place = tempfile::tempdir().unwrap();
        let mut story = Story::new(place.path());
        for _ in 0..kills {
            let lines = 2 + random.below(20);
            let victim = Victim::start(story.path, Some(story.next));
            story.acknowledge(&victim.kill(lines, random, Duration::from_millis(1)));
            for _ in 0..=random.below(3) {
                Victim::start(story.path, None).kill(1, random, Duration::from_millis(30));
            }
            story.check();
        }
    });
}

#[test]
fn killed_while_it_makes_the_store() {
    each_seed(|random, kills| {
        for _ in 0..kills {
            let place = tempfile::tempdir().unwrap();
            let path = place.path().join("deep/store");
            let mut story = Story::new(&path);
            let victim = Victim::start(&path, Some(0));
            story.acknowledge(&victim.kill(1, random, Duration::from_millis(60)));
            story.check();
        }
    });
}
