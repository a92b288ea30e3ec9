//! The traits of `lightning` 0.3.

use std::future::Future;

use lightning_0_3::util::persist::{
    KVStore, KVStoreSync, MigratableKVStore, MigratableKVStoreSync, PageToken, PaginatedKVStore,
    PaginatedKVStoreSync, PaginatedListResponse,
};

use super::adapter;
use crate::{Backend, Namespace, Page, Store};

super::io_error::io_errors!(lightning_0_3::io);

adapter::sync_traits!();

/// Keys in one answer, as many as LDK's own stores give.
///
/// **Source**: `PAGE_SIZE` of lightning-persister 0.3's `FilesystemStoreV2`.
const PAGE_LEN: usize = 50;

impl<B: Backend> KVStore for Store<B> {
    fn read(
        &self,
        primary: &str,
        secondary: &str,
        key: &str,
    ) -> impl Future<Output = Result<Vec<u8>, ldk_io::Error>> + 'static + Send {
        read(self, primary, secondary, key)
    }

    fn write(
        &self,
        primary: &str,
        secondary: &str,
        key: &str,
        buf: Vec<u8>,
    ) -> impl Future<Output = Result<(), ldk_io::Error>> + 'static + Send {
        write(self, primary, secondary, key, buf)
    }

    fn remove(
        &self,
        primary: &str,
        secondary: &str,
        key: &str,
        lazy: bool,
    ) -> impl Future<Output = Result<(), ldk_io::Error>> + 'static + Send {
        remove(self, primary, secondary, key, lazy)
    }

    fn list(
        &self,
        primary: &str,
        secondary: &str,
    ) -> impl Future<Output = Result<Vec<String>, ldk_io::Error>> + 'static + Send {
        list(self, primary, secondary)
    }
}

impl<B: Backend> MigratableKVStoreSync for Store<B> {
    fn list_all_keys(&self) -> Result<Vec<(String, String, String)>, ldk_io::Error> {
        all_keys_blocking(self)
    }
}

impl<B: Backend> MigratableKVStore for Store<B> {
    fn list_all_keys(
        &self,
    ) -> impl Future<Output = Result<Vec<(String, String, String)>, ldk_io::Error>> + 'static + Send
    {
        let entries = self.list_all();
        async move { entries.await.map(oldest_first).map_err(into_io) }
    }
}

impl<B: Backend> PaginatedKVStoreSync for Store<B> {
    fn list_paginated(
        &self,
        primary: &str,
        secondary: &str,
        page_token: Option<PageToken>,
    ) -> Result<PaginatedListResponse, ldk_io::Error> {
        let (namespace, token) = page_names(primary, secondary, page_token).map_err(into_io)?;
        self.page_blocking(&namespace, token.as_ref(), PAGE_LEN).map(response).map_err(into_io)
    }
}

impl<B: Backend> PaginatedKVStore for Store<B> {
    fn list_paginated(
        &self,
        primary: &str,
        secondary: &str,
        page_token: Option<PageToken>,
    ) -> impl Future<Output = Result<PaginatedListResponse, ldk_io::Error>> + 'static + Send {
        let page = page_names(primary, secondary, page_token)
            .map(|(namespace, token)| self.page(&namespace, token.as_ref(), PAGE_LEN));
        async move { page.map_err(into_io)?.await.map(response).map_err(into_io) }
    }
}

fn page_names(
    primary: &str,
    secondary: &str,
    token: Option<PageToken>,
) -> crate::Result<(Namespace, Option<crate::PageToken>)> {
    let token = token.map(|token| token.as_str().parse()).transpose()?;
    Ok((Namespace::new(primary, secondary)?, token))
}

fn response(page: Page) -> PaginatedListResponse {
    PaginatedListResponse {
        keys: page.keys().map(ToString::to_string).collect(),
        next_page_token: page.next.map(|token| PageToken::new(token.to_string())),
    }
}
