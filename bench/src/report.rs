//! Medians and their ratios.

use crate::Measured;

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Filter {
    /// Measure only workloads whose title begins like this, for example `W2, 64 asynchronous
    /// writers, a burst`.
    #[arg(long, default_value = "")]
    workload: String,
    /// Measure only contestants whose name begins like this, for profiles.
    #[arg(long, default_value = "")]
    only: String,
}

/// Figures of one workload, by contestant.
pub struct Report {
    title: String,
    filter: Filter,
    figures: Vec<(&'static str, Vec<f64>)>,
}

impl Report {
    /// Takes the figures of contestants that pass the filter, if the workload does.
    pub fn new(title: String, filter: &Filter) -> Self {
        Self { title, filter: filter.clone(), figures: Vec::new() }
    }

    /// Lets a contestant have its turn.
    pub fn add(
        &mut self,
        contestant: &'static str,
        measure: impl FnOnce() -> Measured,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let Filter { workload, only } = &self.filter;
        if !self.title.starts_with(workload) || !contestant.starts_with(only) {
            return Ok(());
        }
        let figure = measure()?;
        match self.figures.iter_mut().find(|(name, _)| *name == contestant) {
            Some((_, figures)) => figures.push(figure),
            None => self.figures.push((contestant, vec![figure])),
        }
        Ok(())
    }

    /// Prints the medians, each with its ratio to those of the `references`.
    pub fn print(&self, references: &[&str]) {
        if self.figures.is_empty() {
            return;
        }
        println!("\n{}", self.title);
        print!("{:<20} {:>10}", "", "writes/s");
        references.iter().for_each(|name| print!(" {:>18}", format!("to {name}")));
        println!();
        for (name, _) in &self.figures {
            let own = self.median(name);
            print!("{name:<20} {own:>10.0}");
            references.iter().for_each(|other| print!(" {:>18.2}", own / self.median(other)));
            println!();
        }
    }

    fn median(&self, contestant: &str) -> f64 {
        let figures = self.figures.iter().find(|(name, _)| *name == contestant);
        let mut figures = figures.map(|(_, figures)| figures.clone()).unwrap_or_default();
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
    }
}
