//! Text on the standard output; a closed pipe is not a panic.

use std::io::{self, BufWriter, Write};

use serde::Serialize;

use crate::failure::Failure;

pub struct Output(BufWriter<io::StdoutLock<'static>>);

impl Output {
    pub fn new() -> Self {
        Self(BufWriter::new(io::stdout().lock()))
    }

    pub fn line(&mut self, line: &str) -> Result<(), Failure> {
        writeln!(self.0, "{line}").map_err(failed)
    }

    pub fn json(&mut self, object: &impl Serialize) -> Result<(), Failure> {
        let line = serde_json::to_string(object).map_err(|error| failed(error.into()))?;
        self.line(&line)
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.0.write_all(bytes).map_err(failed)
    }

    pub fn finish(mut self) -> Result<(), Failure> {
        self.0.flush().map_err(failed)
    }
}

fn failed(error: io::Error) -> Failure {
    Failure::Local("standard output".into(), error)
}
