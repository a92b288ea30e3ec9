//! Entries as people write them.

use std::fmt;

use lightning_kvstore::{EntryId, Error, Namespace};

/// Reads `KEY`, `PRIMARY/KEY` or `PRIMARY/SECONDARY/KEY`.
pub fn entry(name: &str) -> Result<EntryId, String> {
    let parts: Vec<&str> = name.split('/').collect();
    let id = match parts[..] {
        [key] => EntryId::new("", "", key),
        [primary, key] => EntryId::new(primary, "", key),
        [primary, secondary, key] => EntryId::new(primary, secondary, key),
        _ => return Err("a name has at most three parts: PRIMARY/SECONDARY/KEY".into()),
    };
    id.map_err(reason)
}

/// What `ls` is asked for: everything under a primary namespace, or one namespace.
#[derive(Clone, Debug)]
pub struct Selection {
    primary: String,
    secondary: Option<String>,
}

/// Reads `PRIMARY` or `PRIMARY/SECONDARY`.
pub fn selection(name: &str) -> Result<Selection, String> {
    let (primary, secondary) = match name.split_once('/') {
        Some((primary, secondary)) => (primary, Some(secondary)),
        None => (name, None),
    };
    Namespace::new(primary, secondary.unwrap_or_default()).map_err(reason)?;
    Ok(Selection { primary: primary.into(), secondary: secondary.map(Into::into) })
}

impl Selection {
    pub fn contains(&self, id: &EntryId) -> bool {
        id.primary() == self.primary
            && self.secondary.as_ref().is_none_or(|secondary| id.secondary() == secondary)
    }
}

fn reason(error: Error) -> String {
    error.message().to_owned()
}

/// Writes an entry in the shortest way that [`entry`] reads back.
pub struct Shown<'a>(pub &'a EntryId);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.primary(), self.0.secondary()) {
            ("", _) => {}
            (primary, "") => write!(f, "{primary}/")?,
            (primary, secondary) => write!(f, "{primary}/{secondary}/")?,
        }
        f.write_str(self.0.key())
    }
}
