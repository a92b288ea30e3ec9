//! The story as the reader sees it.

use std::io::{Write, stdout};

use crate::failure::{Context, Result};

/// Writes one line of the story.
pub(crate) fn tell(line: &str) -> Result<()> {
    writeln!(stdout(), "{line}").context("write to standard output")
}
