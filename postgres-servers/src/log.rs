//! What a server says.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use crate::error::{Error, Result};
use crate::patience::PATIENCE;

/// What a server and its children have said so far, on a pipe that ends when the last of them ends.
#[derive(Debug)]
pub(crate) struct Log(Arc<Heard>);

#[derive(Debug, Default)]
struct Heard {
    so_far: Mutex<SoFar>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct SoFar {
    text: String,
    ended: bool,
}

impl Log {
    /// Listens in a thread of its own, which ends with the pipe.
    pub(crate) fn listen(pipe: impl Read + Send + 'static) -> Self {
        let heard = Arc::<Heard>::default();
        let of_thread = Arc::clone(&heard);
        thread::spawn(move || {
            let mut lines = BufReader::new(pipe);
            let mut line = Vec::new();
            while lines.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                of_thread.change(|so_far| so_far.text.push_str(&String::from_utf8_lossy(&line)));
                line.clear();
            }
            of_thread.change(|so_far| so_far.ended = true);
        });
        Self(heard)
    }

    pub(crate) fn text(&self) -> String {
        self.0.so_far.lock().unwrap_or_else(PoisonError::into_inner).text.clone()
    }

    /// Waits until one of the texts has been said; false if the pipe ended first.
    pub(crate) fn wait_for(&self, texts: &[&str]) -> Result<bool> {
        let said = |text: &str| texts.iter().any(|wanted| text.contains(wanted));
        self.wait_while("the server is ready", |so_far| !so_far.ended && !said(&so_far.text))?;
        Ok(said(&self.text()))
    }

    /// Waits until nobody is left who could say anything.
    pub(crate) fn wait_for_end(&self) -> Result<()> {
        self.wait_while("the server has ended", |so_far| !so_far.ended)
    }

    fn wait_while(&self, what: &str, condition: impl Fn(&SoFar) -> bool) -> Result<()> {
        let so_far = self.0.so_far.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.more.wait_timeout_while(so_far, PATIENCE, |so_far| condition(so_far));
        let (so_far, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if !waited.timed_out() {
            return Ok(());
        }
        Err(Error::Late { what: format!("{what}; it said: {}", so_far.text) })
    }
}

impl Heard {
    fn change(&self, change: impl FnOnce(&mut SoFar)) {
        change(&mut self.so_far.lock().unwrap_or_else(PoisonError::into_inner));
        self.more.notify_all();
    }
}
