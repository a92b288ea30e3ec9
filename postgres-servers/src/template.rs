//! New data directories.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

use crate::access::USER;
use crate::error::Result;
use crate::home::Home;
use crate::programs::{self, Programs};

/// Made by the first server of this process, since `initdb` takes ten times as long as a copy. It is
/// never dropped, but its watchdog removes it when the process ends.
static TEMPLATE: Mutex<Option<Template>> = Mutex::new(None);

struct Template {
    home: Home,
    password: String,
}

/// Gives `home` the data of a new server, and returns its superuser's password.
pub(crate) fn copy_into(programs: &Programs, home: &Home) -> Result<String> {
    let mut template = TEMPLATE.lock().unwrap_or_else(PoisonError::into_inner);
    let template = match &mut *template {
        Some(template) => template,
        none => none.insert(make(programs)?),
    };
    let mut cp = programs::other("cp", "coreutils", programs.account, home.path())?;
    programs::run(cp.arg("-a").arg(template.home.data()).arg(home.data()))?;
    Ok(template.password.clone())
}

fn make(programs: &Programs) -> Result<Template> {
    let home = Home::make(programs.account)?;
    let password = format!("secret{:016x}", RandomState::new().hash_one(()));
    let file = home.path().join("password");
    home.write(&file, &password)?;
    let mut initdb = programs.command("initdb", home.path())?;
    initdb.arg("-D").arg(home.data()).arg("--pwfile").arg(file).args(["--username", USER]);
    initdb.args(["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]);
    programs::run(&mut initdb)?;
    Ok(Template { home, password })
}
