//! Medians and their ratios.

use crate::{Done, Measured};

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Filter {
    /// Measure only workloads whose title begins like this, for example `W2, 64 asynchronous
    /// writers, a burst`.
    #[arg(long, default_value = "")]
    workload: String,
    /// Measure only contestants whose name begins like this; may be given several times.
    #[arg(long)]
    only: Vec<String>,
}

impl Filter {
    /// Whether a contestant has turns at all.
    pub fn takes(&self, contestant: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| contestant.starts_with(only))
    }
}

/// Figures of one workload, by contestant.
pub struct Report {
    title: String,
    filter: Filter,
    figures: Vec<(String, Vec<f64>)>,
}

impl Report {
    /// Takes the figures of contestants that pass the filter; `None` if the workload does not.
    pub fn new(title: String, filter: &Filter) -> Option<Self> {
        let filter = filter.clone();
        title.starts_with(&filter.workload).then(|| Self { title, filter, figures: Vec::new() })
    }

    /// Lets a contestant have its turn.
    pub fn add(&mut self, contestant: &str, measure: impl FnOnce() -> Measured) -> Done {
        if !self.filter.takes(contestant) {
            return Ok(());
        }
        let figure = measure()?;
        match self.figures.iter_mut().find(|(name, _)| name == contestant) {
            Some((_, figures)) => figures.push(figure),
            None => self.figures.push((contestant.into(), vec![figure])),
        }
        Ok(())
    }

    /// Prints the medians, each with its ratio to those of the `references`.
    pub fn print(&self, references: &[&str]) {
        if self.figures.is_empty() {
            return;
        }
        println!("\n{}", self.title);
        let width = self.figures.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        print!("{:<width$} {:>10}", "", "per second");
        references.iter().for_each(|name| print!(" to {name}"));
        println!();
        for (name, _) in &self.figures {
            let own = self.median(name);
            print!("{name:<width$} {own:>10.0}");
            for other in references {
                let ratio = own / self.median(other);
                print!(" {ratio:>width$.2}", width = "to ".len() + other.len());
            }
            println!();
        }
    }

    fn median(&self, contestant: &str) -> f64 {
        let figures = self.figures.iter().find(|(name, _)| name == contestant);
        let mut figures = figures.map(|(_, figures)| figures.clone()).unwrap_or_default();
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
    }
}
