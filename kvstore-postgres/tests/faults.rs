//! One server that is restarted, killed, or ends connections, under a load that goes on.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use kvstore_core::{ErrorKind, QueueOptions, Store};
use kvstore_postgres::{PostgresBackend, PostgresOptions};
use postgres_servers::{Pooler, Server, Stop, or_skip};
use support::load::{Load, id};
use support::{Place, open};

mod support;

fn load(place: &Place) -> Load {
    Load::start(open(&place.options()))
}

#[test]
fn the_server_is_restarted() {
    let Some(mut server) = or_skip(Server::start()) else { return };
    let place = Place::new(&server.url(), &server);
    let load = load(&place);
    for how in [Stop::Fast, Stop::Immediate, Stop::Fast] {
        server.stop(how).unwrap();
        server.start_again().unwrap();
        load.advance();
    }
    load.stop_and_check();
}

#[test]
fn the_server_is_killed() {
    let Some(mut server) = or_skip(Server::start()) else { return };
    let place = Place::new(&server.url(), &server);
    let load = load(&place);
    for _ in 0..3 {
        server.kill().unwrap();
        server.start_again().unwrap();
        load.advance();
    }
    load.stop_and_check();
}

/// A server that is down leaves no socket, or one that nobody listens on.
#[test]
fn the_server_behind_a_socket_is_restarted() {
    let Some(mut server) = or_skip(Server::builder().socket().tls().start()) else { return };
    let place = Place::new(&server.url(), &server);
    // TLS is not for sockets, whatever the mode.
    let url = place.url("&sslmode=verify-full&sslrootcert=system");
    let options = PostgresOptions::from_url(&url).unwrap();
    let load = Load::start(open(&options));
    let sockets = "bool_and(client_addr IS NULL AND client_port = -1)";
    assert_eq!(place.query(&format!("SELECT {sockets} FROM {}", place.sessions())), "t");
    server.stop(Stop::Fast).unwrap();
    server.start_again().unwrap();
    load.advance();
    server.kill().unwrap();
    server.start_again().unwrap();
    load.advance();
    load.stop_and_check();
}

fn end_sessions(server: &Server, place: &Place) {
    let sessions = place.sessions();
    server.execute(&format!("SELECT pg_terminate_backend(pid) FROM {sessions}")).unwrap();
}

#[test]
fn connections_are_ended_in_flight() {
    let Some(server) = support::server() else { return };
    let place = Place::new(&server.url(), server);
    let load = load(&place);
    for _ in 0..5 {
        let held = place.hold("last");
        place.wait_for_held(1);
        end_sessions(server, &place);
        drop(held);
        load.advance();
    }
    for _ in 0..20 {
        end_sessions(server, &place);
        load.advance();
    }
    load.stop_and_check();
}

/// A slow connection is waited for; the lease is renewed meanwhile.
#[test]
fn a_backend_stands_still_and_goes_on() {
    let Some(server) = support::server() else { return };
    let place = Place::new(&server.url(), server);
    let lease = Duration::from_secs(1);
    let load = Load::start(open(&place.options().lease(lease)));
    let held = place.hold("last");
    let writer = place.wait_for_held(1);
    server.pause_backend(writer).unwrap();
    drop(held);
    for _ in 0..3 {
        assert!(load.stands_still());
        let refused = PostgresBackend::open(&place.options()).expect_err("it is renewed");
        assert_eq!(refused.kind(), ErrorKind::AlreadyOpen);
    }
    server.resume_backend(writer).unwrap();
    load.advance();
    load.stop_and_check();
}

/// A statement that the server runs long after its client is gone must not bring an old value back.
#[test]
fn a_zombie_commits_nothing() {
    let Some(server) = support::server() else { return };
    let Some(mut pooler) = or_skip(Pooler::start(server)) else { return };
    let place = Place::new(&pooler.url(), server);
    let store = open(&place.options().pooler(true));
    store.put_blocking(&id("k"), "first").unwrap();
    // Idle sessions that stand still: what is sent to them waits in their sockets.
    let idle = format!("SELECT pid FROM {} AND state = 'idle'", place.sessions());
    let idle: Vec<i32> =
        server.query(&idle).unwrap().lines().map(|pid| pid.parse().unwrap()).collect();
    idle.iter().for_each(|pid| server.pause_backend(*pid).unwrap());
    let in_doubt = store.put(&id("k"), "in doubt");
    wait_until_sent(&pooler);
    pooler.kill().unwrap();
    pooler.start_again().unwrap();
    // It was not there, so it was sent again, and more came after it.
    in_doubt.wait().unwrap();
    store.put_blocking(&id("k"), "newer").unwrap();
    idle.iter().for_each(|pid| server.resume_backend(*pid).unwrap());
    wait_until_gone(server, &idle);
    assert_eq!(store.get_blocking(&id("k")).unwrap().unwrap(), b"newer");
    store.close_blocking().unwrap();
}

