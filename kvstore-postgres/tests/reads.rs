//! Reads that wait for their turn, while a server stands still or is gone.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::pin::Pin;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use futures_lite::future::{block_on, poll_once};
use kvstore_core::{EntryId, ErrorKind, Result, Store};
use kvstore_postgres::PostgresBackend;
use postgres_servers::{Server, or_skip};
use support::{Place, open};

mod support;

type Read = Pin<Box<dyn Future<Output = Result<Option<Vec<u8>>>> + Send>>;

fn id(at: usize) -> EntryId {
    EntryId::new("monitors", "", &at.to_string()).unwrap()
}

fn store_with(place: &Place, count: usize) -> Store<PostgresBackend> {
    let store = open(&place.options().retry_budget(Duration::from_secs(3600)));
    let tickets: Vec<_> = (0..count).map(|at| store.put(&id(at), vec![at as u8])).collect();
    tickets.into_iter().for_each(|ticket| ticket.wait().unwrap());
    store
}

/// A read that is under way.
fn begin(store: &Store<PostgresBackend>, at: usize) -> Read {
    let mut read: Read = Box::pin(store.get(&id(at)));
    match block_on(poll_once(&mut read)) {
        Some(answer) => Box::pin(std::future::ready(answer)),
        None => read,
    }
}

/// What must not take for ever.
fn patiently<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, wait) = mpsc::channel();
    thread::spawn(move || done.send(work()));
    wait.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|_| panic!("{what} hangs"))
}

/// Each connection has a turn of its own, so one that stands still holds up nobody but those whom
/// it reads for.
#[test]
fn a_reader_stands_still_and_others_read_on() {
    let Some(server) = support::server() else { return };
    let place = Place::new(&server.url(), server);
    let store = store_with(&place, 50);
    // Both read when one of them is stopped.
    let locked = place.lock_table();
    let first = begin(&store, 0);
    place.wait_for_held(1);
    let reads = [first, begin(&store, 1)];
    let stopped = place.wait_for_held(2);
    server.pause_backend(stopped).unwrap();
    drop(locked);
    let others = store.clone();
    patiently("a read beside one that stands still", move || {
        for at in 2..50 {
            assert_eq!(others.get_blocking(&id(at)).unwrap(), Some(vec![at as u8]));
        }
    });
    server.resume_backend(stopped).unwrap();
    for (at, read) in reads.into_iter().enumerate() {
        assert_eq!(patiently("a read", || block_on(read)).unwrap(), Some(vec![at as u8]));
    }
}

/// Whoever waits for a server when the store is closed is told so, and later ones at once.
#[test]
fn nobody_waits_for_a_server_after_the_close() {
    let Some(mut server) = or_skip(Server::start()) else { return };
    let place = Place::new(&server.url(), &server);
    let store = store_with(&place, 200);
    server.kill().unwrap();
    let reads: Vec<_> = (0..200).map(|at| begin(&store, at)).collect();
    // The lease could not be given back.
    store.close_blocking().unwrap_err();
    let late = begin(&store, 0);
    for read in reads.into_iter().chain([late]) {
        let error = patiently("a read after the close", || block_on(read)).unwrap_err();
        assert_eq!((error.kind(), error.operation()), (ErrorKind::Closed, "get"), "{error}");
        assert!(error.entry().is_some(), "{error}");
    }
}

/// Reads that began while no server was there go on when it is, and fail when they looked for it
/// long enough.
#[test]
fn reads_wait_for_a_server_in_their_own_time() {
    let Some(mut server) = or_skip(Server::start()) else { return };
    let place = Place::new(&server.url(), &server);
    let patient = store_with(&place, 200);
    let elsewhere = Place::new(&server.url(), &server);
    let hasty = open(&elsewhere.options().retry_budget(Duration::from_millis(300)));
    server.kill().unwrap();
    let waiting: Vec<_> = (0..200).map(|at| begin(&patient, at)).collect();
    for (at, read) in (0..200).map(|at| (at, begin(&hasty, at))).collect::<Vec<_>>() {
        let error = patiently("a read without a server", || block_on(read)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert_eq!(error.entry(), Some(&id(at)));
    }
    server.start_again().unwrap();
    for (at, read) in waiting.into_iter().enumerate() {
        assert_eq!(patiently("a read", || block_on(read)).unwrap(), Some(vec![at as u8]));
    }
}
