//! The servers do what their documentation says, and leave nothing behind.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]

use postgres_servers::{Cluster, Error, Pooler, Rejoined, Server, Stop, or_skip};

mod support;

use support::{Remains, Session, kill_victim, live_as_victim, processes_in};

#[test]
fn a_killed_server_comes_back_with_its_data() {
    let Some(mut server) = or_skip(Server::start()) else { return };
    server.execute("CREATE TABLE t (n int)").unwrap();
    server.execute("INSERT INTO t VALUES (1), (2)").unwrap();
    let url = server.url();

    server.kill().unwrap();
    assert!(matches!(server.query("SELECT 1"), Err(Error::Failed { .. })));
    assert!(matches!(server.kill(), Err(Error::NotRunning)));
    assert!(processes_in(&server.data_directory()).is_empty());

    server.start_again().unwrap();
    assert!(server.log().contains("was not properly shut down"), "{}", server.log());
    assert_eq!(server.query("SELECT * FROM t ORDER BY n").unwrap(), "1\n2");
    server.restart().unwrap();
    assert!(!server.log().contains("was not properly shut down"), "{}", server.log());
    server.stop(Stop::Immediate).unwrap();
    server.start_again().unwrap();
    server.start_again().unwrap();
    assert!(server.log().contains("was not properly shut down"), "{}", server.log());
    assert_eq!(server.query("SELECT sum(n) FROM t").unwrap(), "3");
    assert_eq!(server.url(), url);
}

#[test]
fn a_server_that_somebody_else_killed_starts_again() {
    let Some(mut server) = or_skip(Server::start()) else { return };
    let kill = "kill -KILL $PPID $(cut -d\" \" -f4 /proc/$PPID/stat)";
    server.execute(&format!("COPY (SELECT) TO PROGRAM '{kill}'")).unwrap_err();
    // The connection ends a moment before the server does.
    while server.is_running().unwrap() {
        std::thread::park_timeout(std::time::Duration::from_millis(5));
    }
    server.start_again().unwrap();
    assert_eq!(server.query("SELECT 1").unwrap(), "1");
}

#[test]
fn nobody_answers_while_a_server_is_paused() {
    let Some(mut server) = or_skip(Server::start()) else { return };
    let mut session = Session::open(&server);
    assert_eq!(session.ask("SELECT 1;"), "1");
    server.pause().unwrap();
    session.say("SELECT 2;");
    assert!(session.is_silent());
    server.resume().unwrap();
    assert_eq!(session.answer(), "2");

    let backend = session.ask("SELECT pg_backend_pid();").parse().unwrap();
    server.pause_backend(backend).unwrap();
    session.say("SELECT 3;");
    assert_eq!(server.query("SELECT 'others go on'").unwrap(), "others go on");
    assert!(session.is_silent());
    server.resume_backend(backend).unwrap();
    assert_eq!(session.answer(), "3");

    let own = std::process::id() as i32;
    assert!(matches!(server.pause_backend(own), Err(Error::NoBackend(id)) if id == own));
    assert!(matches!(server.pause_backend(-1), Err(Error::NoBackend(-1))));
    server.pause().unwrap();
    server.kill().unwrap();
}

#[test]
fn databases_are_apart_and_dropped() {
    let Some(server) = or_skip(Server::builder().setting("work_mem", "5MB").start()) else {
        return;
    };
    let (one, other) = (server.create_database().unwrap(), server.create_database().unwrap());
    one.execute("CREATE TABLE t ()").unwrap();
    other.execute("CREATE TABLE t ()").unwrap();
    assert_ne!(one.url(), other.url());
    assert!(one.url().ends_with(one.name()));
    drop((one, other));
    let left = "SELECT count(*) FROM pg_database WHERE datname LIKE 'test%'";
    assert_eq!(server.query(left).unwrap(), "0");

    assert_eq!(server.query("SHOW work_mem").unwrap(), "5MB");
    assert_eq!(server.query("SHOW fsync").unwrap(), "on");
    assert_eq!(server.query("SHOW synchronous_commit").unwrap(), "on");
}

