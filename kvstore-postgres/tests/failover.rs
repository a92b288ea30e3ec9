//! A primary that is lost, standbys that take over or are missing, under a load that goes on.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use kvstore_core::{ErrorKind, Store};
use kvstore_postgres::{PostgresBackend, PostgresOptions};
use postgres_servers::{Cluster, Stop, or_skip};
use support::load::{Load, Outcome, id};
use support::{Place, open};

mod support;

fn place(cluster: &Cluster) -> Place {
    Place::new(&cluster.url(), cluster.primary())
}

/// Three times: the primary is killed, the standby that is ahead is promoted, and the old primary
/// comes back as its standby. The writer goes on by itself each time.
#[test]
fn the_primary_is_killed_and_a_standby_promoted() {
    let builder = Cluster::builder(2).synchronous("ANY 1 (node0, node1, node2)");
    let Some(mut cluster) = or_skip(builder.start()) else { return };
    let place = place(&cluster);
    let load = Load::start(open(&place.options()));
    for _ in 0..3 {
        let old = cluster.primary_number();
        cluster.kill(old).unwrap();
        cluster.promote(cluster.standby_ahead().unwrap()).unwrap();
        load.advance();
        cluster.rewind_as_standby(old).unwrap();
        load.advance();
    }
    load.stop_and_check();
}

/// Where commits wait for a standby that is down, they wait, and nobody is told otherwise: not even
/// when somebody cancels what waits.
#[test]
fn the_standby_is_down() {
    let Some(mut cluster) = or_skip(Cluster::builder(1).synchronous("node1").start()) else {
        return;
    };
    let place = place(&cluster);
    let load = Load::start(open(&place.options()));
    cluster.member_mut(1).stop(Stop::Fast).unwrap();
    assert!(load.stands_still());
    let acknowledged = load.acknowledged();
    let waiting = format!("{} AND wait_event = 'SyncRep'", place.sessions());
    for _ in 0..3 {
        let cancel = format!("SELECT count(pg_cancel_backend(pid)) FROM {waiting}");
        assert_ne!(cluster.primary().query(&cancel).unwrap(), "0");
        assert!(load.stands_still());
        assert_eq!(load.acknowledged(), acknowledged);
    }
    cluster.member_mut(1).start_again().unwrap();
    load.advance();
    load.stop_and_check();
}

/// A store on a cluster that lost its last commits, since a standby was promoted that was away.
fn after_a_loss(values: &[&'static str]) -> Option<(Cluster, Place, Store<PostgresBackend>)> {
    let mut cluster = or_skip(Cluster::start(1))?;
    let place = place(&cluster);
    let store = open(&place.options());
    store.put_blocking(&id("k"), "kept").unwrap();
    cluster.wait_until_replayed(1).unwrap();
    cluster.member_mut(1).stop(Stop::Fast).unwrap();
    values.iter().for_each(|lost| store.put_blocking(&id("k"), *lost).unwrap());
    cluster.kill(0).unwrap();
    cluster.member_mut(1).start_again().unwrap();
    cluster.promote(1).unwrap();
    Some((cluster, place, store))
}

/// What was acknowledged is gone, and the store says so and stops.
#[test]
fn acknowledged_commits_are_gone() {
    let Some((cluster, place, store)) = after_a_loss(&["lost", "lost too"]) else { return };
    let error = store.put_blocking(&id("k"), "later").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HistoryLost, "{error}");
    assert!(error.message().contains("2 acknowledged commits are gone"), "{error}");
    assert_eq!(store.put_blocking(&id("k"), "x").unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(cluster.primary().query(&value_of(&place)).unwrap(), "kept");
}

/// Reads notice it too, before anything is written.
#[test]
fn reads_do_not_show_a_history_that_lost_commits() {
    let Some((_cluster, _place, store)) = after_a_loss(&["lost"]) else { return };
    let error = store.get_blocking(&id("k")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HistoryLost, "{error}");
    let error = store.put_blocking(&id("k"), "later").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HistoryLost, "{error}");
}

fn value_of(place: &Place) -> String {
    let schema = &place.schema;
    format!("SELECT convert_from(value, 'UTF8') FROM {schema}.ldk_data WHERE key = 'k'")
}

/// The primary stands still, so its connections look alive, and a standby is promoted. The store
/// follows, and what the old one does when it goes on counts for nothing.
#[test]
fn the_primary_stands_still_and_a_standby_is_promoted() {
    let builder = Cluster::builder(1).synchronous("ANY 1 (node0, node1)");
    let Some(mut cluster) = or_skip(builder.start()) else { return };
    let place = place(&cluster);
    let load = Load::start(open(&place.options().lease(Duration::from_secs(1))));
    cluster.members()[0].pause().unwrap();
    // The promotion comes later than the lease's own connection was given up.
    (0..3).for_each(|_| assert!(load.stands_still()));
    cluster.promote(1).unwrap();
    // It is a synchronous primary without a standby, until the old one is that.
    cluster.primary().execute("ALTER SYSTEM SET synchronous_standby_names = ''").unwrap();
    cluster.primary().reload().unwrap();
    load.advance();
    let outcome: Outcome = load.stop();
    cluster.members()[0].resume().unwrap();
    let store = open(&place_without(&cluster, 0, &place).wait(kvstore_postgres::Wait::Forever));
    assert_eq!(outcome.check(&store), outcome.acknowledged);
    // Without a standby it would not even drop the schema.
    cluster.kill(0).unwrap();
}

/// Whoever waits for the lease follows the primary, too.
#[test]
fn the_passive_one_follows_the_primary() {
    let builder = Cluster::builder(1).synchronous("ANY 1 (node0, node1)");
    let Some(mut cluster) = or_skip(builder.start()) else { return };
    let place = place(&cluster);
    let options = place.options().lease(Duration::from_secs(1));
    let first = open(&options);
    first.put_blocking(&id("k"), "first").unwrap();
    let (opened, passive) = std::sync::mpsc::channel();
    let waiting = options.wait(kvstore_postgres::Wait::Forever);
    std::thread::spawn(move || opened.send(open(&waiting)));
    // Beside the two of the first, whose put needs no reader.
    let sessions = format!("SELECT count(*) = 3 FROM {}", place.sessions());
    while cluster.primary().query(&sessions).unwrap() != "t" {}
    cluster.members()[0].pause().unwrap();
    cluster.promote(1).unwrap();
    cluster.primary().execute("ALTER SYSTEM SET synchronous_standby_names = ''").unwrap();
    cluster.primary().reload().unwrap();
    // The active one follows as well, if the lease does not run out before; here it may not.
    let in_flight = first.put(&id("k"), "second");
    let first_on = in_flight.wait().map_err(|error| error.kind());
    if first_on.is_ok() {
        first.close_blocking().unwrap();
    }
    let second = passive.recv_timeout(support::load::PATIENCE).expect("it takes over");
    let value = second.get_blocking(&id("k")).unwrap().unwrap();
    match first_on {
        Ok(()) => assert_eq!(value, b"second"),
        Err(kind) => assert_eq!((kind, &value[..]), (ErrorKind::Fenced, &b"first"[..])),
    }
    drop(second);
    cluster.kill(0).unwrap();
}

/// The same place, by the other members' URL.
fn place_without(cluster: &Cluster, member: usize, place: &Place) -> PostgresOptions {
    let others = cluster.urls().into_iter().enumerate().find(|(at, _)| *at != member);
    let url = format!("{}?table={}.ldk_data", others.unwrap().1, place.schema);
    PostgresOptions::from_url(&url).unwrap()
}
