//! What stands in for the world around the nodes: mempool, fee estimator, log and blocks.

use std::sync::{Mutex, PoisonError};

use bitcoin::block::{Header, Version};
use bitcoin::constants::genesis_block;
use bitcoin::hashes::Hash;
use bitcoin::{Block, CompactTarget, Network, Transaction, TxMerkleNode};

use super::super::lightning::chain::chaininterface::{ConfirmationTarget, FeeEstimator};
use super::super::lightning::util::logger::{Logger, Record};

/// Keeps what a node broadcasts until someone takes it.
#[derive(Default)]
pub(crate) struct Broadcaster {
    collected: Mutex<Vec<Transaction>>,
}

impl Broadcaster {
    pub(crate) fn collect(&self, transaction: &Transaction) {
        let mut collected = self.collected.lock().unwrap_or_else(PoisonError::into_inner);
        collected.push(transaction.clone());
    }

    pub(crate) fn take(&self) -> Vec<Transaction> {
        std::mem::take(&mut *self.collected.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A fee that never changes.
pub(crate) struct Fees;

impl FeeEstimator for Fees {
    fn get_est_sat_per_1000_weight(&self, _: ConfirmationTarget) -> u32 {
        253
    }
}

/// Says nothing: every claim is checked by other means.
pub(crate) struct Log;

impl Logger for Log {
    fn log(&self, _: Record<'_>) {}
}

/// Blocks that both processes build alike from the same transactions.
#[derive(Clone)]
pub(crate) struct Chain {
    blocks: Vec<Block>,
}

impl Chain {
    pub(crate) fn new() -> Self {
        Self { blocks: vec![genesis_block(Network::Regtest)] }
    }

    /// The blocks above `height`, each with its own height.
    pub(crate) fn above(&self, height: u32) -> impl Iterator<Item = (u32, &Block)> {
        (0..).zip(&self.blocks).skip(height as usize + 1)
    }

    /// Adds a block with these transactions, and then empty ones until there are `count`.
    pub(crate) fn mine(&mut self, transactions: Vec<Transaction>, count: u32) {
        let mut transactions = Some(transactions);
        for _ in 0..count {
            let last = &self.blocks[self.blocks.len() - 1].header;
            let header = Header {
                version: Version::NO_SOFT_FORK_SIGNALLING,
                prev_blockhash: last.block_hash(),
                merkle_root: TxMerkleNode::all_zeros(),
                time: last.time + 600,
                bits: CompactTarget::from_consensus(42),
                nonce: 42,
            };
            self.blocks.push(Block { header, txdata: transactions.take().unwrap_or_default() });
        }
    }
}
