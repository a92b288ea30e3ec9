//! A test that runs again in a process of its own, under `strace`.

use std::path::Path;
use std::process::Command;

/// What the traced process is told.
const ROLE: &str = "KVSTORE_TRACED";

/// Whether this is the traced process.
pub(crate) fn is_traced() -> bool {
    std::env::var_os(ROLE).is_some()
}

/// The directory that the traced process works in.
pub(crate) fn directory() -> std::path::PathBuf {
    std::env::var_os(ROLE).unwrap().into()
}

/// Runs the test `name` in a process of its own under `strace` with these arguments and gives what
/// was traced; `None` where that is not possible.
pub(crate) fn run(name: &str, directory: &Path, arguments: &[&str]) -> Option<String> {
    let trace = directory.join("strace");
    let done = Command::new("strace")
        .args(["-f", "-qq", "-y", "-o"])
        .arg(&trace)
        .args(arguments)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(ROLE, directory)
        .output();
    let Some(text) = done.as_ref().ok().and_then(|_| std::fs::read_to_string(&trace).ok()) else {
        println!("SKIPPED: strace is not installed");
        return None;
    };
    let done = done.unwrap();
    let said = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
    if said.contains("ptrace") && !said.contains("test result") {
        println!("SKIPPED: strace may not trace here");
        return None;
    }
    assert!(done.status.success(), "{said}");
    std::fs::remove_file(trace).unwrap();
    Some(text)
}
