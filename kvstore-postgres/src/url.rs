//! From a URL to options.

use std::path::PathBuf;
use std::time::Duration;

use kvstore_core::{Error, Result};
use tokio_postgres::Config;
use tokio_postgres::config::Host;

use crate::options::invalid;
use crate::{PostgresOptions, RootCertificates, SynchronousCommit, TlsMode, Wait};

/// Our parameters of a URL. What is not among them is left to tokio-postgres.
const PARAMETERS: &str = "table, sslmode, sslrootcert, owner, lease_ms, renewal_ms, retry_ms, \
                          wait_ms, pooler, readers, synchronous_commit";

impl PostgresOptions {
    /// Reads a URL as libpq takes it, `postgres://[USER[:PASSWORD]@]HOST[:PORT][,…]/DATABASE`, with
    /// parameters behind a question mark: those of libpq that tokio-postgres knows, and these:
    ///
    /// | parameter | option |
    /// |---|---|
    /// | `table=[SCHEMA.]NAME` | [`table`](Self::table) |
    /// | `sslmode=disable\|prefer\|require\|verify-ca\|verify-full` | [`tls`](Self::tls) |
    /// | `sslrootcert=PATH\|system` | [`root_certificates`](Self::root_certificates) |
    /// | `owner=NAME` | [`owner`](Self::owner) |
    /// | `lease_ms`, `renewal_ms`, `retry_ms` | [`lease`](Self::lease), [`renewal`](Self::renewal), [`retry_budget`](Self::retry_budget) |
    /// | `wait_ms=MILLISECONDS\|forever` | [`wait`](Self::wait) |
    /// | `pooler=true` | [`pooler`](Self::pooler) |
    /// | `readers=NUMBER` | [`readers`](Self::readers) |
    /// | `synchronous_commit=on\|remote_apply` | [`synchronous_commit`](Self::synchronous_commit) |
    /// | `connect_timeout=SECONDS` | [`connect_timeout`](Self::connect_timeout) |
    ///
    /// A host that begins with `/` is the directory of a server's Unix-domain socket, as in
    /// `postgres:///DATABASE?host=/run/postgresql`; `sslmode` is not for it.
    ///
    /// As with libpq, a password that the URL does not name is taken from the variable
    /// `PGPASSWORD`; so it need not stand where a list of processes shows it.
    ///
    /// # Errors
    /// [`InvalidInput`](kvstore_core::ErrorKind::InvalidInput), without showing the password.
    pub fn from_url(url: &str) -> Result<Self> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        // tokio-postgres would take all before it for the user, and show that.
        if query.contains('@') {
            return Err(invalid("an @ in a parameter has to be written as %40".into()));
        }
        let mut own = Vec::new();
        let mut others = Vec::new();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            if PARAMETERS.split(", ").any(|known| known == name) {
                if own.iter().any(|(earlier, _)| *earlier == name) {
                    return Err(invalid(format!("the parameter {name:?} stands there twice")));
                }
                own.push((name, decode(value)?));
            } else {
                others.push(parameter);
            }
        }
        let config = parse_config(&format!("{base}?{}", others.join("&")))?;
        let mut options = Self::new(config);
        for (name, value) in &own {
            options.set(name, value)?;
        }
        options.check()?;
        Ok(options)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let wrong =
            |takes: &str| invalid(format!("{name} does not take {value:?}; it takes {takes}"));
        let milliseconds = || {
            let number = value.parse().map_err(|_| wrong("a number of milliseconds"))?;
            Ok::<_, Error>(Duration::from_millis(number))
        };
        match name {
            "table" => self.table = value.to_owned(),
            "sslmode" => {
                let takes = "disable, prefer, require, verify-ca or verify-full";
                self.tls = TlsMode::parse(value).ok_or_else(|| wrong(takes))?;
            }
            "sslrootcert" if value == "system" => {
                self.root_certificates = RootCertificates::System;
            }
            "sslrootcert" => self.root_certificates = RootCertificates::File(PathBuf::from(value)),
            "owner" => self.owner = Some(value.to_owned()),
            "lease_ms" => self.lease = milliseconds()?,
            "renewal_ms" => self.renewal = milliseconds()?,
            "retry_ms" => self.retry_budget = milliseconds()?,
            "wait_ms" if value == "forever" => self.wait = Wait::Forever,
            "wait_ms" => self.wait = Wait::AtMost(milliseconds()?),
            "pooler" => self.pooler = value.parse().map_err(|_| wrong("true or false"))?,
            "readers" => self.readers = value.parse().map_err(|_| wrong("a number"))?,
            _ => {
                self.synchronous_commit = match value {
                    "on" => SynchronousCommit::On,
                    "remote_apply" => SynchronousCommit::RemoteApply,
                    _ => return Err(wrong("on or remote_apply; less would not be durable")),
                }
            }
        }
        // A lease that is renewed more seldom than it runs out helps nobody.
        if name == "lease_ms" {
            self.renewal = self.renewal.min(self.lease / 3);
        }
        Ok(())
    }
}

