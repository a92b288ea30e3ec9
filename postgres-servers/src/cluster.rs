//! A primary and its standbys.

use std::cmp::Reverse;

use crate::access;
use crate::error::{Error, Result};
use crate::patience::until;
use crate::server::{Server, ServerBuilder};

/// A primary and its standbys, which stream from it. Member 0 starts as the primary.
#[derive(Debug)]
pub struct Cluster {
    members: Vec<Server>,
    primary: usize,
}

/// How an old primary came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejoined {
    /// `pg_rewind` took back what only it had.
    Rewound,
    /// That was not possible, so it threw its data away for a copy of the primary's.
    CopiedAnew,
}

/// What a cluster is to be like.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until it starts a cluster"]
pub struct ClusterBuilder {
    standbys: usize,
    server: ServerBuilder,
}

impl ClusterBuilder {
    /// Sets `synchronous_standby_names` on all members, so that it holds after a promotion too.
    /// Members are called `node0`, `node1` and so on: `"ANY 1 (node0, node1, node2)"`.
    pub fn synchronous(mut self, names: &str) -> Self {
        self.server = self.server.setting("synchronous_standby_names", names);
        self
    }

    /// Sets anything that `postgresql.conf` knows, on all members.
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.server = self.server.setting(name, value);
        self
    }

    /// Offers TLS on all members, with the same certificate.
    pub fn tls(mut self) -> Self {
        self.server = self.server.tls();
        self
    }

    /// Starts the members, and returns when all standbys are streaming.
    ///
    /// # Errors
    ///
    /// As [`ServerBuilder::start`].
    pub fn start(self) -> Result<Cluster> {
        // What pg_rewind needs, and WAL enough for a standby that was away for a while.
        let server = self.server.setting("wal_log_hints", "on").setting("wal_keep_size", "512MB");
        let mut cluster = Cluster { members: vec![server.start()?], primary: 0 };
        for member in 1..=self.standbys {
            let standby = Server::standby_of(cluster.primary(), &Cluster::name_of(member))?;
            cluster.members.push(standby);
        }
        (1..=self.standbys).try_for_each(|member| cluster.wait_until_streaming(member))?;
        Ok(cluster)
    }
}

/// Members are counted from 0.
///
/// # Panics
///
/// Every method that takes a member panics if there is none of that number.
impl Cluster {
    /// Starts a primary with so many standbys, which it does not wait for.
    ///
    /// # Errors
    ///
    /// As [`ServerBuilder::start`].
    pub fn start(standbys: usize) -> Result<Self> {
        Self::builder(standbys).start()
    }

    /// For a cluster with settings of its own.
    pub fn builder(standbys: usize) -> ClusterBuilder {
        ClusterBuilder { standbys, server: Server::builder() }
    }

    /// The name under which a member streams.
    #[must_use]
    pub fn name_of(member: usize) -> String {
        format!("node{member}")
    }

    /// All members, whatever their role.
    #[must_use]
    pub fn members(&self) -> &[Server] {
        &self.members
    }

    /// A member, for what can be done to any server.
    pub fn member_mut(&mut self, member: usize) -> &mut Server {
        &mut self.members[member]
    }

    /// The member that was made primary last, running or not.
    #[must_use]
    pub fn primary(&self) -> &Server {
        &self.members[self.primary]
    }

    /// Its number.
    #[must_use]
    pub fn primary_number(&self) -> usize {
        self.primary
    }

