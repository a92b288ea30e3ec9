//! `SCHEME:PATH[?OPTION=VALUE&…]`, taken apart.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use kvstore_core::{Error, ErrorKind, Result};
use percent_encoding::percent_decode_str;

/// Every backend that a URL can name: its scheme, the feature that compiles it in (none for one
/// that is always there), and whether this build has it.
const BACKENDS: &[(&str, Option<&str>, bool)] = &[
    ("memory", None, true),
    ("fs", Some("fs"), cfg!(feature = "fs")),
    ("sqlite", Some("sqlite"), cfg!(feature = "sqlite")),
    ("sled", Some("sled"), cfg!(feature = "sled")),
    ("postgres", Some("postgres"), cfg!(feature = "postgres")),
];

/// A checked URL of a store, whose backend this build has.
///
/// | URL | store |
/// |---|---|
/// | `memory:` | in memory, gone with the process |
/// | `fs:PATH[?layout=v1\|v2]` | a directory of files |
/// | `sqlite:PATH[?table=NAME]` | an SQLite database |
/// | `sled:PATH[?cache=BYTES]` | a directory with a sled database; `BYTES` of pages in memory |
/// | `postgres://USER:PASSWORD@HOST[:PORT][,…]/DATABASE[?table=NAME&…]` | a table on a PostgreSQL server or cluster; see `PostgresOptions::from_url` for the parameters |
///
/// `PATH` is relative to the working directory or absolute; `sqlite:///PATH` is absolute too, and
/// `%3F` stands for a question mark in it, `%25` for a percent sign.
///
/// Every URL but `memory:` takes `create=false` too: a store that is not there is then an error and
/// not a new one, for example while its disk is not mounted. `create=true` is what goes without
/// saying.
///
/// ```
/// use lightning_kvstore::StoreUrl;
///
/// let url: StoreUrl = "memory:".parse()?;
/// assert_eq!(url.scheme(), "memory");
/// assert!(!url.is_persistent());
/// let error = "redis://localhost".parse::<StoreUrl>().unwrap_err();
/// assert!(error.to_string().contains("memory:"));
/// # Ok::<(), lightning_kvstore::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl {
    scheme: &'static str,
    /// As it was given without `create`, for PostgreSQL's own parser. It holds the password.
    text: String,
    path: PathBuf,
    parameters: Vec<(String, String)>,
    create: bool,
}

impl StoreUrl {
    /// The backend's name.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// The path, decoded; empty for `memory:` and `postgres:`.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Whether the store outlives the process.
    #[must_use]
    pub fn is_persistent(&self) -> bool {
        self.scheme != "memory"
    }

    /// Whether the store may be created, as far as the URL says.
    #[cfg(any(feature = "fs", feature = "sqlite", feature = "sled", feature = "postgres"))]
    pub(crate) fn create(&self) -> bool {
        self.create
    }

    /// All of it but `create`.
    #[cfg(feature = "postgres")]
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Hands the options of the query to `set`, which refuses the ones it does not know.
    pub(crate) fn each_parameter(
        &self,
        known: &str,
        mut set: impl FnMut(&str, &str) -> bool,
    ) -> Result<()> {
        for (at, (name, value)) in self.parameters.iter().enumerate() {
            if self.parameters[..at].iter().any(|(earlier, _)| earlier == name) {
                return Err(bad_url(format!("duplicate option {name:?}")));
            }
            if !set(name, value) {
                let scheme = self.scheme;
                return Err(bad_url(format!(
                    "{scheme}: has no option {name:?}, or not with this value; it takes {known}"
                )));
            }
        }
        Ok(())
    }
}

impl FromStr for StoreUrl {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self> {
        let (scheme, rest) = url.split_once(':').ok_or_else(|| {
            bad_url(format!("{url:?} has no scheme; write one of {}", available()))
        })?;
        // libpq takes both.
        let scheme = if scheme == "postgresql" { "postgres" } else { scheme };
        let scheme = backend(scheme)?;
        if scheme == "postgres" {
            let (text, create) = without_create(url)?;
            let (path, parameters) = (PathBuf::new(), Vec::new());
            return Ok(Self { scheme, text, path, parameters, create });
        }
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = decode(path.strip_prefix("//").unwrap_or(path))?;
        match (scheme, path.as_os_str().is_empty()) {
            ("memory", false) => return Err(bad_url("memory: takes no path".into())),
            ("memory", true) | (_, false) => {}
            (_, true) => return Err(bad_url(format!("{scheme}: needs a path, as {scheme}:PATH"))),
        }
        let mut parameters: Vec<(String, String)> =
            form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let mut create = Vec::new();
        if scheme != "memory" {
            create.extend(parameters.extract_if(.., |(name, _)| name == "create"));
        }
        let create = may_create(create.iter().map(|(_, value)| value.as_str()))?;
        Ok(Self { scheme, text: url.to_owned(), path, parameters, create })
    }
}

