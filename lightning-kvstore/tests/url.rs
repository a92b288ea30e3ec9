//! What URLs mean, and what bad ones say.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use lightning_kvstore::{ErrorKind, StoreUrl, open};

fn message(url: &str) -> (ErrorKind, String) {
    let error = open(url).expect_err(url);
    (error.kind(), error.to_string())
}

#[test]
fn bad_urls_say_what_to_write() {
    for (url, advice) in [
        ("", "memory:"),
        ("node.sqlite", "has no scheme"),
        ("redis://localhost", "this build has memory:"),
        ("memory:path", "takes no path"),
        ("memory:?table=x", "takes none"),
    ] {
        let (kind, text) = message(url);
        assert_eq!(kind, ErrorKind::InvalidInput, "{url}");
        assert!(text.contains(advice), "{url}: {text}");
    }
}

#[cfg(not(feature = "sqlite"))]
#[test]
fn a_backend_that_is_not_compiled_in_names_its_feature() {
    let (kind, text) = message("sqlite:node.sqlite");
    assert_eq!(kind, ErrorKind::Unsupported);
    assert!(text.contains("feature \"sqlite\""), "{text}");
}

#[cfg(feature = "fs")]
mod fs {
    use super::*;

    #[test]
    fn the_layout_is_an_option() {
        let directory = tempfile::tempdir().unwrap();
        let url = |rest: &str| format!("fs:{}/{rest}", directory.path().display());
        let manager = lightning_kvstore::EntryId::new("", "", "manager").unwrap();
        for (rest, file) in [
            ("one?layout=v1", "one/manager"),
            ("two?layout=v2", "two/[empty]/[empty]/manager"),
            ("new", "new/[empty]/[empty]/manager"),
        ] {
            open(&url(rest)).unwrap().put_blocking(&manager, "x").unwrap();
            assert!(directory.path().join(file).is_file(), "{rest}");
        }
        for (rest, advice) in
            [("x?layout=v3", "layout=v1 or layout=v2"), ("x?table=a", "layout=v1 or layout=v2")]
        {
            let (kind, text) = message(&url(rest));
            assert_eq!(kind, ErrorKind::InvalidInput, "{rest}");
            assert!(text.contains(advice), "{rest}: {text}");
            assert!(!directory.path().join("x").exists());
        }
        let (kind, text) = message(&url("one?layout=v2"));
        assert_eq!(kind, ErrorKind::Unsupported);
        assert!(text.contains("one/manager"), "{text}");
    }
}

#[cfg(feature = "sled")]
mod sled {
    use super::*;

    #[test]
    fn the_cache_is_an_option() {
        let directory = tempfile::tempdir().unwrap();
        let url = |rest: &str| format!("sled:{}/{rest}", directory.path().display());
        let manager = lightning_kvstore::EntryId::new("", "", "manager").unwrap();
        open(&url("node?cache=1000000")).unwrap().put_blocking(&manager, "x").unwrap();
        assert_eq!(open(&url("node")).unwrap().get_blocking(&manager).unwrap().unwrap(), b"x");
        for rest in ["x?cache=much", "x?table=1", "x?cache=-1"] {
            let (kind, text) = message(&url(rest));
            assert_eq!(kind, ErrorKind::InvalidInput, "{rest}");
            assert!(text.contains("cache=BYTES"), "{rest}: {text}");
            assert!(!directory.path().join("x").exists());
        }
    }
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use lightning_kvstore::{DynStore, EntryId};

    use super::*;

    fn put(store: &DynStore, key: &str) {
        let id = EntryId::new("", "", key).unwrap();
        store.put_blocking(&id, vec![1]).unwrap();
    }

