//! What the releases have in common: their traits differ, their names and errors do not.

/// Implements `KVStoreSync`, and the functions that the other traits are made of, for the release
/// whose traits and `ldk_io` are in scope.
macro_rules! sync_traits {
    () => {
        fn read<B: crate::Backend>(
            store: &crate::Store<B>,
            primary: &str,
            secondary: &str,
            key: &str,
        ) -> impl Future<Output = Result<Vec<u8>, ldk_io::Error>> + Send + use<B> {
            let read = crate::EntryId::new(primary, secondary, key).map(|id| (store.get(&id), id));
            async move {
                let (value, id) = read.map_err(into_io)?;
                value.await.map_err(into_io)?.ok_or_else(|| not_found(&id))
            }
        }

        fn write<B: crate::Backend>(
            store: &crate::Store<B>,
            primary: &str,
            secondary: &str,
            key: &str,
            value: Vec<u8>,
        ) -> impl Future<Output = Result<(), ldk_io::Error>> + Send + use<B> {
            let ticket =
                crate::EntryId::new(primary, secondary, key).map(|id| store.put(&id, value));
            async move { ticket.map_err(into_io)?.await.map_err(into_io) }
        }

        fn remove<B: crate::Backend>(
            store: &crate::Store<B>,
            primary: &str,
            secondary: &str,
            key: &str,
            lazy: bool,
        ) -> impl Future<Output = Result<(), ldk_io::Error>> + Send + use<B> {
            let removed = crate::EntryId::new(primary, secondary, key).and_then(|id| {
                if lazy {
                    store.remove_lazy(&id).map(|()| None)
                } else {
                    Ok(Some(store.remove(&id)))
                }
            });
            async move {
                match removed.map_err(into_io)? {
                    Some(ticket) => ticket.await.map_err(into_io),
                    None => Ok(()),
                }
            }
        }

        fn list<B: crate::Backend>(
            store: &crate::Store<B>,
            primary: &str,
            secondary: &str,
        ) -> impl Future<Output = Result<Vec<String>, ldk_io::Error>> + Send + use<B> {
            let keys = crate::Namespace::new(primary, secondary).map(|names| store.list(&names));
            async move { keys.map_err(into_io)?.await.map(texts).map_err(into_io) }
        }

        fn texts(keys: Vec<crate::Key>) -> Vec<String> {
            keys.iter().map(ToString::to_string).collect()
        }

        /// In creation order, so that a migration that follows the list keeps it (contract L5).
        fn oldest_first(mut entries: Vec<crate::EntryInfo>) -> Vec<(String, String, String)> {
            // Pages show entries of one number by rising key, and the newest first.
            entries.sort_by(|a, b| (a.created, &b.id).cmp(&(b.created, &a.id)));
            let names = |id: &crate::EntryId| {
                (id.primary().to_string(), id.secondary().to_string(), id.key().to_string())
            };
            entries.iter().map(|entry| names(&entry.id)).collect()
        }

        fn all_keys_blocking<B: crate::Backend>(
            store: &crate::Store<B>,
        ) -> Result<Vec<(String, String, String)>, ldk_io::Error> {
            store.list_all_blocking().map(oldest_first).map_err(into_io)
        }

        impl<B: crate::Backend> KVStoreSync for crate::Store<B> {
            fn read(
                &self,
                primary: &str,
                secondary: &str,
                key: &str,
            ) -> Result<Vec<u8>, ldk_io::Error> {
                let id = crate::EntryId::new(primary, secondary, key).map_err(into_io)?;
                self.get_blocking(&id).map_err(into_io)?.ok_or_else(|| not_found(&id))
            }

            fn write(
                &self,
                primary: &str,
                secondary: &str,
                key: &str,
                buf: Vec<u8>,
            ) -> Result<(), ldk_io::Error> {
                let id = crate::EntryId::new(primary, secondary, key).map_err(into_io)?;
                self.put_blocking(&id, buf).map_err(into_io)
            }

            fn remove(
                &self,
                primary: &str,
                secondary: &str,
                key: &str,
                lazy: bool,
            ) -> Result<(), ldk_io::Error> {
                let id = crate::EntryId::new(primary, secondary, key).map_err(into_io)?;
                let removed = if lazy { self.remove_lazy(&id) } else { self.remove_blocking(&id) };
                removed.map_err(into_io)
            }

            fn list(&self, primary: &str, secondary: &str) -> Result<Vec<String>, ldk_io::Error> {
                let namespace = crate::Namespace::new(primary, secondary).map_err(into_io)?;
                self.list_blocking(&namespace).map(texts).map_err(into_io)
            }
        }
    };
}

pub(super) use sync_traits;
