//! The tables: ldk-node's, older and newer ones, damaged ones, and a disk that is full.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;
use std::time::Duration;

use conformance::SmallDisk;
use futures_lite::future::block_on;
use kvstore_core::{Batch, EntryId, Error, ErrorKind, Namespace, Store};
use kvstore_postgres::{PostgresBackend, PostgresOptions};
use postgres_servers::{Server, Stop, or_skip};
use support::{Place, open};

mod support;

fn refusal(options: &PostgresOptions) -> Error {
    PostgresBackend::open(options).expect_err("it is refused")
}

fn id(key: &str) -> EntryId {
    EntryId::new("monitors", "", key).unwrap()
}

/// Reads entries together.
fn get_at_once(
    store: &Store<PostgresBackend>,
    ids: impl Iterator<Item = EntryId>,
) -> Vec<kvstore_core::Result<Option<Vec<u8>>>> {
    let reads: Vec<_> = ids.map(|id| support::begin(store, &id)).collect();
    reads.into_iter().map(block_on).collect()
}

/// What ldk-node asks, newest first.
const LDK_NODES_PAGE: &str = "SELECT key, convert_from(value, 'UTF8') FROM ldk_data \
    WHERE primary_namespace = 'monitors' AND secondary_namespace = '' \
    ORDER BY sort_order DESC, key ASC";

/// What ldk-node writes with.
fn ldk_node_writes(place: &Place, key: &str, value: &str) {
    place.query(&format!(
        "INSERT INTO ldk_data (primary_namespace, secondary_namespace, key, value) \
         VALUES ('monitors', '', '{key}', '{value}') \
         ON CONFLICT (primary_namespace, secondary_namespace, key) \
         DO UPDATE SET value = EXCLUDED.value"
    ));
}

#[test]
fn ldk_nodes_table_goes_back_and_forth() {
    let Some(place) = Place::of_ldk_node() else { return };
    ldk_node_writes(&place, "theirs", "1");
    let definition = "SELECT string_agg(column_name || data_type || coalesce(column_default, '') \
        || coalesce(collation_name, ''), ',' ORDER BY ordinal_position) \
        FROM information_schema.columns WHERE table_name = 'ldk_data' \
        AND table_schema = current_schema()";
    let before = place.query(definition);
    for round in 0..3 {
        let store = open(&place.options());
        store.put_blocking(&id(&format!("ours-{round}")), "2").unwrap();
        // An update keeps its place.
        store.put_blocking(&id("theirs"), "3").unwrap();
        store.close_blocking().unwrap();
        ldk_node_writes(&place, &format!("again-{round}"), "4");
    }
    let expected = "again-2|4\nours-2|2\nagain-1|4\nours-1|2\nagain-0|4\nours-0|2\ntheirs|3";
    assert_eq!(place.query(LDK_NODES_PAGE), expected);
    let store = open(&place.options());
    let keys = store.list_blocking(&Namespace::new("monitors", "").unwrap()).unwrap();
    let keys: Vec<_> = keys.iter().map(ToString::to_string).collect();
    let theirs: Vec<_> = expected.lines().map(|line| line.split('|').next().unwrap()).collect();
    assert_eq!(keys, theirs);
    assert_eq!(place.query(definition), before);
    assert_eq!(place.query("SELECT obj_description('ldk_data'::regclass, 'pg_class')"), "1");
}

/// A number that a removed entry had is not given again, since a page token may name it; and what
/// ldk-node draws stays above, also if we only looked.
#[test]
fn numbers_only_go_up() {
    let Some(place) = Place::of_ldk_node() else { return };
    let newest = |store: &Store<PostgresBackend>| {
        let entries = store.list_all_blocking().unwrap();
        entries.iter().map(|entry| entry.created).max().unwrap_or(0)
    };
    let store = open(&place.options());
    store.put_blocking(&id("removed"), "1").unwrap();
    let removed = newest(&store);
    store.remove_blocking(&id("removed")).unwrap();
    store.close_blocking().unwrap();
    let store = open(&place.options());
    store.put_blocking(&id("kept"), "1").unwrap();
    assert!(newest(&store) > removed);
    store.close_blocking().unwrap();
    (0..20).for_each(|at| ldk_node_writes(&place, &format!("theirs-{at}"), "2"));
    open(&place.options()).close_blocking().unwrap();
    ldk_node_writes(&place, "last", "3");
    assert!(place.query(LDK_NODES_PAGE).starts_with("last|3\ntheirs-19|2\n"));
}

