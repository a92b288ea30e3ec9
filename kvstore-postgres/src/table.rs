//! The names of the tables, checked once and quoted.

use kvstore_core::{ErrorKind, Result};

use crate::error::error;

/// PostgreSQL cuts names longer than 63 bytes; this leaves room for `idx_…_paginated`.
const NAME_MAX_LEN: usize = 63 - "idx__paginated".len();

/// The entries' table and what belongs to it. All names are quoted identifiers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    /// As the user wrote it, which is also what ldk-node's lock is named after.
    pub(crate) text: String,
    /// The schema, if the user named one.
    pub(crate) schema: Option<String>,
    pub(crate) data: String,
    pub(crate) index: String,
    pub(crate) lease: String,
    pub(crate) fence: String,
}

impl Table {
    /// Takes `name` or `schema.name`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let (schema, name) = match text.split_once('.') {
            Some((schema, name)) => (Some(schema), name),
            None => (None, text),
        };
        for part in schema.into_iter().chain([name]) {
            check(part)?;
        }
        let schema = schema.map(|schema| format!("\"{schema}\""));
        let of = |name: String| match &schema {
            Some(schema) => format!("{schema}.\"{name}\""),
            None => format!("\"{name}\""),
        };
        Ok(Self {
            text: text.to_owned(),
            data: of(name.to_owned()),
            index: format!("\"idx_{name}_paginated\""),
            lease: of(format!("{name}_lease")),
            fence: of(format!("{name}_fence")),
            schema,
        })
    }
}

/// As ldk-node uses them without quotes, where capitals would be folded.
fn check(name: &str) -> Result<()> {
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    let goes_on = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if starts && name.chars().all(goes_on) && name.len() <= NAME_MAX_LEN {
        return Ok(());
    }
    let message = format!(
        "{name:?} is no name for a table or schema: at most {NAME_MAX_LEN} of a-z 0-9 _, not \
         beginning with a digit"
    );
    Err(error(ErrorKind::InvalidInput, "open", message))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_and_checked() {
        let table = Table::parse("node_1.ldk_data").unwrap();
        assert_eq!(table.data, "\"node_1\".\"ldk_data\"");
        assert_eq!(table.lease, "\"node_1\".\"ldk_data_lease\"");
        assert_eq!(table.index, "\"idx_ldk_data_paginated\"");
        assert_eq!(Table::parse("ldk_data").unwrap().fence, "\"ldk_data_fence\"");
        let long = "a".repeat(NAME_MAX_LEN + 1);
        for bad in ["", ".", "a.", ".a", "a.b.c", "A", "1a", "a-b", "a\"b", "a;b", "é", &long] {
            let refused = Table::parse(bad).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{bad}");
        }
    }
}
