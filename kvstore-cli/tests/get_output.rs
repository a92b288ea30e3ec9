//! `kvstore get -o FILE`: the file is whole, durable and private, whatever was there.

#![cfg(unix)]
#![cfg(any(feature = "fs", feature = "sqlite", feature = "sled"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

const VALUE: &[u8] = b"the state of a channel";

struct Place {
    directory: TempDir,
    url: String,
}

impl Place {
    /// A store with one entry, of the first backend that this build has.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let scheme = match (cfg!(feature = "sqlite"), cfg!(feature = "fs")) {
            (true, _) => "sqlite",
            (false, true) => "fs",
            (false, false) => "sled",
        };
        let url = format!("{scheme}:{}/store", directory.path().display());
        fs::create_dir(directory.path().join("out")).unwrap();
        let place = Self { directory, url };
        let value = place.directory.path().join("value");
        fs::write(&value, VALUE).unwrap();
        let put = kvstore(&["put", &place.url, "k", value.to_str().unwrap()]);
        assert!(put.status.success(), "{put:?}");
        place
    }

    fn out(&self, name: &str) -> PathBuf {
        self.directory.path().join("out").join(name)
    }

    fn get(&self, output: &Path) -> (i32, String) {
        let output = kvstore(&["get", &self.url, "k", "-o", output.to_str().unwrap()]);
        assert!(output.stdout.is_empty());
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    /// Nothing is left beside what was asked for.
    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.directory.path().join("out")).unwrap();
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<_> = names.map(|entry| name(entry).into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn kvstore(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kvstore")).args(arguments).output().unwrap()
}

#[test]
fn a_file_that_is_there_is_replaced_as_a_whole() {
    let place = Place::new();
    let (file, other) = (place.out("file"), place.out("other"));
    fs::write(&file, "old and longer than what is to come").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    // Another name of the old file, as somebody has it open who reads it.
    fs::hard_link(&file, &other).unwrap();
    assert_eq!(place.get(&file), (0, String::new()));
    assert_eq!(fs::read(&file).unwrap(), VALUE);
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::read(&other).unwrap(), b"old and longer than what is to come");
    assert_eq!(place.names(), ["file", "other"]);
}

#[test]
fn a_link_is_not_followed_and_a_directory_not_replaced() {
    let place = Place::new();
    let (link, target) = (place.out("link"), place.out("target"));
    fs::write(&target, "a thesis").unwrap();
    symlink(&target, &link).unwrap();
    let (code, says) = place.get(&link);
    assert_eq!(code, 3);
    assert!(says.contains("link: it is a symbolic link"), "{says}");
    assert_eq!(fs::read(&target).unwrap(), b"a thesis");
    let directory = place.out("directory");
    fs::create_dir(&directory).unwrap();
    assert_eq!(place.get(&directory).0, 3);
    let (code, says) = place.get(&place.out("absent/file"));
    assert_eq!(code, 3);
    assert!(says.contains("No such file"), "{says}");
    assert_eq!(place.names(), ["directory", "link", "target"]);
}

#[test]
fn pipes_and_devices_are_written_to() {
    let place = Place::new();
    assert_eq!(place.get(Path::new("/dev/null")), (0, String::new()));
    let output = kvstore(&["get", &place.url, "k", "-o", "/dev/stdout"]);
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), VALUE), "{output:?}");
    let pipe = place.out("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let read = std::thread::spawn({
        let pipe = pipe.clone();
        move || {
            let mut bytes = Vec::new();
            fs::File::open(pipe).unwrap().read_to_end(&mut bytes).unwrap();
            bytes
        }
    });
    assert_eq!(place.get(&pipe), (0, String::new()));
    assert_eq!(read.join().unwrap(), VALUE);
    assert_eq!(place.names(), ["pipe"]);
}

/// A disk that is full leaves the old file and nothing else; a limit of the shell plays it.
#[test]
fn a_failure_leaves_the_old_file() {
    let place = Place::new();
    let (file, large) = (place.out("file"), place.directory.path().join("large"));
    fs::write(&large, vec![7; 12 << 20]).unwrap();
    let put = kvstore(&["put", &place.url, "large", large.to_str().unwrap()]);
    assert!(put.status.success(), "{put:?}");
    fs::write(&file, "old").unwrap();
    // Files of up to 10 MiB, in blocks of 512 bytes: enough to open the store.
    let line = "trap '' XFSZ; ulimit -f 20480; exec \"$0\" get \"$1\" large -o \"$2\"";
    let output = Command::new("sh")
        .args(["-c", line, env!("CARGO_BIN_EXE_kvstore"), &place.url])
        .arg(&file)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("out/file: "), "{output:?}");
    assert_eq!(fs::read(&file).unwrap(), b"old");
    assert_eq!(place.names(), ["file"]);
}

/// Whatever has the name that was our process's before is not ours to remove.
#[test]
fn files_of_other_processes_are_left_alone() {
    let place = Place::new();
    let line = "echo other >\"$2/.kvstore-get.$$\"; exec \"$0\" get \"$1\" k -o \"$2/file\"";
    let output = Command::new("sh")
        .args(["-c", line, env!("CARGO_BIN_EXE_kvstore"), &place.url])
        .arg(place.out(""))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::read(place.out("file")).unwrap(), VALUE);
    let names = place.names();
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(fs::read(place.out(&names[0])).unwrap(), b"other\n");
}

/// A file that is mounted into a container cannot be replaced, which only root can set up.
#[cfg(target_os = "linux")]
#[test]
#[allow(clippy::print_stdout, reason = "a skipped test says so")]
fn a_mount_point_is_named_as_the_cause() {
    let place = Place::new();
    let (file, source) = (place.out("file"), place.directory.path().join("source"));
    fs::write(&file, "").unwrap();
    fs::write(&source, "mounted").unwrap();
    let mount = |program: &str, paths: &[&Path]| {
        let arguments = if program == "mount" { &["--bind"][..] } else { &["-l"] };
        let run = Command::new(program).args(arguments).args(paths).output();
        run.is_ok_and(|output| output.status.success())
    };
    if !mount("mount", &[&source, &file]) {
        println!("SKIPPED: a file cannot be mounted here");
        return;
    }
    let (code, says) = place.get(&file);
    assert!(mount("umount", &[&file]));
    assert_eq!(code, 3);
    assert!(says.contains("a mount point") && says.contains("leave out -o"), "{says}");
    assert_eq!(fs::read(&source).unwrap(), b"mounted");
    assert_eq!(place.names(), ["file"]);
}

/// Nor can a file in a directory that is closed to us, unless we are root, who may everything.
#[test]
#[allow(clippy::print_stdout, reason = "a skipped test says so")]
fn a_directory_that_is_closed_is_named_as_the_cause() {
    let place = Place::new();
    let directory = place.out("");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o500)).unwrap();
    let is_closed = fs::write(place.out("tried"), "").is_err();
    let result = place.get(&place.out("file"));
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).unwrap();
    if !is_closed {
        println!("SKIPPED: this user may write everywhere");
        return;
    }
    assert_eq!(result.0, 3);
    assert!(result.1.contains("may not create") && result.1.contains("leave out -o"), "{result:?}");
}
