//! Who may write: the lease, what the second owner is told, and what the first one may not do any
//! more.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Barrier;
use std::time::{Duration, Instant};
use std::{env, thread};

use kvstore_core::{ErrorKind, Store};
use kvstore_postgres::{PostgresBackend, PostgresOptions, Wait};
use support::load::{Load, Outcome, id};
use support::session::Session;
use support::{Place, open};

mod support;

fn refusal(options: &PostgresOptions) -> kvstore_core::Error {
    PostgresBackend::open(options).expect_err("somebody else has it")
}

#[test]
fn a_second_owner_is_told_who_and_until_when() {
    let Some(place) = Place::plain() else { return };
    let store = open(&place.options().owner("alice").lease(Duration::from_secs(30)));
    let error = refusal(&place.options());
    assert_eq!(error.kind(), ErrorKind::AlreadyOpen);
    let until = place.query(
        "SELECT to_char(expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') FROM ldk_data_lease",
    );
    let process = format!("process {}", std::process::id());
    for part in [process.as_str(), "owner \"alice\"", &until, " ms more"] {
        assert!(error.message().contains(part), "{part}: {error}");
    }
    // A lease that is given back is free at once, long before its end.
    let before = Instant::now();
    store.close_blocking().unwrap();
    drop(open(&place.options()));
    assert!(before.elapsed() < Duration::from_secs(25));
}

/// Waiting in `open` is how the passive one of a pair becomes the active one.
#[test]
fn whoever_waits_is_next() {
    let Some(place) = Place::plain() else { return };
    let first = open(&place.options());
    let patience = Duration::from_millis(400);
    let before = Instant::now();
    let error = refusal(&place.options().wait(Wait::AtMost(patience)));
    assert_eq!(error.kind(), ErrorKind::AlreadyOpen);
    assert!(before.elapsed() >= patience);
    let waiting = place.options().wait(Wait::Forever);
    thread::scope(|scope| {
        let next = scope.spawn(|| open(&waiting));
        first.put_blocking(&id("k"), "first").unwrap();
        first.close_blocking().unwrap();
        let next = next.join().unwrap();
        assert_eq!(next.get_blocking(&id("k")).unwrap().unwrap(), b"first");
    });
}

/// A lease that nobody renews any more is free when it has run out, and not before.
#[test]
fn a_crashed_owner_is_forgotten_within_the_lease() {
    let Some(place) = Place::plain() else { return };
    let mut crashed = Stopped::start(&place.url("&lease_ms=1500"));
    crashed.kill();
    assert_eq!(refusal(&place.options()).kind(), ErrorKind::AlreadyOpen);
    drop(open(&place.options().wait(Wait::AtMost(support::load::PATIENCE))));
}

/// With a name of its own an owner takes its lease back at once.
#[test]
fn a_named_owner_comes_back_at_once() {
    let Some(place) = Place::plain() else { return };
    let mut crashed = Stopped::start(&place.url("&lease_ms=3600000&owner=alice"));
    crashed.kill();
    assert_eq!(refusal(&place.options().owner("bob")).kind(), ErrorKind::AlreadyOpen);
    drop(open(&place.options().owner("alice")));
}