fn parse_config(url: &str) -> Result<Config> {
    // tokio-postgres would read anything else as `name=value` pairs.
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(invalid("a URL of PostgreSQL begins with postgres://".into()));
    }
    let mut config = url.parse::<Config>().map_err(|source| {
        use std::error::Error as _;
        // Its own text names parameters, but never the value of one.
        let reason = source.source().map(ToString::to_string).unwrap_or_default();
        invalid(format!(
            "not a URL of PostgreSQL: {reason}; write postgres://USER:PASSWORD@HOST:PORT/DATABASE, \
             percent-encoded, with parameters of libpq or of ours: {PARAMETERS}"
        ))
    })?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        let message = "the URL names no host; for the socket of a server on this machine write its \
                       directory, as host=/run/postgresql";
        return Err(invalid(message.into()));
    }
    if config.get_password().is_none()
        && let Some(password) = std::env::var_os("PGPASSWORD")
    {
        config.password(password.into_encoded_bytes());
    }
    let holds_password = |host: &Host| matches!(host, Host::Tcp(name) if name.contains('@'));
    if config.get_hosts().iter().any(holds_password) {
        return Err(invalid("an @ in the user or password has to be written as %40".into()));
    }
    Ok(config)
}

fn decode(value: &str) -> Result<String> {
    let decoded = percent_encoding::percent_decode_str(value).decode_utf8();
    decoded.map(Into::into).map_err(|_| invalid("a parameter of the URL is not UTF-8".into()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use kvstore_core::ErrorKind;
    use tokio_postgres::config::SslMode;

    use super::*;

    #[test]
    fn a_url_sets_what_it_names() {
        let url = "postgres://u:p%40ss@a:1,b:2/db?table=s.t&sslmode=verify-ca&sslrootcert=/ca%20x\
                   &owner=me&lease_ms=900&retry_ms=5&wait_ms=forever&pooler=true&readers=7\
                   &synchronous_commit=remote_apply&connect_timeout=3&application_name=x";
        let options = PostgresOptions::from_url(url).unwrap();
        assert_eq!(options.table, "s.t");
        assert_eq!(options.tls, TlsMode::VerifyCa);
        assert_eq!(options.root_certificates, RootCertificates::File("/ca x".into()));
        assert_eq!(options.owner.as_deref(), Some("me"));
        assert_eq!((options.lease.as_millis(), options.renewal.as_millis()), (900, 300));
        assert_eq!(options.retry_budget.as_millis(), 5);
        assert_eq!((options.wait, options.pooler, options.readers), (Wait::Forever, true, 7));
        assert_eq!(options.synchronous_commit, SynchronousCommit::RemoteApply);
        assert_eq!(options.connect_timeout.as_secs(), 3);
        let labels: Vec<_> = options.hosts().into_iter().map(|host| host.label).collect();
        assert_eq!(labels, ["a:1", "b:2"]);
        assert_eq!(options.hosts()[1].config.get_password(), Some(&b"p@ss"[..]));
        assert_eq!(options.hosts()[1].config.get_application_name(), Some("x"));
        assert_eq!(options.database(), "db");
    }

    #[test]
    fn a_socket_is_named_by_its_directory() {
        for url in [
            "postgres://u@%2Frun%2Fpostgresql:5433/d?sslmode=require",
            "postgres:///d?host=/run/postgresql&port=5433&user=u&sslmode=require",
        ] {
            let options = PostgresOptions::from_url(url).unwrap();
            let [host] = &options.hosts()[..] else { panic!("{url}: one host") };
            assert_eq!(host.label, "/run/postgresql:5433");
            assert_eq!(host.config.get_hosts(), [Host::Unix("/run/postgresql".into())]);
            assert_eq!(host.config.get_user(), Some("u"));
            assert_eq!(host.config.get_ssl_mode(), SslMode::Disable);
            assert_eq!(options.tls, TlsMode::Require);
        }
        // An address is what is connected to, by TCP.
        let url = "postgres:///d?host=/run/postgresql&hostaddr=127.0.0.1&sslmode=require";
        let options = PostgresOptions::from_url(url).unwrap();
        assert_eq!(options.hosts()[0].config.get_ssl_mode(), SslMode::Require);
    }

    #[test]
    fn bad_urls_say_why_and_hide_the_password() {
        for (rest, advice) in [
            ("@h/d?tabel=x", "tabel"),
            ("@h/d?table=a&table=b", "twice"),
            ("@h/d?table=a-b", "no name for a table"),
            ("@h/d?sslmode=maybe", "verify-full"),
            ("@h/d?lease_ms=soon", "milliseconds"),
            ("@h/d?lease_ms=100&renewal_ms=80", "renew it"),
            ("@h/d?synchronous_commit=off", "not be durable"),
            ("@h/d?wait_ms=-1", "milliseconds"),
            ("@h/d?pooler=yes", "true or false"),
            ("@more@h/d", "%40"),
            ("@h/d?password=horse@x", "%40"),
            ("@h/d?owner=", "not empty"),
            ("@/d", "no host"),
            ("@h:port/d", "postgres://USER"),
        ] {
            let refused = PostgresOptions::from_url(&format!("postgres://u:horse{rest}"));
            let error = refused.expect_err(rest);
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{rest}");
            let text = format!("{error} {error:?}");
            assert!(text.contains(advice), "{rest}: {text}");
            assert!(!text.contains("horse"), "{rest}: {text}");
        }
    }
}
