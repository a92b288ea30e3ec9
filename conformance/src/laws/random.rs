//! Random operations against the model.

use std::env;

use kvstore_core::{Batch, Namespace, PageToken, QueueOptions, Store, Ticket};
use proptest::test_runner::{Config, RngSeed, TestError, TestRunner};

use crate::strategies::{Names, Operation, operations};
use crate::support::{controlled, fresh_seed, id, namespace};
use crate::{Control, Controlled, Fixture, Model};

/// Sequences of puts, removes, batches and reopenings leave what the model holds: values, lists,
/// pages and creation order.
///
/// Runs with a fixed seed and with a fresh one, which is printed: `CONFORMANCE_SEED` repeats it.
/// `CONFORMANCE_CASES` sets how many sequences there are of each, 40 by default.
pub fn random_operations_agree_with_the_model<F: Fixture>() {
    let number = |name| env::var(name).ok().and_then(|text: String| text.parse().ok());
    let cases = number("CONFORMANCE_CASES").unwrap_or(40);
    let fresh = number("CONFORMANCE_SEED").unwrap_or_else(fresh_seed);
    for seed in [20_261_123, fresh] {
        run_cases::<F>(seed, u32::try_from(cases).unwrap_or(u32::MAX));
    }
}

fn run_cases<F: Fixture>(seed: u64, cases: u32) {
    let config = Config {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..Config::default()
    };
    let names = F::new().tricky_names();
    let result = TestRunner::new(config).run(&operations(names), |operations| {
        run::<F>(&operations);
        Ok(())
    });
    match result {
        Ok(()) => {}
        Err(TestError::Fail(reason, operations)) => {
            panic!("{reason}\nwith CONFORMANCE_SEED={seed} and {operations:#?}")
        }
        Err(TestError::Abort(reason)) => panic!("{reason} with CONFORMANCE_SEED={seed}"),
    }
}

fn run<F: Fixture>(operations: &[Operation]) {
    let store_at = F::new();
    let mut run = Run::<F>::new(&store_at);
    for operation in operations {
        run.step(&store_at, operation);
    }
    run.compare(3);
    run.store = None;
    run.open(&store_at);
    run.compare(2);
}

struct Run<F: Fixture> {
    store: Option<Store<Controlled<F::Backend>>>,
    control: Control,
    names: Names,
    model: Model,
    tickets: Vec<Ticket>,
}

impl<F: Fixture> Run<F> {
    fn step(&mut self, store_at: &F, operation: &Operation) {
        match operation {
            Operation::Put(id, value) => {
                self.tickets.push(self.store().put(id, value.clone()));
                self.model.put(id, value);
            }
            Operation::Gather => self.control.hold(),
            Operation::PutBlocking(id, value) => {
                self.control.release();
                self.store().put_blocking(id, value.clone()).unwrap();
                self.model.put(id, value);
            }
            Operation::Remove(id) => {
                self.tickets.push(self.store().remove(id));
                self.model.remove(id);
            }
            Operation::RemoveLazy(id) => {
                self.store().remove_lazy(id).unwrap();
                self.model.remove(id);
            }
            Operation::Batch(mutations) => {
                let mut batch = Batch::new();
                for (id, value) in mutations {
                    match value {
                        Some(value) => {
                            self.model.put(id, value);
                            batch = batch.put(id, value.clone());
                        }
                        None => {
                            self.model.remove(id);
                            batch = batch.remove(id);
                        }
                    }
                }
                self.tickets.push(self.store().submit(batch));
            }
            Operation::Compare(limit) => self.compare(*limit),
            Operation::Reopen { close } => {
                self.control.release();
                if *close {
                    self.store().close_blocking().unwrap();
                }
                // Dropping the last handle closes too, and commits what was submitted.
                self.store = None;
                for ticket in std::mem::take(&mut self.tickets) {
                    ticket.wait().unwrap();
                }
                self.open(store_at);
            }
        }
    }

    fn new(store_at: &F) -> Self {
        let (control, store) = controlled(store_at, QueueOptions::default());
        let names = store_at.tricky_names();
        Self { store: Some(store), control, names, model: Model::default(), tickets: Vec::new() }
    }

    fn open(&mut self, store_at: &F) {
        let (control, store) = controlled(store_at, QueueOptions::default());
        (self.control, self.store) = (control, Some(store));
    }

    fn store(&self) -> &Store<Controlled<F::Backend>> {
        self.store.as_ref().expect("a run has a store between its steps")
    }

    fn compare(&mut self, limit: usize) {
        self.control.release();
        // In the order that is least like the one of the submissions.
        for ticket in std::mem::take(&mut self.tickets).into_iter().rev() {
            ticket.wait().unwrap();
        }
        for (primary, secondary, key) in self.names.clone() {
            let entry = id(primary, secondary, key);
            let found = self.store().get_blocking(&entry).unwrap();
            assert_eq!(found.as_deref(), self.model.get(&entry), "{entry}");
            let names = namespace(primary, secondary);
            let expected = self.model.keys(&names);
            let listed = self.store().list_blocking(&names).unwrap();
            assert_eq!(listed.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
            assert_eq!(self.walk(&names, limit), expected, "pages of {names}");
        }
        let listed = self.store().list_all_blocking().unwrap();
        let mut listed: Vec<_> =
            listed.into_iter().map(|entry| (entry.id, entry.value_len)).collect();
        listed.sort();
        assert_eq!(listed, self.model.all());
    }

    fn walk(&self, names: &Namespace, limit: usize) -> Vec<String> {
        let (mut found, mut token): (_, Option<PageToken>) = (Vec::new(), None);
        loop {
            let page =
                self.store().page_with_values_blocking(names, token.as_ref(), limit).unwrap();
            for entry in &page.entries {
                let expected = self.model.get(&names.entry(entry.key()));
                assert_eq!(entry.value.as_deref(), expected);
                found.push(entry.key().to_string());
            }
            token = page.next;
            if token.is_none() {
                return found;
            }
        }
    }
}