/// Before it had a sequence, ldk-node numbered by itself, and an update could leave a zero.
#[test]
fn a_table_without_a_sequence_is_numbered_too() {
    let Some(place) = Place::of_ldk_node() else { return };
    place.query(
        "ALTER TABLE ldk_data ALTER sort_order SET DEFAULT 0; DROP SEQUENCE ldk_data_sort_order_seq",
    );
    place.query("INSERT INTO ldk_data VALUES ('monitors', '', 'old', '1', 41)");
    let store = open(&place.options());
    store.put_blocking(&id("new"), "2").unwrap();
    store.close_blocking().unwrap();
    assert_eq!(place.query(LDK_NODES_PAGE), "new|2\nold|1");
}

#[test]
fn what_is_not_ours_is_refused_and_not_changed() {
    let Some(place) = Place::of_ldk_node() else { return };
    for (change, back, advice) in [
        ("COMMENT ON TABLE ldk_data IS '2'", "COMMENT ON TABLE ldk_data IS '1'", "schema 2"),
        ("COMMENT ON TABLE ldk_data IS 'my'", "COMMENT ON TABLE ldk_data IS '1'", "comment"),
        (
            "ALTER TABLE ldk_data RENAME value TO bytes",
            "ALTER TABLE ldk_data RENAME bytes TO value",
            "columns",
        ),
        ("ALTER TABLE ldk_data SET UNLOGGED", "ALTER TABLE ldk_data SET LOGGED", "UNLOGGED"),
        ("CREATE TABLE ldk_data_lease ()", "DROP TABLE ldk_data_lease", "ldk_data_lease"),
    ] {
        place.query(change);
        let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()";
        let before = place.query(tables);
        let error = refusal(&place.options());
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{change}: {error}");
        assert!(error.message().contains(advice), "{change}: {error}");
        assert_eq!(place.query(tables), before);
        place.query(back);
    }
    open(&place.options()).close_blocking().unwrap();
}

#[test]
fn nothing_is_created_unasked() {
    let Some(place) = Place::plain() else { return };
    let error = refusal(&place.options().create(false));
    assert_eq!(error.kind(), ErrorKind::Missing, "{error}");
    assert_eq!(place.query("SELECT to_regnamespace(current_schema()) IS NULL"), "t");
    open(&place.options()).close_blocking().unwrap();
    open(&place.options().create(false)).close_blocking().unwrap();
}

#[test]
fn who_may_not_come_in_is_told_why() {
    let Some(server) = support::server() else { return };
    let place = Place::plain().unwrap();
    open(&place.options()).close_blocking().unwrap();
    let password = server.access().password();
    let wrong = server.url().replace(password, "wrong-horse");
    let missing = server.url().replace("/postgres", "/no_such_database");
    for (url, kind, advice) in [
        (wrong, ErrorKind::PermissionDenied, "password"),
        (missing, ErrorKind::Missing, "createdb"),
    ] {
        let error = refusal(&PostgresOptions::from_url(&url).unwrap());
        assert_eq!(error.kind(), kind, "{error}");
        let shown = format!("{error} {error:?}");
        assert!(shown.contains(advice), "{shown}");
        assert!(!shown.contains("horse") && !shown.contains(password), "{shown}");
    }
    server.execute("CREATE ROLE stranger LOGIN PASSWORD 'stranger'").unwrap();
    let url = server.url().replace("tester", "stranger").replace(password, "stranger");
    let url = format!("{url}?table={}.ldk_data", place.schema);
    let error = refusal(&PostgresOptions::from_url(&url).unwrap());
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    assert!(error.message().contains("grant"), "{error}");
}

