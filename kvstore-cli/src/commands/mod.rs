//! One file per command.

pub mod get;
pub mod ls;
pub mod put;
pub mod rm;
pub mod stat;

use lightning_kvstore::{DynStore, OpenOptions, StoreUrl, open_with};

use crate::failure::Failure;

/// Runs `command` on the store, and closes it so that a failure to do so is heard.
fn with_store(
    url: &str,
    create: bool,
    command: impl FnOnce(&DynStore) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if !url.parse::<StoreUrl>()?.is_persistent() {
        let message = format!("{url} ends with this command; name a store that is kept");
        return Err(Failure::Usage(message));
    }
    let store = open_with(url, &OpenOptions::default().create(create))?;
    let done = command(&store);
    let closed = store.close_blocking();
    done.and(closed.map_err(Failure::from))
}