#[test]
fn of_many_racers_one_wins() {
    let Some(place) = Place::plain() else { return };
    for round in 0..10 {
        let barrier = Barrier::new(4);
        let race = || {
            barrier.wait();
            PostgresBackend::open(&place.options())
        };
        let won: Vec<_> = thread::scope(|scope| {
            let racers: Vec<_> = (0..4).map(|_| scope.spawn(race)).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        let (won, lost): (Vec<_>, Vec<_>) = won.into_iter().partition(Result::is_ok);
        assert_eq!(won.len(), 1, "round {round}: {lost:?}");
        for refusal in lost {
            assert_eq!(refusal.unwrap_err().kind(), ErrorKind::AlreadyOpen);
        }
    }
}

/// W2: not even what was already queued.
#[test]
fn a_lease_lost_while_hundreds_of_writes_wait() {
    let Some(place) = Place::plain() else { return };
    let store = open(&place.options().owner("alice"));
    store.put_blocking(&id("first"), "v").unwrap();
    let held = place.hold("in-flight");
    let in_flight = store.put(&id("in-flight"), "v");
    place.wait_for_held(1);
    let queued: Vec<_> = (0..500).map(|at| store.put(&id(at), "v")).collect();
    thread::scope(|scope| {
        let next = scope.spawn(|| open(&place.options().owner("alice")));
        // It waits for the commit that is under way.
        place.wait_for_held(2);
        drop(held);
        let next = next.join().unwrap();
        in_flight.wait().unwrap();
        let kinds: Vec<_> = queued.into_iter().map(|t| t.wait().unwrap_err().kind()).collect();
        assert!(kinds.contains(&ErrorKind::Fenced), "{kinds:?}");
        let fenced = |kind| matches!(kind, ErrorKind::Fenced | ErrorKind::Poisoned);
        assert!(kinds.into_iter().all(fenced));
        let there = next.list_blocking(&id("k").namespace()).unwrap();
        let there: Vec<_> = there.iter().map(|key| key.as_str()).collect();
        assert_eq!(there, ["in-flight", "first"]);
        next.put_blocking(&id("next"), "v").unwrap();
        // The one that lost cannot give back what is not his.
        drop(store);
        next.put_blocking(&id("next"), "w").unwrap();
        assert_eq!(refusal(&place.options()).kind(), ErrorKind::AlreadyOpen);
    });
}

/// An owner that is stopped in the middle of its writes, and goes on when another one writes.
#[test]
fn a_stopped_owner_commits_nothing_when_it_goes_on() {
    let Some(place) = Place::plain() else { return };
    for _ in 0..3 {
        let first = Stopped::start(&place.url("&lease_ms=1000&wait_ms=60000"));
        first.signal("STOP");
        let next = open(&place.options().wait(Wait::AtMost(support::load::PATIENCE)));
        let taken = next.get_blocking(&id("last")).unwrap();
        let load = Load::start(next);
        first.signal("CONT");
        let (outcome, kind) = first.end();
        assert_eq!(kind, "Fenced");
        // Nothing acknowledged was missing when the lease was taken over, and nothing came later.
        let taken = u64::from_be_bytes(taken.unwrap().try_into().unwrap());
        assert!((outcome.acknowledged..=outcome.submitted).contains(&taken), "{taken} {outcome:?}");
        load.advance();
        load.stop_and_check();
    }
}

/// In the process that is stopped or killed: writes until it fails. Else does nothing.
#[test]
fn child() {
    let Ok(url) = env::var("KVSTORE_STOPPED") else { return };
    let load = Load::start(open(&PostgresOptions::from_url(&url).unwrap()));
    println!("\nready");
    let kind = load.failure().kind();
    let Outcome { acknowledged, submitted } = load.stop();
    println!("\nend {acknowledged} {submitted} {kind:?}");
}

/// An owner in a process of its own.
struct Stopped {
    process: Child,
    lines: Box<dyn Iterator<Item = String>>,
}

impl Stopped {
    fn start(url: &str) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "child", "--nocapture"]).env("KVSTORE_STOPPED", url);
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut lines = Box::new(lines);
        assert!(lines.any(|line| line == "ready"), "the other process opens no store");
        Self { process, lines }
    }

    fn signal(&self, signal: &str) {
        let pid = self.process.id().to_string();
        let done = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(done.unwrap().success());
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn end(mut self) -> (Outcome, String) {
        let end = self.lines.find_map(|line| line.strip_prefix("end ").map(str::to_owned));
        let end = end.expect("it fails and says so");
        let parts: Vec<_> = end.split(' ').collect();
        let number = |at: usize| parts[at].parse().unwrap();
        let outcome = Outcome { acknowledged: number(0), submitted: number(1) };
        (outcome, parts[2].to_owned())
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// ldk-node writes without looking at the lease, so its lock is kept from it, and keeps us out.
#[test]
fn ldk_nodes_lock_is_respected() {
    let Some(place) = Place::plain() else { return };
    let server = support::server().unwrap();
    let table = format!("{}.ldk_data", place.schema);
    let key = server
        .query(&format!(
            "SELECT ('x' || encode(substr(sha256('ldk-node:postgres-store'::bytea || int8send(8) \
             || 'postgres' || int8send({}) || '{table}'), 1, 8), 'hex'))::bit(64)::int8",
            table.len()
        ))
        .unwrap();
    let mut ldk_node = Session::open(server.access());
    let try_lock = format!("SELECT 'locked ' || pg_try_advisory_lock({key})");
    ldk_node.ask(&try_lock, "locked true");
    let error = refusal(&place.options());
    assert_eq!(error.kind(), ErrorKind::AlreadyOpen);
    assert!(error.message().contains("ldk-node") && error.message().contains("a test's psql"));
    drop(ldk_node);
    // The lease was given back, so there is nothing to wait for.
    let mut opened = PostgresBackend::open(&place.options());
    while opened.as_ref().is_err_and(|error| error.message().contains("a test's psql")) {
        opened = PostgresBackend::open(&place.options());
    }
    let store = Store::open(opened.unwrap()).unwrap();
    let mut ldk_node = Session::open(server.access());
    ldk_node.ask(&try_lock, "locked false");
    store.close_blocking().unwrap();
    ldk_node.ask(&try_lock, "locked true");
}
