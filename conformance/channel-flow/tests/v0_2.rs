//! LDK's channel flow and migration with `lightning` 0.2.

#![allow(clippy::unwrap_used, reason = "all of this is tests")]

use lightning_0_2 as lightning;

mod shared;

/// What release 0.3 calls by another name.
mod release {
    use std::future::Future;

    use lightning_0_2::events::ClosureReason;
    use lightning_0_2::ln::functional_test_utils::{Node, check_closed_event};
    use lightning_0_2::util::config::UserConfig;
    use lightning_0_2::util::native_async::FutureSpawner;

    use crate::shared::{CHANNEL_SATS, NoSpawner};

    pub(crate) fn user_config() -> Option<UserConfig> {
        None
    }

    /// Expects the one event of a channel with `peer` that was closed.
    pub(crate) fn expect_closed(
        node: &Node<'_, '_, '_>,
        peer: &Node<'_, '_, '_>,
        why: ClosureReason,
    ) {
        check_closed_event(node, 1, why, false, &[peer.node.get_our_node_id()], CHANNEL_SATS);
    }

    impl FutureSpawner for NoSpawner {
        fn spawn<T: Future<Output = ()> + Send + 'static>(&self, _: T) {
            panic!("reading one monitor spawns nothing");
        }
    }
}
