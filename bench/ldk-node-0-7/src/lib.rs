//! Checks that a user of ldk-node 0.7 can come to our SQLite store, and go back, with one file.
//!
//! The tests open one file by turns with ldk-node's published `SqliteStore` and with our command
//! line tool, which runs as a process of its own: the two link different SQLite libraries. They
//! build the tool from the workspace two folders up, or use the one that the environment variable
//! `KVSTORE_BIN` names.
