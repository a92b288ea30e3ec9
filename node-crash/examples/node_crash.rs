//! The main job with real LDK nodes: kill, recover, punish.
//!
//! Two LDK nodes open a channel and pay each other, with all their state in a store. Their process
//! is killed with SIGKILL at a random moment. Then everything that was acknowledged must be there,
//! the nodes go on paying, and an old state that Bob kept is punished by the recovered Alice.
//!
//! ```text
//! cargo run --example node_crash
//! cargo run --example node_crash -- --seed 7 --store sqlite:/tmp/alice.sqlite
//! cargo run --example node_crash --features ldk-0-3 -- --ldk 0.3
//! cargo run --example node_crash --features postgres -- --postgres
//! ```

use std::process::ExitCode;

fn main() -> ExitCode {
    node_crash::main()
}