/// A user with no more than the rights to the tables can open what is there.
#[test]
fn rights_to_the_tables_are_enough() {
    let Some(server) = support::server() else { return };
    let place = Place::plain().unwrap();
    open(&place.options()).close_blocking().unwrap();
    place.query(
        "CREATE ROLE node LOGIN PASSWORD 'node';
         GRANT USAGE ON SCHEMA place_rights TO node"
            .replace("place_rights", &place.schema)
            .as_str(),
    );
    place.query(&format!(
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {0} TO node; \
         GRANT USAGE, SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA {0} TO node",
        place.schema
    ));
    let url = server.url().replace("tester", "node").replace(server.access().password(), "node");
    let url = format!("{url}?table={}.ldk_data", place.schema);
    let store = open(&PostgresOptions::from_url(&url).unwrap());
    store.put_blocking(&id("k"), "v").unwrap();
    store.remove_blocking(&id("k")).unwrap();
    store.close_blocking().unwrap();
}

#[test]
fn a_server_that_does_not_flush_is_reported() {
    let Some(safe) = support::server() else { return };
    let place = Place::new(&safe.url(), safe);
    assert!(PostgresBackend::open(&place.options()).unwrap().server().fsync);
    let builder = Server::builder().setting("fsync", "off").setting("full_page_writes", "off");
    let Some(server) = or_skip(builder.start()) else { return };
    let backend = PostgresBackend::open(&Place::new(&server.url(), &server).options()).unwrap();
    let info = backend.server();
    assert!(!info.fsync && !info.full_page_writes);
    assert!(info.version >= 120_000, "{info:?}");
}

/// No read and no remove goes through the whole table (L10), also before there are statistics, and
/// by a plan that was made when the table was empty or small.
#[test]
fn nothing_scans_the_table() {
    for analyzed in [false, true] {
        let Some(place) = Place::plain() else { return };
        // Statistics come with a renewal.
        let store =
            open(&place.options().lease(Duration::from_secs(300)).renewal(Duration::from_secs(90)));
        let some = |from: u32| (from..from + 20).map(|at| id(&at.to_string()));
        let remove = |ids: &mut dyn Iterator<Item = EntryId>| {
            let batch = ids.fold(Batch::new(), |batch, id| batch.remove(&id));
            store.submit(batch).wait().unwrap();
        };
        let put = |count: u32| {
            let tickets: Vec<_> =
                (0..count).map(|at| store.put(&id(&at.to_string()), "v")).collect();
            tickets.into_iter().for_each(|ticket| ticket.wait().unwrap());
        };
        if analyzed {
            put(20);
            place.query("ANALYZE ldk_data");
        }
        assert!(get_at_once(&store, some(0)).iter().all(Result::is_ok));
        remove(&mut some(15));
        put(3000);
        let namespace = Namespace::new("monitors", "").unwrap();
        for at in 0..100 {
            let key = id(&at.to_string());
            assert!(store.get_blocking(&key).unwrap().is_some());
            assert!(get_at_once(&store, some(at)).iter().all(Result::is_ok));
            let page = store.page_blocking(&namespace, None, 10).unwrap();
            store.page_with_values_blocking(&namespace, page.next.as_ref(), 10).unwrap();
            remove(&mut [key, id("absent")].into_iter());
        }
        // A session tells of its scans at its end.
        store.close_blocking().unwrap();
        let counted = |sql: &str| -> u64 {
            let of = "schemaname = current_schema() AND relname = 'ldk_data'";
            place.query(&format!("{sql} WHERE {of}")).parse().unwrap()
        };
        // Opening looks for the largest number.
        let openings = 2;
        let scans = counted("SELECT coalesce(seq_scan, 0) FROM pg_stat_user_tables");
        assert!(scans <= openings, "{scans} scans");
        // Some fifty a round, and one for each put.
        let fetched = counted("SELECT idx_tup_fetch FROM pg_stat_user_tables");
        assert!(fetched < 15_000, "{fetched} entries fetched");
        // Reading a key by the order of creation goes through its namespace, but only pages count.
        let by_order = "SELECT sum(idx_scan) FILTER (WHERE indexrelname NOT LIKE '%pkey') \
            FROM pg_stat_user_indexes";
        let by_order = counted(by_order);
        assert!(by_order <= 200 + openings, "{by_order} scans by the order of creation");
    }
}

