//! Messages from one node to the other, without a network between them.

use bitcoin::secp256k1::PublicKey;

use super::super::lightning::ln::msgs::{
    BaseMessageHandler, ChannelMessageHandler, CommitmentUpdate, Init, MessageSendEvent,
};
use super::node::Node;
use crate::failure::{DebugContext, Failure, Result};

/// Tells a node that its peer is there, which makes it send `channel_reestablish`.
pub(super) fn meet(node: &Node, peer: &Node, inbound: bool) -> Result<()> {
    let features = peer.manager.provided_init_features(node.id);
    let init = Init { features, networks: None, remote_network_address: None };
    node.manager.peer_connected(peer.id, &init, inbound).debug_context("connect the peers")
}

/// Hands `message`, which came from `sender`, to a node.
pub(super) fn deliver(node: &Node, sender: PublicKey, message: MessageSendEvent) -> Result<()> {
    use MessageSendEvent as M;
    let handler = &node.manager;
    match message {
        M::SendOpenChannel { msg, .. } => handler.handle_open_channel(sender, &msg),
        M::SendAcceptChannel { msg, .. } => handler.handle_accept_channel(sender, &msg),
        M::SendFundingCreated { msg, .. } => handler.handle_funding_created(sender, &msg),
        M::SendFundingSigned { msg, .. } => handler.handle_funding_signed(sender, &msg),
        M::SendChannelReady { msg, .. } => handler.handle_channel_ready(sender, &msg),
        M::UpdateHTLCs { updates, .. } => deliver_updates(node, sender, updates),
        M::SendRevokeAndACK { msg, .. } => handler.handle_revoke_and_ack(sender, &msg),
        M::SendChannelReestablish { msg, .. } => {
            handler.handle_channel_reestablish(sender, &msg);
        }
        M::SendChannelUpdate { msg, .. } => handler.handle_channel_update(sender, &msg),
        M::HandleError { action, .. } => {
            return Err(Failure::new(format!("the peer complains: {action:?}")));
        }
        // Gossip and the like, which a private channel can do without.
        _ => {}
    }
    Ok(())
}

fn deliver_updates(node: &Node, sender: PublicKey, updates: CommitmentUpdate) {
    let handler = &node.manager;
    for add in &updates.update_add_htlcs {
        handler.handle_update_add_htlc(sender, add);
    }
    for fulfill in updates.update_fulfill_htlcs {
        handler.handle_update_fulfill_htlc(sender, fulfill);
    }
    for fail in &updates.update_fail_htlcs {
        handler.handle_update_fail_htlc(sender, fail);
    }
    for fail in &updates.update_fail_malformed_htlcs {
        handler.handle_update_fail_malformed_htlc(sender, fail);
    }
    if let Some(fee) = &updates.update_fee {
        handler.handle_update_fee(sender, fee);
    }
    for commitment in &updates.commitment_signed {
        handler.handle_commitment_signed(sender, commitment);
    }
}
