//! What a server says about itself, and what a session is told first.

use tokio_postgres::SimpleQueryMessage;

/// What a server says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerInfo {
    /// The host and port, as the URL names it.
    pub host: String,
    /// PostgreSQL's version as a number, such as 150018.
    pub version: u32,
    /// Whether the server flushes at all; with `false` a loss of power there loses what was
    /// acknowledged, and can leave a damaged database.
    pub fsync: bool,
    /// Whether torn pages are mended after a loss of power; `false` is safe only on a file system
    /// that cannot tear them.
    pub full_page_writes: bool,
    /// Which standbys a commit waits for; empty if for none.
    pub synchronous_standby_names: String,
    pub(crate) synchronous_commit: String,
    pub(crate) read_only: bool,
    /// When it was started, which tells it from another one behind the same name.
    started: String,
}

impl ServerInfo {
    /// Reads the answer to [`setup`].
    pub(crate) fn of(host: &str, said: &[SimpleQueryMessage]) -> Self {
        let last = said.iter().rev().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let setting = |at| last.and_then(|row| row.get(at)).unwrap_or_default();
        Self {
            host: host.to_owned(),
            // What is not known is not taken for granted.
            read_only: setting(0) != "off",
            synchronous_commit: setting(1).to_owned(),
            fsync: setting(2) != "off",
            full_page_writes: setting(3) != "off",
            synchronous_standby_names: setting(4).to_owned(),
            version: setting(5).parse().unwrap_or_default(),
            started: setting(ASKED.len()).to_owned(),
        }
    }

    /// Whether it is the same server, and was not started again meanwhile.
    pub(crate) fn is(&self, other: &Self) -> bool {
        (&self.host, &self.started) == (&other.host, &other.started)
    }

    /// Tells of settings that break what is promised.
    pub(crate) fn warn(&self) {
        let host = &self.host;
        if !self.fsync {
            tracing::warn!(
                host,
                "fsync is off on this server: a loss of power there loses acknowledged writes; \
                 turn it on"
            );
        }
        if !self.full_page_writes {
            tracing::warn!(host, "full_page_writes is off on this server; turn it on");
        }
    }
}

/// Sets what the session needs, where there is one of our own, and asks how the server is.
pub(crate) fn setup(synchronous_commit: Option<&str>) -> String {
    let settings = synchronous_commit.map_or(String::new(), |synchronous_commit| {
        let settings = [
            ("synchronous_commit", synchronous_commit),
            // That a commit did not reach its standbys is a warning.
            ("client_min_messages", "warning"),
            // A role may have its own of these; a commit is never given up for being slow.
            ("default_transaction_isolation", "read committed"),
            ("statement_timeout", "0"),
            ("transaction_timeout", "0"),
            ("lock_timeout", "0"),
            ("idle_session_timeout", "0"),
            // Half of a statement keeps its locks until the server sees that its client is gone.
            ("idle_in_transaction_session_timeout", "15000"),
            ("tcp_keepalives_idle", "5"),
            ("tcp_keepalives_interval", "2"),
            ("tcp_keepalives_count", "3"),
            ("tcp_user_timeout", "10000"),
            // Statistics come later than entries; a plan from before must not read the whole table.
            ("enable_seqscan", "off"),
            ("enable_bitmapscan", "off"),
            ("enable_sort", "off"),
            ("enable_hashjoin", "off"),
            ("enable_mergejoin", "off"),
            ("jit", "off"),
            ("plan_cache_mode", "force_generic_plan"),
        ];
        let rows: Vec<_> =
            settings.iter().map(|(name, value)| format!("('{name}', '{value}')")).collect();
        // Older servers do not know all of them.
        format!(
            "SELECT set_config(name, value, false) FROM (VALUES {}) AS wanted (name, value) \
             WHERE current_setting(name, true) IS NOT NULL; ",
            rows.join(", ")
        )
    });
    let asked = ASKED.map(|name| format!("current_setting('{name}')")).join(", ");
    format!("{settings}SELECT {asked}, pg_postmaster_start_time()")
}

const ASKED: [&str; 6] = [
    "transaction_read_only",
    "synchronous_commit",
    "fsync",
    "full_page_writes",
    "synchronous_standby_names",
    "server_version_num",
];
