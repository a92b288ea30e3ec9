//! Encrypted connections, and whom they trust.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use kvstore_core::ErrorKind;
use kvstore_postgres::{PostgresBackend, PostgresOptions};
use postgres_servers::{Server, or_skip};
use support::Place;

mod support;

/// Opens with these parameters; gives whether the connection is encrypted, or what was refused.
fn open(server: &Server, host: &str, parameters: &str) -> Result<bool, String> {
    let place = Place::new(&server.url().replace("127.0.0.1", host), server);
    let options = PostgresOptions::from_url(&place.url(&format!("&retry_ms=0{parameters}")));
    let backend = PostgresBackend::open(&options.unwrap()).map_err(|error| {
        assert!(!error.to_string().contains(server.access().password()));
        assert!(
            matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::PermissionDenied),
            "{error}"
        );
        error.message().to_owned()
    })?;
    let encrypted = place.query(&format!(
        "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN {} AND pg_stat_ssl.pid = pg_stat_activity.pid",
        place.sessions().replace("WHERE", "ON")
    ));
    drop(backend);
    Ok(encrypted == "t")
}

#[test]
fn certificates_are_verified_as_the_mode_says() {
    let Some(server) = or_skip(Server::builder().tls().start()) else { return };
    let Some(stranger) = or_skip(Server::builder().tls().start()) else { return };
    let roots = format!("&sslrootcert={}", server.ca().unwrap().display());
    let foreign = format!("&sslrootcert={}", stranger.ca().unwrap().display());
    let full = |roots: &str| format!("&sslmode=verify-full{roots}");
    let chain = |roots: &str| format!("&sslmode=verify-ca{roots}");

    assert_eq!(open(&server, "127.0.0.1", &full(&roots)), Ok(true));
    assert_eq!(open(&server, "localhost", &full(&roots)), Ok(true));
    assert_eq!(open(&server, "localhost", &(full(&roots) + "&channel_binding=require")), Ok(true));
    // Another name for the same address is not in the certificate.
    let other = "other.example";
    let at = "&hostaddr=127.0.0.1";
    open(&server, other, &(full(&roots) + at)).unwrap_err();
    assert_eq!(open(&server, other, &(chain(&roots) + at)), Ok(true));
    // An authority that did not sign it, or those of the system, which did not either.
    for mode in ["require", "verify-ca", "verify-full"] {
        let refused = open(&server, "127.0.0.1", &format!("&sslmode={mode}{foreign}"));
        let refused = refused.unwrap_err();
        assert!(refused.contains("certificate"), "{mode}: {refused}");
    }
    open(&server, "127.0.0.1", &full("&sslrootcert=system")).unwrap_err();

    assert_eq!(open(&server, "127.0.0.1", "&sslmode=require"), Ok(true));
    assert_eq!(open(&server, "127.0.0.1", ""), Ok(true));
    assert_eq!(open(&server, "127.0.0.1", "&sslmode=disable"), Ok(false));
}

#[test]
fn what_one_side_demands_the_other_must_do() {
    let Some(plain) = support::server() else { return };
    open(plain, "127.0.0.1", "&sslmode=require").unwrap_err();
    assert_eq!(open(plain, "127.0.0.1", "&sslmode=prefer"), Ok(false));
    let Some(strict) = or_skip(Server::builder().tls_only().start()) else { return };
    open(&strict, "127.0.0.1", "&sslmode=disable").unwrap_err();
    assert_eq!(open(&strict, "127.0.0.1", "&sslmode=prefer"), Ok(true));
}

#[test]
fn root_certificates_that_are_none_are_refused() {
    let url = "postgres://u@h/d?sslmode=verify-full&sslrootcert=";
    for file in ["/no/such/file", "/dev/null"] {
        let options = PostgresOptions::from_url(&format!("{url}{file}")).unwrap();
        let error = PostgresBackend::open(&options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.message().contains(file), "{error}");
    }
}