    #[test]
    fn paths_are_relative_absolute_and_percent_encoded() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().display();
        for (url, name) in [
            (format!("sqlite:{at}/plain"), "plain"),
            (format!("sqlite://{at}/slashes"), "slashes"),
            (format!("sqlite:{at}/a%20b%3Fc%25"), "a b?c%"),
            (format!("sqlite:{at}/new/directories/file"), "new/directories/file"),
            (format!("sqlite:{at}/with_table?table=mine"), "with_table"),
        ] {
            put(&open(&url).unwrap(), "manager");
            assert!(directory.path().join(name).is_file(), "{url}");
        }
        let relative: StoreUrl = "sqlite:relative/file".parse().unwrap();
        assert!(relative.path().is_relative());
    }

    /// A store that is not there, because its disk is not mounted, is not made anew.
    #[test]
    fn a_url_can_say_that_nothing_is_to_be_made() {
        let directory = tempfile::tempdir().unwrap();
        let url = |rest: &str| format!("sqlite:{}/{rest}", directory.path().display());
        for rest in ["disk/node.sqlite?create=false", "node.sqlite?table=a&create=false"] {
            let (kind, text) = message(&url(rest));
            assert_eq!(kind, ErrorKind::Missing, "{text}");
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        put(&open(&url("node.sqlite?create=true")).unwrap(), "manager");
        put(&open(&url("node.sqlite?create=false")).unwrap(), "manager");
        let no = lightning_kvstore::OpenOptions::default().create(false);
        let error = lightning_kvstore::open_with(&url("b?create=true"), &no).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Missing);
    }

    #[test]
    fn bad_options_say_which_there_are() {
        for (url, advice) in [
            ("sqlite:x?create=no", "true or false"),
            ("sqlite:x?create=false&create=true", "duplicate"),
            ("sqlite:", "needs a path"),
            ("sqlite:x?tabel=mine", "table=NAME"),
            ("sqlite:x?table=a&table=b", "duplicate"),
            ("sqlite:x?table=1;drop", "letters, digits"),
            ("sqlite:a%00b", "byte zero"),
        ] {
            let (kind, text) = message(url);
            assert_eq!(kind, ErrorKind::InvalidInput, "{url}");
            assert!(text.contains(advice), "{url}: {text}");
            assert!(!std::path::Path::new("x").exists());
        }
    }

    #[test]
    fn tables_of_one_file_are_stores_of_their_own() {
        let directory = tempfile::tempdir().unwrap();
        let url = |table: &str| format!("sqlite:{}/db?table={table}", directory.path().display());
        put(&open(&url("alice")).unwrap(), "manager");
        let bob = open(&url("bob")).unwrap();
        assert_eq!(bob.list_all_blocking().unwrap(), []);
        bob.close_blocking().unwrap();
        let (kind, text) = message(&format!("sqlite:{}/db", directory.path().display()));
        assert_eq!(kind, ErrorKind::InvalidInput);
        assert!(text.contains("alice, bob"), "{text}");
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use super::*;

    #[test]
    fn the_password_is_not_shown() {
        for (url, shown) in [
            ("postgres://me:horse@db:1,db2/ldk?sslmode=require", "postgres://me@db:1,db2/ldk"),
            ("postgresql://me:ho@horse@db/ldk", "postgres://me@db/ldk"),
            ("postgres://db/ldk?user=me&password=horse", "postgres://db/ldk"),
        ] {
            let url: StoreUrl = url.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), format!("StoreUrl({shown})"));
            assert!(url.is_persistent());
        }
    }

    #[test]
    fn bad_options_say_which_there_are() {
        for (url, advice) in [
            ("postgres:", "begins with postgres://"),
            ("postgres://u:horse@h/d?tabel=x", "table, sslmode"),
            ("postgres://u:horse@h/d?table=x;y", "a-z 0-9 _"),
        ] {
            let (kind, text) = message(url);
            assert_eq!(kind, ErrorKind::InvalidInput, "{url}");
            assert!(text.contains(advice) && !text.contains("horse"), "{url}: {text}");
        }
    }

    #[test]
    fn a_server_that_is_not_there_is_named() {
        // A port that nobody listens on, since it was just given back.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (kind, text) = message(&format!("postgres://u:horse@{port}/d?retry_ms=0"));
        assert_eq!(kind, ErrorKind::Unavailable);
        assert!(text.contains(&port.to_string()) && text.contains("refused"), "{text}");
        assert!(!text.contains("horse"), "{text}");
    }
}
