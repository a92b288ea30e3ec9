//! A soak: months of a node's life on one store, at high speed.
//!
//! A channel manager, a network graph, a scorer, 200 channels with their monitors and updates, and
//! payments are written as LDK writes them. Each month ends with a restart and a row of figures:
//! disk, memory, descriptors, files, latencies. The run fails if one passes its bound, or if the
//! store does not hold, byte for byte, what was written.
//!
//! ```text
//! cargo run --example node_life
//! cargo run --example node_life -- --store sqlite:/tmp/node.sqlite --months 1000 --seed 7
//! cargo run --example node_life -- --kills
//! cargo run --example node_life --features node-life/sled -- --store sled:/tmp/node
//! ```

use std::process::ExitCode;

fn main() -> ExitCode {
    node_life::main()
}
