//! Runs the example as a user does, over every backend that outlives a process.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Every backend whose store survives the process, as the URL of a store in a directory.
const BACKENDS: &[(&str, &str)] = &[
    ("sqlite", "sqlite:{}/alice.sqlite"),
    ("sqlite-table", "sqlite:{}/alice.sqlite?table=node"),
    ("fs", "fs:{}/alice"),
    ("fs-v1", "fs:{}/alice?layout=v1"),
    ("sled", "sled:{}/alice"),
];

const FIXED_SEEDS: [u64; 2] = [1, 2];

/// What a story that went well says.
const KEY_LINES: &[&str] = &[
    "killed with signal 9",
    "alice: ",
    "bob: ",
    "none lost",
    "alice is back",
    "bob is back",
    "the channel lives",
    "the balance is right",
    "LDK refuses to start: DangerousValue",
    "there is no penalty",
    "take all 3 outputs",
    "all scripts verified",
    "every claim holds",
    "kvstore-cli -- stat",
];

/// The example lies beside the test: `target/PROFILE/deps/kill-…`, `target/PROFILE/examples/…`.
fn example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let name = format!("node_crash{}", std::env::consts::EXE_SUFFIX);
    let example = profile.join("examples").join(name);
    assert!(example.exists(), "build it first: cargo build -p node-crash --example node_crash");
    example
}

fn run(arguments: &[&str]) -> Output {
    Command::new(example()).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The fixed seeds and fresh ones, of which `NODE_CRASH_SEEDS` says how many; one by default.
fn seeds() -> Vec<u64> {
    let count = std::env::var("NODE_CRASH_SEEDS").map_or(1, |count| count.parse().unwrap());
    let nanoseconds = std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
    let fresh = (0..count).map(|n: u64| 1_000 + u64::from(nanoseconds) + n);
    FIXED_SEEDS.into_iter().chain(fresh).collect()
}

/// On a server of its own, which the example starts itself.
#[cfg(feature = "postgres")]
#[test]
fn every_claim_holds_on_postgres() {
    let Some(server) = postgres_servers::or_skip(postgres_servers::Server::start()) else { return };
    let releases = [
        "0.2",
        #[cfg(feature = "ldk-0-3")]
        "0.3",
    ];
    for (release, seed) in
        releases.into_iter().flat_map(|r| seeds().into_iter().map(move |s| (r, s)))
    {
        println!("postgres, LDK {release}, seed {seed}");
        let url = format!("{}?lease_ms=2000&table=seed_{seed}", server.url());
        let release_table = format!("{url}_{}", release.replace('.', "_"));
        check_story(release, &release_table, seed);
    }
    let own = run(&["--postgres", "--seed", "3"]);
    assert!(own.status.success(), "{}", text(&own.stderr));
    assert!(text(&own.stdout).contains("every claim holds"));
}

fn tell_every_story(release: &str) {
    for (backend, url) in BACKENDS {
        for seed in seeds() {
            println!("{backend}, LDK {release}, seed {seed}");
            tell_story(release, url, seed);
        }
    }
}

fn tell_story(release: &str, url: &str, seed: u64) {
    let directory = tempfile::tempdir().unwrap();
    check_story(release, &url.replace("{}", &directory.path().display().to_string()), seed);
}

fn check_story(release: &str, url: &str, seed: u64) {
    let arguments = ["--store", url, "--seed", &seed.to_string(), "--ldk", release];
    let output = run(&arguments);
    let (story, complaint) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "seed {seed}:\n{story}\n{complaint}");
    for line in KEY_LINES {
        assert!(story.contains(line), "seed {seed}: no {line:?} in\n{story}");
    }
    assert!(!story.contains("secret"), "it shows the password:\n{story}");
    // The recovered store is in use now, so nothing may write over it.
    let again = run(&arguments);
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).contains("already holds"));
}

#[cfg(feature = "ldk-0-2")]
#[test]
fn every_claim_holds_with_ldk_0_2() {
    tell_every_story("0.2");
}

#[cfg(feature = "ldk-0-3")]
#[test]
fn every_claim_holds_with_ldk_0_3() {
    tell_every_story("0.3");
}

#[test]
fn a_store_that_dies_with_the_process_is_refused() {
    let output = run(&["--store", "memory:"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("cannot survive a process that is killed"));
}

#[test]
fn wrong_usage_ends_with_2() {
    for arguments in [&["--store", "redis:x"], &["--seed", "many"], &["--ldk", "0.1"]] {
        assert_eq!(run(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn two_seeds_kill_at_different_moments() {
    let moment = |seed: &str| {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}/alice.sqlite", directory.path().display());
        let story = text(&run(&["--store", &url, "--seed", seed]).stdout);
        let killed = story.lines().find(|line| line.starts_with("killed")).map(str::to_owned);
        killed.unwrap_or_else(|| panic!("no kill in\n{story}"))
    };
    assert_ne!(moment("4"), moment("5"));
}
