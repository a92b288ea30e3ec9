//! The traits of `lightning` 0.2.

use lightning_0_2::util::async_poll::AsyncResult;
use lightning_0_2::util::persist::{KVStore, KVStoreSync, MigratableKVStore};

use super::adapter;

super::io_error::io_errors!(lightning_0_2::io);

adapter::sync_traits!();

impl<B: crate::Backend> KVStore for crate::Store<B> {
    fn read(
        &self,
        primary: &str,
        secondary: &str,
        key: &str,
    ) -> AsyncResult<'static, Vec<u8>, ldk_io::Error> {
        Box::pin(read(self, primary, secondary, key))
    }

    fn write(
        &self,
        primary: &str,
        secondary: &str,
        key: &str,
        buf: Vec<u8>,
    ) -> AsyncResult<'static, (), ldk_io::Error> {
        Box::pin(write(self, primary, secondary, key, buf))
    }

    fn remove(
        &self,
        primary: &str,
        secondary: &str,
        key: &str,
        lazy: bool,
    ) -> AsyncResult<'static, (), ldk_io::Error> {
        Box::pin(remove(self, primary, secondary, key, lazy))
    }

    fn list(
        &self,
        primary: &str,
        secondary: &str,
    ) -> AsyncResult<'static, Vec<String>, ldk_io::Error> {
        Box::pin(list(self, primary, secondary))
    }
}

impl<B: crate::Backend> MigratableKVStore for crate::Store<B> {
    fn list_all_keys(&self) -> Result<Vec<(String, String, String)>, ldk_io::Error> {
        all_keys_blocking(self)
    }
}
