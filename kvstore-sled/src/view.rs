//! What readers see: sled's tree without the commit that is on its way to the disk.

use std::collections::BTreeMap;
use std::iter;

use kvstore_core::Result;
use sled::IVec;

use crate::engine::{Engine, read};
use crate::error::engine;

/// The engine, and what hides a commit from readers until it is durable.
///
/// sled shows a change as soon as it is made. A reader that saw one which then went with the power
/// would have seen the future.
pub(crate) struct View {
    pub(crate) engine: Engine,
    /// What every changed key held before. It stays after a commit that is in doubt.
    pub(crate) before: BTreeMap<Vec<u8>, Option<IVec>>,
}

impl View {
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<IVec>> {
        match self.before.get(key) {
            Some(before) => Ok(before.clone()),
            None => read(self.engine.tree(), key),
        }
    }

    /// The keys from `start` on that begin with `prefix`, and their values.
    pub(crate) fn scan<'a>(
        &'a self,
        start: &[u8],
        prefix: &'a [u8],
    ) -> impl Iterator<Item = Result<(IVec, IVec)>> + 'a {
        let mut tree = self.engine.tree().range(start..).peekable();
        let mut before = self.before.range(start.to_vec()..).peekable();
        let mut next = move || {
            loop {
                let live = match tree.peek() {
                    Some(Ok((key, _))) => Some(key),
                    Some(Err(_)) => return tree.next(),
                    None => None,
                };
                let Some((key, value)) =
                    before.next_if(|(key, _)| live.is_none_or(|live| key.as_slice() <= &live[..]))
                else {
                    return tree.next();
                };
                tree.next_if(|live| live.as_ref().is_ok_and(|(live, _)| live == key));
                if let Some(value) = value {
                    return Some(Ok((IVec::from(key.as_slice()), value.clone())));
                }
            }
        };
        iter::from_fn(move || {
            let found = next()?.map_err(|source| engine("list", source));
            found.map(|found| found.0.starts_with(prefix).then_some(found)).transpose()
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    /// O2, R1: what is not durable is neither read nor listed, and what it removes still is.
    #[test]
    fn a_commit_on_its_way_is_hidden() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("db"), "").unwrap();
        let open = kvstore_core::local::Directory::open(directory.path()).unwrap();
        let engine = Engine::start(open, 1 << 20).unwrap();
        for (key, value) in [("va", "new"), ("vb", "kept"), ("vd", "added"), ("w", "other")] {
            engine.tree().insert(key, value).unwrap();
        }
        let before = |key: &str, value: Option<&str>| (key.into(), value.map(IVec::from));
        let before = [
            before("va", Some("old")),
            before("vc", Some("removed")),
            before("vd", None),
            before("ve", None),
            before("vf", Some("removed")),
            before("wx", Some("other")),
        ];
        let view = View { engine, before: before.into() };
        let listed = |start: &str| -> Vec<(String, String)> {
            let text = |bytes: IVec| String::from_utf8(bytes.to_vec()).unwrap();
            let found = view.scan(start.as_bytes(), b"v").map(Result::unwrap);
            found.map(|(key, value)| (text(key), text(value))).collect()
        };
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let all =
            [pair("va", "old"), pair("vb", "kept"), pair("vc", "removed"), pair("vf", "removed")];
        assert_eq!(listed("v"), all);
        assert_eq!(listed("vb"), all[1..]);
        assert_eq!(view.get(b"va").unwrap().unwrap(), "old");
        assert_eq!(view.get(b"vb").unwrap().unwrap(), "kept");
        assert_eq!(view.get(b"vd").unwrap(), None);
    }
}
