//! Medians and their ratios.

use crate::Measured;

/// Figures of one workload, by contestant.
pub struct Report {
    title: String,
    only: String,
    figures: Vec<(&'static str, Vec<f64>)>,
}

impl Report {
    /// Takes the figures of contestants whose name begins with `only`.
    pub fn new(title: String, only: &str) -> Self {
        Self { title, only: only.to_owned(), figures: Vec::new() }
    }

    /// Lets a contestant have its turn.
    pub fn add(
        &mut self,
        contestant: &'static str,
        measure: impl FnOnce() -> Measured,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if !contestant.starts_with(&self.only) {
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
