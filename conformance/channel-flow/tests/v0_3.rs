//! LDK's channel flow and migration with `lightning` 0.3.

#![allow(clippy::unwrap_used, reason = "all of this is tests")]

use std::sync::Arc;

use channel_flow::{Site, backends};
use futures_lite::future::block_on;
use lightning_0_3 as lightning;
use lightning_0_3::util::persist::migrate_kv_store_data_async;

mod shared;

use shared::{fill, snapshot};

/// What release 0.2 calls by another name.
mod release {
    use std::future::{Future, Ready};

    use lightning_0_3::events::ClosureReason;
    use lightning_0_3::ln::functional_test_utils::{
        Node, check_closed_event, test_legacy_channel_config,
    };
    use lightning_0_3::util::config::UserConfig;
    use lightning_0_3::util::native_async::FutureSpawner;

    use crate::shared::{CHANNEL_SATS, NoSpawner};

    pub(crate) fn user_config() -> Option<UserConfig> {
        Some(test_legacy_channel_config())
    }

    /// Expects the one event of a channel with `peer` that was closed.
    pub(crate) fn expect_closed(
        node: &Node<'_, '_, '_>,
        peer: &Node<'_, '_, '_>,
        why: ClosureReason,
    ) {
        check_closed_event(node, 1, why, &[peer.node.get_our_node_id()], CHANNEL_SATS);
    }

    impl FutureSpawner for NoSpawner {
        type E = ();
        type SpawnedFutureResult<O> = Ready<Result<O, ()>>;

        fn spawn<O: Send + 'static, T: Future<Output = O> + Send + 'static>(
            &self,
            _: T,
        ) -> Ready<Result<O, ()>> {
            panic!("reading one monitor spawns nothing");
        }
    }
}

/// Every pair of backends, through the pointers that nodes hold, and without a runtime.
#[test]
fn async_migration_moves_everything_in_creation_order() {
    let backends = backends();
    for (from, to) in backends.iter().flat_map(|from| backends.iter().map(move |to| (from, to))) {
        let (source_site, target_site) = (Site::new(from).unwrap(), Site::new(to).unwrap());
        let source = Arc::new(source_site.open().unwrap());
        let target = Arc::new(target_site.open().unwrap());
        fill(&source);
        block_on(migrate_kv_store_data_async(&source, &target)).unwrap();
        let target = target_site.reopen((*target).clone()).unwrap();
        assert_eq!(snapshot(&target), snapshot(&source), "{} to {}", from.0, to.0);
    }
}
