//! Servers that the tests of one program share, and places of their own on them.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test program uses some of it"
)]

pub mod load;
pub mod session;

use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_lite::future::{block_on, poll_once};
use kvstore_core::{EntryId, Result, Store};
use kvstore_postgres::{PostgresBackend, PostgresOptions};
use postgres_servers::{Access, Pooler, Server, or_skip};
use session::Session;

/// The server of this test program; `None` where PostgreSQL is not installed. Its watchdog removes
/// it when the program ends.
pub fn server() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    SERVER.get_or_init(|| or_skip(Server::start())).as_ref()
}

/// A pooler in front of that server.
pub fn pooler() -> Option<&'static Pooler> {
    static POOLER: OnceLock<Option<Pooler>> = OnceLock::new();
    POOLER.get_or_init(|| or_skip(Pooler::start(server()?))).as_ref()
}

/// Opens a store.
pub fn open(options: &PostgresOptions) -> Store<PostgresBackend> {
    Store::open(PostgresBackend::open(options).unwrap()).unwrap()
}

/// A read that is under way.
pub type Read = Pin<Box<dyn Future<Output = Result<Option<Vec<u8>>>> + Send>>;

/// Begins a read.
pub fn begin(store: &Store<PostgresBackend>, id: &EntryId) -> Read {
    let mut read: Read = Box::pin(store.get(id));
    match block_on(poll_once(&mut read)) {
        Some(answer) => Box::pin(std::future::ready(answer)),
        None => read,
    }
}

/// A schema of its own, gone with this.
pub struct Place {
    pub schema: String,
    url: String,
    access: Access,
}

impl Place {
    /// A place on the server, reached by `url`.
    pub fn new(url: &str, server: &Server) -> Self {
        static PLACES: AtomicU64 = AtomicU64::new(0);
        let schema = format!("place_{}", PLACES.fetch_add(1, Ordering::Relaxed));
        Self { schema, url: url.to_owned(), access: server.access().clone() }
    }

    /// A place on the server of this program.
    pub fn plain() -> Option<Self> {
        server().map(|server| Self::new(&server.url(), server))
    }

    /// The same, behind the pooler.
    pub fn pooled() -> Option<Self> {
        Some(Self::new(&pooler()?.url(), server()?))
    }

    /// A place with a table as ldk-node makes it.
    pub fn of_ldk_node() -> Option<Self> {
        let place = Self::plain()?;
        let schema = &place.schema;
        place
            .access
            .execute(&format!("CREATE SCHEMA {schema}; {}", ldk_node_table(schema)))
            .unwrap();
        Some(place)
    }

    /// The URL of a store there, with more parameters.
    pub fn url(&self, parameters: &str) -> String {
        let Self { url, schema, .. } = self;
        format!("{url}?table={schema}.ldk_data&application_name={schema}{parameters}")
    }

    /// The server's sessions of stores here, as what follows `SELECT … FROM`.
    pub fn sessions(&self) -> String {
        format!("pg_stat_activity WHERE application_name = '{}'", self.schema)
    }

    pub fn options(&self) -> PostgresOptions {
        PostgresOptions::from_url(&self.url("")).unwrap()
    }

    /// Holds up commits of this key of the load, behind their fence, until the session is dropped;
    /// nothing is changed.
    pub fn hold(&self, key: &str) -> Session {
        let mut session = self.session();
        session.run(&format!(
            "BEGIN; INSERT INTO {}.ldk_data AS entry VALUES ('load', '', '{key}', '', 0)
             ON CONFLICT (primary_namespace, secondary_namespace, key)
             DO UPDATE SET value = entry.value",
            self.schema
        ));
        session
    }

    /// A connection of the test's own.
    pub fn session(&self) -> Session {
        Session::open(&self.access)
    }

    /// Holds up all reads and commits until the session is dropped.
    pub fn lock_table(&self) -> Session {
        let mut session = self.session();
        session.run(&format!("BEGIN; LOCK TABLE {}.ldk_data", self.schema));
        session
    }

    /// Waits until so many sessions of stores here wait for a lock, and gives one of them.
    pub fn wait_for_held(&self, count: usize) -> i32 {
        let held = format!("SELECT pid FROM {} AND wait_event_type = 'Lock'", self.sessions());
        for _ in 0..1500 {
            let found = self.query(&held);
            if found.lines().count() == count {
                return found.lines().next().unwrap().parse().unwrap();
            }
            std::thread::park_timeout(std::time::Duration::from_millis(10));
        }
        let all = "SELECT state, wait_event_type, wait_event, query FROM pg_stat_activity";
        panic!("{count} commits are not held up:\n{}", self.query(all));
    }

    /// Runs statements with the schema in front.
    pub fn query(&self, sql: &str) -> String {
        let mut psql = self.access.psql();
        psql.env("PGOPTIONS", format!("-c search_path={}", self.schema)).args(["-c", sql]);
        let output = psql.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The server may be down.
        let drop = format!(
            "SET client_min_messages = error; DROP SCHEMA IF EXISTS {} CASCADE",
            self.schema
        );
        let _ = self.access.execute(&drop);
    }
}

/// What ldk-node runs for a new table of the schema.
///
/// **Source**: `PostgresStore` of ldk-node's main branch of August 2026.
pub fn ldk_node_table(schema: &str) -> String {
    format!(
        "CREATE TABLE {schema}.ldk_data (
             primary_namespace TEXT NOT NULL,
             secondary_namespace TEXT NOT NULL DEFAULT '',
             key TEXT NOT NULL CHECK (key <> ''),
             value BYTEA,
             sort_order BIGSERIAL CHECK (sort_order >= 0),
             PRIMARY KEY (primary_namespace, secondary_namespace, key));
         COMMENT ON TABLE {schema}.ldk_data IS '1';
         CREATE INDEX idx_ldk_data_paginated ON {schema}.ldk_data
             (primary_namespace, secondary_namespace, sort_order DESC, key ASC);"
    )
}
