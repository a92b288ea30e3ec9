//! A run: month after month on one store, with a restart after each.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use lightning_kvstore::DynStore;

use crate::arguments::Arguments;
use crate::bounds::{self, Bounds};
use crate::failure::{Context, Result};
use crate::life::Node;
use crate::location::Location;
use crate::measure;
use crate::model::Model;
use crate::names;
use crate::random::{Random, fresh_seed};
use crate::report::{self, line};
use crate::sample::{EntryFiles, Sample};
use crate::verify::{self, Pages};
use crate::writer::{Latencies, Writer, lock};
use crate::{scale, victim};

/// Lives on the store that the arguments name, or on a directory and then on an SQLite file.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if let Some(url) = &arguments.store {
        return run_at(&Location::named(url)?, arguments);
    }
    // Both, whatever becomes of the first.
    let directory = run_and_clean_up(Location::temporary("fs")?, arguments);
    if let Err(failure) = &directory {
        line(&format!("failed: {failure}"))?;
    }
    run_and_clean_up(Location::temporary("sqlite")?, arguments).and(directory)
}

/// Removes the store unless a check failed.
fn run_and_clean_up(location: Location, arguments: &Arguments) -> Result<()> {
    let done =
        run_at(&location, arguments).map_err(|failure| failure.during(&location.url.to_string()));
    if done.is_err() {
        location.keep();
    }
    done
}

fn run_at(location: &Location, arguments: &Arguments) -> Result<()> {
    let since = Instant::now();
    location.ensure_empty()?;
    let seed = arguments.seed.unwrap_or_else(fresh_seed);
    line(&format!("{}, {} months, seed {seed}", location.url, arguments.months))?;
    report::head()?;
    let mut run = Run::new(location, arguments, seed);
    for month in 1..=arguments.months {
        run.month(month)?;
    }
    run.end()?;
    line(&format!("every check holds, after {:.1} s", since.elapsed().as_secs_f64()))
}

struct Run<'a> {
    location: &'a Location,
    kills: bool,
    bounds: Bounds,
    node: Node,
    model: Mutex<Model>,
    /// Decides what is checked and when a process is killed.
    random: Random,
    /// The open store, if it ends with the process.
    kept_open: Option<DynStore>,
    second: Option<Sample>,
    /// The last batch of the killed processes that the model holds, and the last acknowledged one.
    adopted: u64,
    acknowledged: u64,
}

impl<'a> Run<'a> {
    fn new(location: &'a Location, arguments: &Arguments, seed: u64) -> Self {
        let bounds = bounds::of(location.url.scheme());
        Self {
            location,
            kills: arguments.kills && location.url.is_persistent(),
            bounds: if arguments.zero_slack { bounds.zero_slack() } else { bounds },
            node: Node::new(seed),
            model: Mutex::default(),
            random: Random::from_seed(!seed),
            kept_open: None,
            second: None,
            adopted: 0,
            acknowledged: 0,
        }
    }

    /// Opens the store, lives a month, measures, closes and checks the bounds.
    fn month(&mut self, month: u64) -> Result<()> {
        let (store, opening) = self.open()?;
        let latencies = self.live(&store)?;
        let scheme = self.location.url.scheme();
        let open = measure::disk(&self.location.url)?;
        let process = measure::process();
        let (live, entry_files) = {
            let model = lock(&self.model);
            (model.totals(), EntryFiles::of(scheme, &model))
        };
        let closing = self.close(store)?;
        let closed = measure::disk(&self.location.url)?;
        let sample =
            Sample { month, live, entry_files, open, closed, process, opening, closing, latencies };
        report::row(&sample)?;
        self.bounds.check(&sample, self.second.as_ref())?;
        if month == 2 {
            self.second = Some(sample);
        }
        if self.kills {
            self.acknowledged = victim::kill(self.location, &mut self.random)?;
        }
        Ok(())
    }

    /// Opens the store and checks a sample of it.
    fn open(&mut self) -> Result<(DynStore, Duration)> {
        let (store, opening) = match self.kept_open.take() {
            Some(store) => (store, Duration::ZERO),
            None => self.location.open()?,
        };
        let mut model = lock(&self.model);
        victim::adopt(&store, &mut model, &mut self.adopted, self.acknowledged)?;
        verify::sample(&store, &model, &mut self.random)
            .map_err(|failure| failure.during("check a sample after opening"))?;
        drop(model);
        Ok((store, opening))
    }

    fn live(&mut self, store: &DynStore) -> Result<Latencies> {
        let node = &mut self.node;
        let mut latencies = Writer::run(store, &self.model, |writer| node.begin_month(writer))?;
        for _ in 0..scale::HOURS {
            let hour = Writer::run(store, &self.model, |writer| node.hour(writer))?;
            latencies = latencies.max(hour);
            let payments = names::payment(1)?.namespace();
            verify::pages(store, &lock(&self.model), &payments, Pages::Newest)?;
        }
        Ok(latencies)
    }

    fn close(&mut self, store: DynStore) -> Result<Duration> {
        if !self.location.url.is_persistent() {
            self.kept_open = Some(store);
            return Ok(Duration::ZERO);
        }
        let since = Instant::now();
        store.close_blocking().context("close the store")?;
        Ok(since.elapsed())
    }

    /// Checks everything.
    fn end(mut self) -> Result<()> {
        let (store, _) = self.open()?;
        let model = lock(&self.model);
        verify::everything(&store, &model)?;
        verify::pages(&store, &model, &names::payment(1)?.namespace(), Pages::All)?;
        store.close_blocking().context("close the store")
    }
}
