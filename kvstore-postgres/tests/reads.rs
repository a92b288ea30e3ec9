//! Reads that wait for their turn, while a server stands still or is gone.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use futures_lite::future::{block_on, poll_once};
use kvstore_core::{EntryId, ErrorKind, Namespace, Store};
use kvstore_postgres::PostgresBackend;
use postgres_servers::{Server, or_skip};
use support::load::PATIENCE;
use support::{Place, Read, open};

mod support;

fn id(at: usize) -> EntryId {
    EntryId::new("monitors", "", &at.to_string()).unwrap()
}

fn store_with(place: &Place, count: usize) -> Store<PostgresBackend> {
    let store = open(&place.options().retry_budget(Duration::from_secs(3600)));
    let tickets: Vec<_> = (0..count).map(|at| store.put(&id(at), vec![at as u8])).collect();
    tickets.into_iter().for_each(|ticket| ticket.wait().unwrap());
    store
}

fn begin(store: &Store<PostgresBackend>, at: usize) -> Read {
    support::begin(store, &id(at))
}

/// What must not take for ever.
fn patiently<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, wait) = mpsc::channel();
    thread::spawn(move || done.send(work()));
    wait.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{what} hangs"))
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
    // In the server's place, somebody who says nothing.
    let silent = TcpListener::bind(("127.0.0.1", server.access().port())).unwrap();
    let mut list = Box::pin(store.list(&Namespace::new("monitors", "").unwrap()));
    assert!(block_on(poll_once(&mut list)).is_none());
    let reads: Vec<_> = (0..200).map(|at| begin(&store, at)).collect();
    let _connected = silent.accept().unwrap();
    // The lease could not be given back.
    store.close_blocking().unwrap_err();
    let late = begin(&store, 0);
    let error = patiently("a list after the close", || block_on(list)).unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Closed, "page"), "{error}");
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

/// An entry whose read ends the session fails by itself, also where there is one connection only.
#[test]
fn an_entry_that_ends_its_session_harms_no_other() {
    let Some(server) = support::server() else { return };
    let place = Place::new(&server.url(), server);
    drop(store_with(&place, 40));
    let options = place.options().readers(1).retry_budget(Duration::from_secs(5));
    let store = open(&options);
    // Statements find the view by its name.
    place.query(
        "ALTER TABLE ldk_data RENAME TO kept; \
         CREATE VIEW ldk_data AS SELECT primary_namespace, secondary_namespace, key, sort_order, \
             CASE WHEN key = '7' AND pg_terminate_backend(pg_backend_pid()) \
                 AND pg_sleep(60)::text = '' THEN value ELSE value END AS value FROM kept",
    );
    let mut reads: Vec<_> = (0..40).map(|at| begin(&store, at)).collect();
    let ends_it = reads.remove(7);
    let error = patiently("a read that ends its session", || block_on(ends_it)).unwrap_err();
    assert_eq!((error.kind(), error.entry()), (ErrorKind::Unavailable, Some(&id(7))), "{error}");
    // It was in nobody's way all the time that it was tried.
    for (read, at) in reads.iter_mut().zip((0..40).filter(|at| *at != 7)) {
        let answer = block_on(poll_once(read)).expect("the others were answered long ago");
        assert_eq!(answer.unwrap(), Some(vec![at as u8]));
    }
}

/// A connection that cannot be made again is not needed where there is another one.
#[test]
fn the_other_connection_reads_when_no_new_one_is_let_in() {
    let Some(server) = or_skip(Server::start()) else { return };
    let place = Place::new(&server.url(), &server);
    let store = store_with(&place, 30);
    let locked = place.lock_table();
    let first = begin(&store, 0);
    place.wait_for_held(1);
    let second = begin(&store, 1);
    place.wait_for_held(2);
    let mut psql = place.session();
    psql.run("SELECT 'connected'");
    drop(locked);
    for read in [first, second] {
        assert!(patiently("a read", || block_on(read)).unwrap().is_some());
    }
    // The one that a single task uses.
    store.get_blocking(&id(2)).unwrap();
    let used = format!(
        "SELECT pid FROM {} AND query LIKE 'SELECT fence.epoch%' ORDER BY query_start DESC LIMIT 1",
        place.sessions()
    );
    let used = place.query(&used);
    std::fs::write(server.data_directory().join("pg_hba.conf"), "host all all all reject\n")
        .unwrap();
    server.reload().unwrap();
    patiently("the server's reload", {
        let access = server.access().clone();
        move || while access.psql().args(["-c", ""]).output().unwrap().status.success() {}
    });
    psql.run(&format!("SELECT pg_terminate_backend({used}, 60000)"));
    for at in 0..30 {
        assert_eq!(store.get_blocking(&id(at)).unwrap(), Some(vec![at as u8]));
    }
    // Several at a time, too: while the connection is busy, one gets a turn on the one that is gone.
    psql.run(&format!("BEGIN; LOCK TABLE {}.ldk_data", place.schema));
    let mut reads = vec![begin(&store, 0)];
    psql.run(&format!(
        "DO $$ BEGIN
             WHILE NOT EXISTS (SELECT FROM {} AND wait_event_type = 'Lock') LOOP
                 PERFORM pg_stat_clear_snapshot();
             END LOOP;
         END $$",
        place.sessions()
    ));
    let refused = || server.log().matches("rejects").count();
    let before = refused();
    reads.extend((1..30).map(|at| begin(&store, at)));
    let start = Instant::now();
    while refused() == before {
        assert!(start.elapsed() < PATIENCE, "nobody tries to connect");
    }
    psql.run("COMMIT");
    for (at, read) in reads.into_iter().enumerate() {
        assert_eq!(patiently("a read", || block_on(read)).unwrap(), Some(vec![at as u8]));
    }
}
