//! Our command line tool.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

use crate::expected::{Name, name};

/// The exit code that says that there is no such entry.
const NO_SUCH_ENTRY: i32 = 1;

/// `kvstore`, on one file.
pub(crate) struct Tool {
    url: String,
}

/// A line of `kvstore ls --json`.
pub(crate) struct Entry {
    pub(crate) name: Name,
    pub(crate) bytes: usize,
    pub(crate) created: u64,
}

impl Tool {
    pub(crate) fn for_file(file: &Path) -> Self {
        Self { url: format!("sqlite:{}", file.display()) }
    }

    pub(crate) fn ls(&self) -> Vec<Entry> {
        let output = done(&self.run(&["ls", "--json"], None, &[]));
        let lines = serde_json::Deserializer::from_slice(&output).into_iter::<Value>();
        lines.map(|line| entry(&line.unwrap())).collect()
    }

    /// What `kvstore ls` complains about.
    pub(crate) fn refusal(&self) -> String {
        let output = self.run(&["ls"], None, &[]);
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    }

    pub(crate) fn get(&self, name: &Name) -> Option<Vec<u8>> {
        found(self.run(&["get"], Some(name), &[]))
    }

    pub(crate) fn put(&self, name: &Name, value: &[u8]) {
        done(&self.run(&["put"], Some(name), value));
    }

    /// Whether there was something to remove.
    pub(crate) fn rm(&self, name: &Name) -> bool {
        found(self.run(&["rm"], Some(name), &[])).is_some()
    }

    fn run(&self, command: &[&str], name: Option<&Name>, input: &[u8]) -> Output {
        // After `--`, a key that begins with `-` is not an option.
        let mut process = Command::new(binary());
        process.args(command).arg("--").arg(&self.url);
        process.args(name.map(|(primary, secondary, key)| match primary.as_str() {
            "" => key.clone(),
            _ => format!("{primary}/{secondary}/{key}"),
        }));
        process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = process.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap()
    }
}

fn entry(line: &Value) -> Entry {
    let text = |field: &str| line[field].as_str().unwrap();
    let number = |field: &str| line[field].as_u64().unwrap();
    Entry {
        name: name(text("primary"), text("secondary"), text("key")),
        bytes: number("bytes") as usize,
        created: number("created"),
    }
}

fn found(output: Output) -> Option<Vec<u8>> {
    (output.status.code() != Some(NO_SUCH_ENTRY)).then(|| done(&output))
}

fn done(output: &Output) -> Vec<u8> {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    assert!(said.is_empty(), "{said}");
    output.stdout.clone()
}

/// The tool that `KVSTORE_BIN` names, or a fresh build.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| std::env::var_os("KVSTORE_BIN").map_or_else(build, PathBuf::from))
}

fn build() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = Command::new(env!("CARGO"))
        .args(["build", "--package", "kvstore-cli", "--message-format", "json"])
        .current_dir(workspace)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "`cargo build --package kvstore-cli` failed");
    let messages = serde_json::Deserializer::from_slice(&output.stdout).into_iter::<Value>();
    let executables = messages.map(Result::unwrap).filter_map(|message| {
        let executable = message["executable"].as_str()?;
        (message["target"]["name"] == "kvstore").then(|| PathBuf::from(executable))
    });
    executables.last().expect("the build names its executable")
}