/// Waits until the pooler has passed a statement on, to a session that does not answer.
fn wait_until_sent(pooler: &Pooler) {
    for _ in 0..1500 {
        let servers = pooler.access().query_in("pgbouncer", "SHOW SERVERS").unwrap();
        if servers.lines().any(|line| line.contains("|active|")) {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    panic!("the pooler sends nothing");
}

fn wait_until_gone(server: &Server, pids: &[i32]) {
    let pids: Vec<_> = pids.iter().map(ToString::to_string).collect();
    let there = format!("SELECT count(*) FROM pg_stat_activity WHERE pid IN ({})", pids.join(","));
    for _ in 0..1500 {
        if server.query(&there).unwrap() == "0" {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    panic!("the sessions stay");
}

/// A pooler or proxy may lead to another server from one statement to the next, without a connection
/// that breaks. Here the server's own commit is set back, as one would find it there.
#[test]
fn a_server_that_lacks_commits_is_not_believed() {
    for reads in [true, false] {
        let Some(place) = Place::plain() else { return };
        let store = open(&place.options());
        store.put_blocking(&id("k"), "first").unwrap();
        store.put_blocking(&id("k"), "second").unwrap();
        assert!(store.get_blocking(&id("k")).unwrap().is_some());
        place.query("UPDATE ldk_data_fence SET seq = seq - 1");
        let error = match reads {
            true => store.get_blocking(&id("k")).unwrap_err(),
            false => store.put_blocking(&id("k"), "third").unwrap_err(),
        };
        assert_eq!(error.kind(), ErrorKind::HistoryLost, "{error}");
        let stored = place.query("SELECT convert_from(value, 'UTF8') FROM ldk_data");
        assert_eq!(stored, "second");
    }
}

/// Beyond the retry budget a commit that was never sent fails, and later ones go through.
#[test]
fn no_server_within_the_budget() {
    let Some(mut server) = or_skip(Server::start()) else { return };
    let place = Place::new(&server.url(), &server);
    let store = open(&place.options().retry_budget(Duration::from_millis(300)));
    store.put_blocking(&id("k"), "first").unwrap();
    server.stop(Stop::Fast).unwrap();
    // The connection may not know yet that it is gone; then the commit is in doubt.
    while !store.get_blocking(&id("k")).is_err_and(|error| error.kind() == ErrorKind::Unavailable) {
    }
    let error = store.put_blocking(&id("k"), "second").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.is_retryable() && error.message().contains("127.0.0.1"), "{error}");
    server.start_again().unwrap();
    store.put_blocking(&id("k"), "third").unwrap();
    assert_eq!(store.get_blocking(&id("k")).unwrap().unwrap(), b"third");
    store.close_blocking().unwrap();
}

/// P3: a commit whose answer is lost for good is in doubt, and stops the store until it is reopened.
#[test]
fn a_commit_that_nobody_can_tell_of_is_in_doubt() {
    let Some(mut server) = or_skip(Server::start()) else { return };
    let place = Place::new(&server.url(), &server);
    let store = open(&place.options().retry_budget(Duration::from_millis(300)));
    store.put_blocking(&id("k"), "first").unwrap();
    let held = place.hold("k");
    let lost = store.put(&id("k"), "lost");
    place.wait_for_held(1);
    server.kill().unwrap();
    let error = lost.wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InDoubt, "{error}");
    drop(held);
    server.start_again().unwrap();
    let error = store.put_blocking(&id("k"), "later").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Poisoned);
    store.close_blocking().unwrap();
    drop(store);
    let store = open(&place.options());
    assert_eq!(store.get_blocking(&id("k")).unwrap().unwrap(), b"first");
}

/// The first host does not answer, and the second is taken.
#[test]
fn the_first_host_stands_still_at_connect() {
    let Some(first) = or_skip(Server::start()) else { return };
    let Some(second) = support::server() else { return };
    let (at, other) = (first.access().port(), second.access().port());
    let url = second.url().replace(&format!(":{other}"), &format!(":{at},127.0.0.1:{other}"));
    let place = Place::new(&url, second);
    first.pause().unwrap();
    let store = open(&place.options().retry_budget(Duration::from_secs(10)));
    store.put_blocking(&id("k"), "v").unwrap();
    assert_eq!(store.backend().server().host, format!("127.0.0.1:{other}"));
    assert_eq!(place.query("SELECT count(*) FROM ldk_data"), "1");
    first.resume().unwrap();
}

/// While commits wait, the queue does not grow beyond its bound.
#[test]
fn the_queue_is_bounded_while_the_server_is_slow() {
    let Some(server) = support::server() else { return };
    let place = Place::new(&server.url(), server);
    let backend = PostgresBackend::open(&place.options()).unwrap();
    let store = Store::open_with(backend, QueueOptions::default().max_held_bytes(20_000)).unwrap();
    store.put_blocking(&id("k"), "v").unwrap();
    let held = place.hold("0");
    let tickets: Vec<_> = (0..100).map(|at| store.put(&id(at), vec![0; 1000])).collect();
    drop(held);
    let kinds: Vec<_> = tickets.into_iter().map(|ticket| ticket.wait()).collect();
    let refused = kinds.iter().filter_map(|result| result.as_ref().err());
    assert!(refused.clone().all(|error| error.kind() == ErrorKind::QueueFull));
    assert!(refused.count() > 70);
    store.put_blocking(&id("k"), "w").unwrap();
}