#[test]
fn a_password_is_asked_for_and_not_shown() {
    let Some(server) = or_skip(Server::start()) else { return };
    let wrong = server.access().psql().env("PGPASSWORD", "wrong").args(["-c", "SELECT"]).output();
    assert!(!wrong.unwrap().status.success());
    let password = server.access().password();
    let failed = server.query("no such statement").unwrap_err();
    for shown in [format!("{server:?}"), format!("{failed} {failed:?}"), server.log()] {
        assert!(!shown.contains(password), "{shown}");
    }
}

#[test]
fn a_socket_is_the_way_to_a_server_that_has_one() {
    let Some(mut server) = or_skip(Server::builder().socket().start()) else { return };
    let asked = "SELECT coalesce(inet_server_addr()::text, 'socket')";
    assert_eq!(server.query(asked).unwrap(), "socket");
    server.kill().unwrap();
    server.start_again().unwrap();
    let database = server.create_database().unwrap();
    assert_eq!(database.query(asked).unwrap(), "socket");
    assert!(database.url().contains("@%2F"), "{}", database.url());

    let Some(without) = or_skip(Server::start()) else { return };
    assert_eq!(without.query(asked).unwrap(), "127.0.0.1/32");
    assert_eq!(without.query("SHOW unix_socket_directories").unwrap(), "");
}

#[test]
fn a_standby_takes_over_and_the_old_primary_comes_back() {
    let Some(mut cluster) = or_skip(Cluster::start(1)) else { return };
    cluster.primary().execute("CREATE TABLE t (n int); INSERT INTO t VALUES (1)").unwrap();
    cluster.wait_until_replayed(1).unwrap();
    assert_eq!(cluster.members()[1].query("SELECT n FROM t").unwrap(), "1");
    assert!(cluster.members()[1].execute("INSERT INTO t VALUES (0)").is_err());

    // What the old primary writes while it does not know of the promotion must go.
    cluster.promote(1).unwrap();
    cluster.members()[0].execute("INSERT INTO t VALUES (-1)").unwrap();
    cluster.kill(0).unwrap();
    cluster.primary().execute("INSERT INTO t VALUES (2)").unwrap();
    assert_eq!(cluster.rewind_as_standby(0).unwrap(), Rejoined::Rewound);
    cluster.wait_until_replayed(0).unwrap();
    assert_eq!(cluster.members()[0].query("SELECT n FROM t ORDER BY n").unwrap(), "1\n2");

    // A standby's own start file keeps pg_rewind from recovering it, so it is copied.
    cluster.kill(0).unwrap();
    assert_eq!(cluster.rewind_as_standby(0).unwrap(), Rejoined::CopiedAnew);
    cluster.wait_until_replayed(0).unwrap();
    assert_eq!(cluster.members()[0].query("SELECT count(*) FROM t").unwrap(), "2");
}

#[test]
fn two_standbys_take_turns_and_nothing_acknowledged_is_lost() {
    let builder = Cluster::builder(2).synchronous("ANY 1 (node0, node1, node2)");
    let Some(mut cluster) = or_skip(builder.start()) else { return };
    cluster.primary().execute("CREATE TABLE t (n int)").unwrap();
    for round in 1..=2 {
        cluster.primary().execute(&format!("INSERT INTO t VALUES ({round})")).unwrap();
        let old = cluster.primary_number();
        cluster.kill(old).unwrap();
        let ahead = cluster.standby_ahead().unwrap();
        assert_ne!(ahead, old);
        cluster.promote(ahead).unwrap();
        let count = "SELECT count(*) FROM t";
        assert_eq!(cluster.primary().query(count).unwrap(), round.to_string());
        // It is synchronous too: this waits for the third member to follow.
        cluster.primary().execute("CREATE TABLE IF NOT EXISTS after_promotion ()").unwrap();
        cluster.rewind_as_standby(old).unwrap();
    }
    let names = "SELECT string_agg(application_name || sync_state, ' ') FROM pg_stat_replication";
    let followers = cluster.primary().query(names).unwrap();
    assert_eq!(followers.matches("quorum").count(), 2, "{followers}");
    assert_eq!(cluster.urls().len(), 3);

    let mut any = cluster.primary().access().psql();
    let asked = any.args([&cluster.url(), "-c", "SHOW transaction_read_only"]);
    let answer = asked.env("PGTARGETSESSIONATTRS", "read-write").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&answer.stdout), "off\n");
}

