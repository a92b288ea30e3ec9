//! The tale: kill, check what was acknowledged, and hand over to the recovered nodes.

use crate::arguments::Arguments;
use crate::chance::fresh_seed;
use crate::failure::{Context, Result, ensure};
use crate::ledger::{Found, InFlight};
use crate::place::Place;
use crate::plan::{self, Side};
use crate::remains::Remains;
use crate::report::tell as line;
use crate::victim::{Moment, kill};

/// Tells the whole story.
pub(crate) fn tell(arguments: &Arguments) -> Result<()> {
    #[cfg(feature = "postgres")]
    if arguments.postgres {
        let server = postgres_servers::Server::start().map_err(|error| {
            crate::failure::Failure::usage(format!("cannot start a server: {error}"))
        })?;
        // A short lease: whoever comes after the kill waits for its end.
        tell_at(&Place::new(&format!("{}?lease_ms=3000", server.url()))?, arguments)?;
        return line("  while its server runs: this one ends now, with all that it holds");
    }
    tell_at(&arguments.store.as_deref().map_or_else(Place::temporary, Place::new)?, arguments)
}

fn tell_at(place: &Place, arguments: &Arguments) -> Result<()> {
    place.ensure_empty()?;
    let seed = arguments.seed.unwrap_or_else(fresh_seed);
    let url = place.url(Side::Alice);
    let moment = Moment::choose(seed);
    line(&format!("seed {seed}, LDK {}", arguments.ldk.name()))?;
    let shown = place.shown(Side::Alice);
    line(&format!("alice's store: {shown}"))?;
    line(&format!("bob's store:   {}", place.shown(Side::Bob)))?;
    line(&format!(
        "two LDK nodes pay each other through a channel of {} sat; bob keeps a state that he \
         revoked",
        plan::CHANNEL
    ))?;

    let remains = kill(arguments.ldk, url, seed, moment)?;
    tell_of_the_kill(&remains, moment)?;
    for side in Side::BOTH {
        check_acknowledged(place, side, &remains)?;
    }
    arguments.ldk.recover(place, seed, &remains)?;

    line("every claim holds; look at what was stored with:")?;
    line(&format!("  cargo run -q -p kvstore-cli -- stat '{shown}'"))?;
    line(&format!("  cargo run -q -p kvstore-cli -- ls '{shown}'"))
}

fn tell_of_the_kill(remains: &Remains, moment: Moment) -> Result<()> {
    ensure(!remains.funding.is_empty() && !remains.old.is_empty(), || {
        "the nodes' process did not hand out its transactions".into()
    })?;
    let Moment { payments, lines } = moment;
    line(&format!(
        "killed with signal 9, {lines} beginnings and ends of writes after payment {payments}: {} \
         payments acknowledged, {} begun",
        remains.paid, remains.begun
    ))
}

fn check_acknowledged(place: &Place, side: Side, remains: &Remains) -> Result<()> {
    let ledger = remains.ledger(side);
    let store = place.open(side)?;
    let found = ledger.check(&store).context(&format!("{}'s store", side.name()))?;
    store.close_blocking().context("close the store")?;
    let Found { entries, bytes, in_flight } = found;
    let in_flight = match in_flight {
        None => "no write was in flight",
        Some(InFlight::Old) => "the write in flight is not there",
        Some(InFlight::New) => "the write in flight is there",
    };
    line(&format!(
        "{}: {} writes of {} bytes acknowledged, none lost; {in_flight}; the store \
         holds {entries} entries of {bytes} bytes",
        side.name(),
        ledger.acknowledged(),
        ledger.bytes(),
    ))
}
