//! LDK's store with a voice: says each write before it begins and after it is acknowledged.

use lightning_kvstore::{DynStore, EntryId};

use super::super::lightning::io;
use super::super::lightning::util::persist::KVStoreSync;
use crate::failure::Failure;
use crate::plan::Side;
use crate::voice::{Deed, Line};

/// One node's store, which may say its writes on standard output.
pub(crate) struct Recorder {
    side: Side,
    pub(crate) store: DynStore,
    speaks: bool,
}

impl Recorder {
    pub(crate) fn speaking(side: Side, store: DynStore) -> Self {
        Self { side, store, speaks: true }
    }

    pub(crate) fn silent(side: Side, store: DynStore) -> Self {
        Self { side, store, speaks: false }
    }

    fn recorded(
        &self,
        names: [&str; 3],
        deed: impl FnOnce() -> Deed,
        write: impl FnOnce() -> Result<(), io::Error>,
    ) -> Result<(), io::Error> {
        if !self.speaks {
            return write();
        }
        let [primary, secondary, key] = names;
        let id = EntryId::new(primary, secondary, key).map_err(into_io)?;
        Line::Begin(self.side, id, deed()).say().map_err(failed)?;
        write()?;
        Line::Acknowledged(self.side).say().map_err(failed)
    }
}

fn into_io(error: lightning_kvstore::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error.to_string())
}

fn failed(failure: Failure) -> io::Error {
    io::Error::new(io::ErrorKind::Other, failure.to_string())
}

impl KVStoreSync for Recorder {
    fn read(&self, primary: &str, secondary: &str, key: &str) -> Result<Vec<u8>, io::Error> {
        KVStoreSync::read(&self.store, primary, secondary, key)
    }

    fn write(
        &self,
        primary: &str,
        secondary: &str,
        key: &str,
        value: Vec<u8>,
    ) -> Result<(), io::Error> {
        let deed = Deed::put(&value);
        self.recorded(
            [primary, secondary, key],
            || deed,
            || KVStoreSync::write(&self.store, primary, secondary, key, value),
        )
    }

    fn remove(
        &self,
        primary: &str,
        secondary: &str,
        key: &str,
        lazy: bool,
    ) -> Result<(), io::Error> {
        let deed = || if lazy { Deed::RemoveLazily } else { Deed::Remove };
        self.recorded([primary, secondary, key], deed, || {
            KVStoreSync::remove(&self.store, primary, secondary, key, lazy)
        })
    }

    fn list(&self, primary: &str, secondary: &str) -> Result<Vec<String>, io::Error> {
        KVStoreSync::list(&self.store, primary, secondary)
    }
}
