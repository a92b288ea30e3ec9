//! The process that is killed: how it lives, and how it dies.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};

use crate::arguments::{Arguments, Release};
use crate::chance::Chance;
use crate::failure::{Context, Failure, Result, ensure};
use crate::place::Place;
use crate::remains::Remains;
use crate::voice::Line;

/// The moment of the kill: after so many payments, and so many lines about writes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) payments: u64,
    pub(crate) lines: u64,
}

impl Moment {
    pub(crate) fn choose(seed: u64) -> Self {
        let mut chance = Chance::from_seed(seed);
        // A payment takes about fifty lines: two for each write of each node.
        Self { payments: 1 + chance.below(12), lines: 1 + chance.below(60) }
    }
}

/// Lives in this process until it is killed.
pub(crate) fn live(arguments: &Arguments) -> Result<()> {
    let (Some(url), Some(seed)) = (&arguments.store, arguments.seed) else {
        return Err(Failure::usage("the process that is killed needs a store and a seed"));
    };
    arguments.ldk.live(&Place::new(url)?, seed)
}

/// Starts the process, listens to it, kills it at the `moment`, and returns what it said.
pub(crate) fn kill(release: Release, url: &str, seed: u64, moment: Moment) -> Result<Remains> {
    let program = std::env::current_exe().context("find this program")?;
    let mut command = Command::new(program);
    command.args(["--victim", "--store", url, "--ldk", release.name()]);
    command.args(["--seed", &seed.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().context("start the nodes' process")?;
    let heard = listen(&mut child, moment);
    // Also when listening failed: nothing may be left running.
    let killed = child.kill().context("kill the nodes' process");
    let status = child.wait().context("wait for the nodes' process")?;
    let (mut remains, rest) = heard?;
    killed?;
    ensure(killed_by_signal_9(status), || format!("the nodes' process ended by itself: {status}"))?;
    // What it said before it died, but nobody had read yet, counts too.
    for line in rest {
        remains.hear(Line::decode(&line?)?)?;
    }
    Ok(remains)
}

/// Reads up to the moment and returns at once.
fn listen(
    child: &mut Child,
    moment: Moment,
) -> Result<(Remains, impl Iterator<Item = Result<String>> + use<>)> {
    let no_pipe = || Failure::new("the nodes' process has no standard output");
    let mut lines = whole_lines(BufReader::new(child.stdout.take().ok_or_else(no_pipe)?));
    let mut remains = Remains::default();
    let mut kill_at = None;
    while let Some(line) = lines.next() {
        remains.hear(Line::decode(&line?)?)?;
        if kill_at.is_none() && remains.ready && remains.paid >= moment.payments {
            kill_at = Some(remains.write_lines + moment.lines);
        }
        if kill_at.is_some_and(|at| remains.write_lines >= at) {
            return Ok((remains, lines));
        }
    }
    Err(Failure::new("the nodes' process ended before the moment of the kill"))
}

/// The lines that end with a line break: the last one may be cut off by the kill.
fn whole_lines(mut output: impl BufRead) -> impl Iterator<Item = Result<String>> {
    std::iter::from_fn(move || {
        let mut line = String::new();
        match output.read_line(&mut line).context("listen to the nodes' process") {
            Ok(_) => line.strip_suffix('\n').map(|whole| Ok(whole.to_owned())),
            Err(failure) => Some(Err(failure)),
        }
    })
}

#[cfg(unix)]
fn killed_by_signal_9(status: ExitStatus) -> bool {
    std::os::unix::process::ExitStatusExt::signal(&status) == Some(9)
}

#[cfg(not(unix))]
fn killed_by_signal_9(status: ExitStatus) -> bool {
    !status.success()
}
