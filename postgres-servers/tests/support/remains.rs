//! What could be left of a server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use postgres_servers::Server;

/// What to look for once a server is gone.
#[derive(Debug)]
pub(crate) struct Remains {
    home: PathBuf,
    memory: Option<String>,
}

impl Remains {
    pub(crate) fn of(server: &Server) -> Self {
        Self::of_data(&server.data_directory())
    }

    pub(crate) fn of_data(data: &Path) -> Self {
        let memory = fs::read_to_string(data.join("postmaster.pid")).ok();
        let memory = memory.map(|file| {
            let line = file.lines().nth(6).expect("the seventh line names the shared memory");
            line.split_whitespace().last().expect("its id is there").to_owned()
        });
        Self { home: data.parent().expect("the data are in a directory").to_owned(), memory }
    }

    pub(crate) fn assert_none(&self) {
        assert!(!self.home.exists(), "{} is left", self.home.display());
        assert_eq!(processes_in(&self.home), Vec::<PathBuf>::new());
        let Some(memory) = &self.memory else { return };
        let shown = Command::new("ipcs").arg("-m").output().unwrap();
        let shown = String::from_utf8_lossy(&shown.stdout);
        let is_there = shown.lines().any(|line| line.split_whitespace().nth(1) == Some(memory));
        assert!(!is_there, "shared memory {memory} is left: {shown}");
    }

    /// Nobody tells when the watchdog of a killed process is done.
    pub(crate) fn wait_for_none(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.home.exists() || !processes_in(&self.home).is_empty() {
            assert!(Instant::now() < deadline, "{} is still there", self.home.display());
            std::thread::park_timeout(Duration::from_millis(5));
        }
        self.assert_none();
    }
}

/// The processes that work in a directory or are told its name.
pub(crate) fn processes_in(directory: &Path) -> Vec<PathBuf> {
    let name = directory.to_str().unwrap();
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    processes
        .filter(|process| {
            let works_there =
                fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(directory));
            let arguments = fs::read(process.join("cmdline")).unwrap_or_default();
            works_there || String::from_utf8_lossy(&arguments).contains(name)
        })
        .collect()
}
