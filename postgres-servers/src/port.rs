//! Ports that nobody listens on.

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};

use crate::error::Result;
use crate::patience::until;

/// Below the range from which systems take the ports of outgoing connections: else a client could
/// sit on the port of a server that is down for a moment.
const LOWEST: u64 = 11_000;
const COUNT: u64 = 20_000;

/// A port that was free a moment ago.
pub(crate) fn free() -> Result<u16> {
    until("a port is free", || {
        let random = RandomState::new().hash_one(());
        let port = (LOWEST + random % COUNT) as u16;
        Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok().map(|_| port))
    })
}