#[test]
fn a_pooler_hands_each_transaction_on() {
    let Some(server) = or_skip(Server::start()) else { return };
    let Some(mut pooler) = or_skip(Pooler::start(&server)) else { return };
    let database = pooler.access().create_database().unwrap();
    database.execute("CREATE TABLE t AS SELECT 7 AS n").unwrap();
    assert_eq!(database.query("SELECT n FROM t").unwrap(), "7");
    assert_ne!(pooler.url(), server.url());
    let mode = pooler.access().query_in("pgbouncer", "SHOW CONFIG").unwrap();
    assert!(mode.contains("pool_mode|transaction"), "{mode}");

    pooler.kill().unwrap();
    assert!(database.query("SELECT 1").is_err());
    pooler.start_again().unwrap();
    assert_eq!(database.query("SELECT 1").unwrap(), "1");
}

#[test]
fn the_certificate_is_good_for_this_address_only() {
    let Some(server) = or_skip(Server::builder().tls_only().start()) else { return };
    let ca = server.ca().expect("a server with TLS has an authority");
    let ask = |mode: &str, host: &str| {
        let mut psql = server.access().psql();
        psql.env("PGSSLMODE", mode).env("PGSSLROOTCERT", &ca).env("PGHOST", host);
        psql.env("PGHOSTADDR", "127.0.0.1");
        let ssl = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        let output = psql.args(["-c", ssl]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    assert_eq!(ask("verify-full", "127.0.0.1"), "t");
    assert_eq!(ask("verify-full", "localhost"), "t");
    assert_eq!(ask("verify-full", "elsewhere"), "");
    assert_eq!(ask("disable", "127.0.0.1"), "");
}

#[test]
fn a_cluster_offers_tls_everywhere() {
    let Some(cluster) = or_skip(Cluster::builder(1).tls().start()) else { return };
    for member in cluster.members() {
        let mut psql = member.access().psql();
        psql.env("PGSSLMODE", "verify-full").env("PGSSLROOTCERT", member.ca().unwrap());
        assert!(psql.args(["-c", "SELECT"]).output().unwrap().status.success());
    }
}

#[test]
fn nothing_is_left_after_a_drop_or_a_panic() {
    let Some(running) = or_skip(Server::start()) else { return };
    let Some(mut killed) = or_skip(Server::start()) else { return };
    killed.kill().unwrap();
    let Some(paused) = or_skip(Server::start()) else { return };
    paused.pause().unwrap();
    let remains = [&running, &killed, &paused].map(Remains::of);
    assert!(!processes_in(&running.data_directory()).is_empty());
    drop(running);
    drop(killed);
    let panicked = std::thread::spawn(move || {
        let _paused = paused;
        panic!("on purpose");
    });
    assert!(panicked.join().is_err());
    remains.iter().for_each(Remains::assert_none);
}

#[test]
fn nothing_is_left_when_the_tests_are_killed() {
    // Whether PostgreSQL is here at all.
    let Some(_server) = or_skip(Server::start()) else { return };
    kill_victim("is_killed_with_its_server").wait_for_none();
}

#[test]
fn is_killed_with_its_server() {
    live_as_victim();
}
