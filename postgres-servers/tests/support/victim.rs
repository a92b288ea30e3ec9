//! A process that is killed while it has a server.

use std::env;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use postgres_servers::Server;

use super::Remains;

const VICTIM: &str = "POSTGRES_SERVERS_VICTIM";
const DATA: &str = "the data are in ";

/// In the process that is to be killed: starts a server and waits for the end. Else does nothing.
pub(crate) fn live_as_victim() {
    if env::var_os(VICTIM).is_none() {
        return;
    }
    let server = Server::start().unwrap();
    println!("\n{DATA}{}", server.data_directory().display());
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

/// Runs the test of this name in a process of its own and kills that; gives what could be left.
pub(crate) fn kill_victim(test: &str) -> Remains {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(VICTIM, "1");
    let mut victim = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines().map_while(Result::ok);
    let data = lines.find_map(|line| line.strip_prefix(DATA).map(PathBuf::from));
    let remains = Remains::of_data(&data.expect("the victim has a server"));
    victim.kill().unwrap();
    victim.wait().unwrap();
    remains
}