    /// The URL of each member.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.members.iter().map(Server::url).collect()
    }

    /// One URL that names all members.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of(access::DATABASE)
    }

    /// One URL that names all members, for another database.
    #[must_use]
    pub fn url_of(&self, database: &str) -> String {
        let servers: Vec<_> = self.members.iter().map(Server::access).collect();
        access::url(&servers, database)
    }

    /// As [`Server::kill`].
    ///
    /// # Errors
    ///
    /// As [`Server::kill`].
    pub fn kill(&mut self, member: usize) -> Result<()> {
        self.members[member].kill()
    }

    /// The standby that has received most: the one to promote when the primary is gone.
    ///
    /// # Errors
    ///
    /// `NotRunning` if no standby answers.
    pub fn standby_ahead(&self) -> Result<usize> {
        if self.primary().pid().is_none() {
            self.standbys().try_for_each(|standby| self.wait_until_all_is_received(standby))?;
        }
        let received = self.standbys().filter_map(|standby| {
            let position = received_by(&self.members[standby])?;
            // Of those that are level, the first.
            Some((position, Reverse(standby)))
        });
        received.max().map(|(_, Reverse(standby))| standby).ok_or(Error::NotRunning)
    }

    /// Makes a standby the primary, and the other standbys follow it. Does nothing to the old one.
    ///
    /// # Errors
    ///
    /// `Failed` if it is not a standby.
    pub fn promote(&mut self, member: usize) -> Result<()> {
        self.members[member].execute("SELECT pg_promote(true, 60)")?;
        // Without the old primary, which may be paused and would keep us waiting.
        let others: Vec<_> = self.standbys().filter(|&standby| standby != member).collect();
        self.primary = member;
        for standby in others {
            if received_by(&self.members[standby]).is_some() {
                self.follow_primary(standby)?;
                self.members[standby].reload()?;
            }
        }
        Ok(())
    }

    /// Brings an old primary back as a standby, and waits until it streams. Kills it if it runs.
    ///
    /// # Errors
    ///
    /// `Failed` or `Ended` when not even a new copy helps.
    pub fn rewind_as_standby(&mut self, member: usize) -> Result<Rejoined> {
        let source = self.primary().access().clone();
        // A primary tells of its promotion only after a checkpoint, and pg_rewind would see nothing.
        source.execute("CHECKPOINT")?;
        let old = &mut self.members[member];
        if old.is_running()? {
            old.kill()?;
        }
        let rejoined = match old.rewind(&source) {
            Err(Error::Failed { .. }) => {
                old.copy_anew(&source)?;
                Rejoined::CopiedAnew
            }
            rewound => rewound.map(|()| Rejoined::Rewound)?,
        };
        self.follow_primary(member)?;
        self.members[member].start_again()?;
        self.wait_until_streaming(member)?;
        Ok(rejoined)
    }

    /// Waits until the primary sees a standby streaming.
    ///
    /// # Errors
    ///
    /// `Late` with the standby's log after a minute.
    pub fn wait_until_streaming(&self, standby: usize) -> Result<()> {
        let name = Self::name_of(standby);
        let streaming = format!(
            "SELECT FROM pg_stat_replication WHERE application_name = '{name}' AND state = 'streaming'"
        );
        let count = format!("SELECT count(*) FROM ({streaming}) AS streaming");
        until(&format!("{name} streams"), || {
            Ok((self.primary().query(&count)? != "0").then_some(()))
        })
        .map_err(|error| self.with_log_of(standby, error))
    }

    /// Waits until a standby shows all that the primary has committed by now.
    ///
    /// # Errors
    ///
    /// `Late` with the standby's log after a minute.
    pub fn wait_until_replayed(&self, standby: usize) -> Result<()> {
        let target = self.primary().query("SELECT pg_current_wal_lsn()")?;
        let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{target}'::pg_lsn");
        until(&format!("{} replays {target}", Self::name_of(standby)), || {
            Ok((self.members[standby].query(&replayed)? == "t").then_some(()))
        })
        .map_err(|error| self.with_log_of(standby, error))
    }

    /// What a killed primary has sent may still be on its way: a standby that receives it after it
    /// was asked would be ahead of the promoted one, and could not follow it.
    fn wait_until_all_is_received(&self, standby: usize) -> Result<()> {
        let receiving = "SELECT count(*) FROM pg_stat_wal_receiver";
        until(&format!("{} has received all", Self::name_of(standby)), || {
            let receivers = self.members[standby].query(receiving).unwrap_or_default();
            Ok((receivers != "1").then_some(()))
        })
    }

    fn standbys(&self) -> impl Iterator<Item = usize> + use<> {
        let primary = self.primary;
        (0..self.members.len()).filter(move |&member| member != primary)
    }

    fn follow_primary(&self, member: usize) -> Result<()> {
        self.members[member].follow(self.primary().access(), &Self::name_of(member))
    }

    fn with_log_of(&self, member: usize, error: Error) -> Error {
        match error {
            Error::Late { what } => {
                Error::Late { what: format!("{what}; it said: {}", self.members[member].log()) }
            }
            error => error,
        }
    }
}

/// How far a standby has received, in bytes; nothing if it is no standby or does not answer.
fn received_by(server: &Server) -> Option<u64> {
    server.pid()?;
    let position = "coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0'::pg_lsn";
    let answer = server.query(&format!("SELECT {position} WHERE pg_is_in_recovery()")).ok()?;
    answer.parse().ok()
}