/// Takes `create` out of a URL whose query another parser reads.
fn without_create(url: &str) -> Result<(String, bool)> {
    let Some((base, query)) = url.split_once('?') else { return Ok((url.to_owned(), true)) };
    let is_create = |pair: &&str| *pair == "create" || pair.starts_with("create=");
    let (create, others): (Vec<_>, Vec<_>) = query.split('&').partition(is_create);
    let create = may_create(create.iter().map(|pair| pair.trim_start_matches("create=")))?;
    let separator = if others.is_empty() { "" } else { "?" };
    Ok((format!("{base}{separator}{}", others.join("&")), create))
}

fn may_create<'a>(mut values: impl Iterator<Item = &'a str>) -> Result<bool> {
    match (values.next(), values.next()) {
        (None | Some("true"), None) => Ok(true),
        (Some("false"), None) => Ok(false),
        (_, Some(_)) => Err(bad_url("duplicate option \"create\"".into())),
        (_, None) => {
            Err(bad_url("the option \"create\" is true or false; write create=false".into()))
        }
    }
}

fn backend(scheme: &str) -> Result<&'static str> {
    match BACKENDS.iter().find(|(name, ..)| *name == scheme) {
        Some((name, _, true)) => Ok(name),
        Some((name, feature, false)) => {
            let feature = feature.unwrap_or(name);
            Err(Error::new(
                ErrorKind::Unsupported,
                "parse URL",
                format!(
                    "this build has no backend for {name}: URLs; add the feature {feature:?} of \
                     lightning-kvstore (it has {})",
                    available()
                ),
            ))
        }
        None => Err(bad_url(format!("unknown scheme {scheme:?}; this build has {}", available()))),
    }
}

/// The schemes that this build opens.
fn available() -> String {
    let schemes = BACKENDS.iter().filter(|(_, _, available)| *available);
    schemes.map(|(scheme, ..)| format!("{scheme}:")).collect::<Vec<_>>().join(", ")
}

fn decode(path: &str) -> Result<PathBuf> {
    let bytes: Vec<u8> = percent_decode_str(path).collect();
    if bytes.contains(&0) {
        return Err(bad_url("a path cannot hold the byte zero".into()));
    }
    os_string(bytes).map(PathBuf::from)
}

#[cfg(unix)]
fn os_string(bytes: Vec<u8>) -> Result<OsString> {
    Ok(std::os::unix::ffi::OsStringExt::from_vec(bytes))
}

#[cfg(not(unix))]
fn os_string(bytes: Vec<u8>) -> Result<OsString> {
    let text = String::from_utf8(bytes).map_err(|_| bad_url("the path is not UTF-8".into()))?;
    Ok(OsString::from(text))
}

pub(crate) fn bad_url(message: String) -> Error {
    Error::new(ErrorKind::InvalidInput, "parse URL", message)
}

/// Without the password, and without parameters, for one may be the password.
impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.scheme != "postgres" {
            return write!(f, "{}:{}", self.scheme, self.path.display());
        }
        let (base, _) = self.text.split_once('?').unwrap_or((&self.text, ""));
        let (_, place) = base.split_once("//").unwrap_or(("", base));
        // A password may hold an @ that is not encoded; a host cannot.
        let place = match place.rsplit_once('@') {
            Some((user, host)) => {
                let user = user.split(':').next().unwrap_or_default();
                format!("{user}@{host}")
            }
            None => place.to_owned(),
        };
        write!(f, "postgres://{place}")
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rest goes to a parser that knows no such option.
    #[test]
    fn create_is_taken_out_of_a_server_url() {
        for (url, rest, create) in [
            ("postgres://a:b@c/d", "postgres://a:b@c/d", true),
            ("postgres://a:b@c/d?create=false", "postgres://a:b@c/d", false),
            ("postgres://c/d?x=1&create=false&y=%26", "postgres://c/d?x=1&y=%26", false),
            ("postgres://c/d?created=1&create=true", "postgres://c/d?created=1", true),
        ] {
            assert_eq!(without_create(url).unwrap(), (rest.to_owned(), create));
        }
        for url in ["postgres://c/d?create", "postgres://c/d?create=false&create=false"] {
            assert_eq!(without_create(url).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
    }
}