/// Nobody waits for the server's own turn.
#[test]
fn a_table_that_grew_is_counted() {
    let Some(place) = Place::plain() else { return };
    let store = open(&place.options().renewal(Duration::from_millis(100)));
    let tickets: Vec<_> = (0..2000).map(|at| store.put(&id(&at.to_string()), "v")).collect();
    tickets.into_iter().for_each(|ticket| ticket.wait().unwrap());
    let counted = "SELECT reltuples >= 1000 FROM pg_class WHERE oid = 'ldk_data'::regclass";
    for _ in 0..1500 {
        if place.query(counted) == "t" {
            return store.close_blocking().unwrap();
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    panic!("it is not counted");
}

#[test]
fn damage_is_told_from_absence() {
    let Some(place) = Place::plain() else { return };
    let store = open(&place.options());
    place.query(
        "INSERT INTO ldk_data VALUES ('monitors', '', 'null', NULL, 1); \
         INSERT INTO ldk_data VALUES ('bad', '', 'a key', '', 2)",
    );
    let bad = Namespace::new("bad", "").unwrap();
    for error in [
        store.get_blocking(&id("null")).unwrap_err(),
        store.list_blocking(&bad).unwrap_err(),
        store.list_all_blocking().unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Corrupted, "{error}");
    }
    assert_eq!(store.get_blocking(&id("absent")).unwrap(), None);
}

/// P6 for one value, whoever is read together with it.
#[test]
fn damage_of_one_value_is_not_that_of_others() {
    let Some(mut server) = or_skip(Server::start()) else { return };
    let place = Place::new(&server.url(), &server);
    let store = open(&place.options());
    for at in 0..30 {
        store.put_blocking(&id(&at.to_string()), vec![at; 100]).unwrap();
    }
    store.put_blocking(&id("15"), vec![15; 100_000]).unwrap();
    store.close_blocking().unwrap();
    // Where long values are.
    let file = place.query(
        "SELECT pg_relation_filepath(reltoastrelid) FROM pg_class \
         WHERE oid = 'ldk_data'::regclass",
    );
    server.stop(Stop::Fast).unwrap();
    std::fs::write(server.data_directory().join(file), "").unwrap();
    server.start_again().unwrap();
    let store = open(&place.options().readers(1));
    let answers = get_at_once(&store, (0..30).map(|at| id(&at.to_string())));
    for (at, answer) in answers.into_iter().enumerate() {
        match answer {
            Ok(value) => assert_eq!(value, Some(vec![at as u8; 100])),
            Err(error) => {
                assert_eq!((at, error.kind()), (15, ErrorKind::Corrupted), "{error}");
                assert!(error.entry().is_some_and(|entry| entry.key() == "15"), "{error:?}");
            }
        }
    }
}

/// P5 on a disk that is really full, which only root can make.
#[test]
fn a_full_disk_fails_what_does_not_fit_and_nothing_else() {
    let Some(place) = Place::plain() else { return };
    let Some(disk) = SmallDisk::mount_of(4) else { return };
    let owned = Command::new("chown").arg("postgres").arg(disk.path()).status().unwrap();
    assert!(owned.success());
    let store = open(&place.options());
    let server = support::server().unwrap();
    let at = disk.path().display();
    server.execute(&format!("CREATE TABLESPACE small LOCATION '{at}'")).unwrap();
    place.query("ALTER TABLE ldk_data SET TABLESPACE small");
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![0; 1 << 20]).unwrap();
    let (mut stored, mut refused) = (Vec::new(), None);
    for at in 0..100 {
        match store.put_blocking(&id(&at.to_string()), vec![at as u8; 50_000]) {
            Ok(()) => stored.push(at),
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    let error = refused.expect("the disk is full before 5 MB");
    assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
    assert!(error.is_retryable() && error.to_string().contains("make room"), "{error}");
    assert!(stored.len() > 5);
    assert_eq!(store.get_blocking(&id(&stored.len().to_string())).unwrap(), None);
    std::fs::remove_file(ballast).unwrap();
    store.put_blocking(&id("later"), vec![7; 100_000]).unwrap();
    for at in stored {
        let found = store.get_blocking(&id(&at.to_string())).unwrap();
        assert_eq!(found, Some(vec![at as u8; 50_000]));
    }
    store.close_blocking().unwrap();
    drop(place);
    server.execute("DROP TABLESPACE small").unwrap();
}
