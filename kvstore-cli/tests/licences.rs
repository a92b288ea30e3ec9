//! The licences and sources of all dependencies, as `deny.toml` allows them, where `cargo deny` is not
//! installed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;

const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Runs Cargo as it runs this test.
fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var("CARGO").unwrap_or("cargo".into());
    let output = Command::new(cargo).current_dir(WORKSPACE).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What this machine builds, so that nothing has to be downloaded.
fn packages() -> Vec<Value> {
    let version = cargo(&["-vV"]);
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let arguments = ["metadata", "--locked", "--format-version", "1", "--all-features"];
    let metadata = cargo(&[&arguments[..], &["--filter-platform", host]].concat());
    let mut metadata: Value = serde_json::from_str(&metadata).unwrap();
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let used: BTreeSet<String> = nodes.iter().map(|node| node["id"].to_string()).collect();
    let Value::Array(mut packages) = metadata["packages"].take() else { panic!("no packages") };
    packages.retain(|package| used.contains(&package["id"].to_string()));
    packages
}

/// The strings of the list `name = […]` in `deny.toml`, without comments.
fn listed(name: &str) -> Vec<String> {
    let text = fs::read_to_string(format!("{WORKSPACE}/deny.toml")).unwrap();
    let lines = text.lines().skip_while(|line| *line != format!("{name} = ["));
    let lines = lines.skip(1).take_while(|line| *line != "]");
    let lines = lines.filter(|line| !line.trim_start().starts_with('#'));
    lines.map(str::to_owned).collect()
}

/// Whether an SPDX expression can be satisfied by what is allowed. `/` is an old way to write `OR`.
fn is_allowed(expression: &str, allowed: &dyn Fn(&str) -> bool) -> bool {
    let expression = expression.replace('/', " OR ");
    let (any, all) = (parts(&expression, " OR "), parts(&expression, " AND "));
    if any.len() > 1 {
        return any.iter().any(|part| is_allowed(part, allowed));
    }
    if all.len() > 1 {
        return all.iter().all(|part| is_allowed(part, allowed));
    }
    let licence = expression.trim();
    match licence.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')) {
        Some(inner) => is_allowed(inner, allowed),
        None => allowed(licence),
    }
}

/// Takes an expression apart at an operator that stands outside all parentheses.
fn parts<'a>(expression: &'a str, operator: &str) -> Vec<&'a str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0);
    for (at, character) in expression.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ if depth == 0 && expression[at..].starts_with(operator) => {
                parts.push(&expression[start..at]);
                start = at + operator.len();
            }
            _ => {}
        }
    }
    parts.push(&expression[start..]);
    parts
}

#[test]
fn expressions_are_understood() {
    let allowed = |licence: &str| ["MIT", "Unicode-3.0"].contains(&licence);
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("(GPL-3.0 OR MIT) AND Unicode-3.0", true),
        ("(GPL-3.0 OR MIT) AND ISC", false),
        ("MIT AND (ISC OR Unicode-3.0) OR GPL-3.0", true),
    ] {
        assert_eq!(is_allowed(expression, &allowed), expected, "{expression}");
    }
}

#[test]
fn every_dependency_may_be_used() {
    let allowed = listed("allow");
    let exceptions = listed("exceptions");
    assert!(allowed.iter().any(|line| line.contains("\"MIT\"")), "{allowed:?}");
    let mut wrong = Vec::new();
    for package in packages() {
        let (name, licence) = (package["name"].as_str().unwrap(), package["license"].as_str());
        let is_listed = |licence: &str| {
            let licence = format!("\"{licence}\"");
            let excepted = |line: &&String| line.contains(&format!("crate = \"{name}\""));
            allowed.iter().any(|line| line.trim() == format!("{licence},"))
                || exceptions.iter().filter(excepted).any(|line| line.contains(&licence))
        };
        if !licence.is_some_and(|licence| is_allowed(licence, &is_listed)) && !is_ours(&package) {
            wrong.push(format!("{name}: the licence {licence:?}"));
        }
        if package["source"].as_str().is_some_and(|source| source != CRATES_IO) {
            wrong.push(format!("{name}: from {}", package["source"]));
        }
        for dependency in package["dependencies"].as_array().unwrap() {
            let needs = dependency["name"].as_str().unwrap();
            let is_with_sled = match needs {
                "instant" => ["parking_lot", "parking_lot_core"].contains(&name),
                "fxhash" => name == "sled",
                _ => true,
            };
            let is_built = dependency["optional"] == false && dependency["kind"] != "dev";
            if !is_with_sled && is_built {
                wrong.push(format!("{name}: needs {needs}, which nobody maintains"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A crate of the workspace.
fn is_ours(package: &Value) -> bool {
    package["source"].is_null()
}
