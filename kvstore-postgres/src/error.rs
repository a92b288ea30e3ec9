//! PostgreSQL's errors, classified once, by code.

use std::error::Error as _;

use kvstore_core::{Error, ErrorKind};
use tokio_postgres::error::{DbError, Severity, SqlState};

const NAME: &str = "postgres";

pub(crate) fn error(
    kind: ErrorKind,
    operation: &'static str,
    message: impl Into<std::sync::Arc<str>>,
) -> Error {
    Error::new(kind, operation, message).with_backend(NAME)
}

pub(crate) fn closed(operation: &'static str) -> Error {
    error(ErrorKind::Closed, operation, "the store was closed")
}

pub(crate) fn named(error: Error) -> Error {
    error.with_backend(NAME)
}

/// The error of a statement that the server refused, or of a connection.
pub(crate) fn engine(operation: &'static str, source: tokio_postgres::Error) -> Error {
    with_source(error(classify(&source), operation, explain(&source)), source)
}

/// Keeps the source, but of what a server said only the code: its details can show values.
pub(crate) fn with_source(error: Error, source: tokio_postgres::Error) -> Error {
    match source.code() {
        Some(code) => error.with_source(format!("the server's error {}", code.code())),
        None => error.with_source(source),
    }
}

/// What was said, and what can be done about it.
pub(crate) fn explain(source: &tokio_postgres::Error) -> String {
    let said = describe(source);
    match advice(source, classify(source)) {
        Some(advice) => format!("{said}; {advice}"),
        None => said,
    }
}

/// What the server or the system said. Details are left out, since they can show values.
pub(crate) fn describe(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), error.source()) {
        (Some(db), _) => format!("{} ({})", db.message(), db.code().code()),
        (None, Some(source)) => format!("{error}: {source}"),
        (None, None) => error.to_string(),
    }
}

fn advice(source: &tokio_postgres::Error, kind: ErrorKind) -> Option<&'static str> {
    Some(match (source.code(), kind) {
        (Some(code), _) if *code == SqlState::INVALID_PASSWORD => "check the user and password",
        (Some(code), _) if *code == SqlState::INVALID_CATALOG_NAME => {
            "create the database, for example with createdb"
        }
        (Some(code), _) if *code == SqlState::QUERY_CANCELED => {
            "nothing was committed; see the server's statement_timeout, and who cancels"
        }
        (Some(code), _)
            if *code == SqlState::INVALID_SQL_STATEMENT_NAME
                || *code == SqlState::DUPLICATE_PSTATEMENT =>
        {
            "if a transaction pooler stands in between, set pooler=true"
        }
        (_, ErrorKind::StorageFull) => "make room on the server's disk and try again",
        (_, ErrorKind::PermissionDenied) => "grant this user the right to the schema and tables",
        (_, ErrorKind::Corrupted) => {
            "the server found damage; stop it, keep a copy, and fail over to a standby"
        }
        _ => return None,
    })
}

/// **Source**: PostgreSQL's "Appendix A. PostgreSQL Error Codes".
pub(crate) fn classify(error: &tokio_postgres::Error) -> ErrorKind {
    let Some(db) = error.as_db_error() else {
        return ErrorKind::Unavailable;
    };
    if is_passing(db) {
        return ErrorKind::Unavailable;
    }
    match (db.code(), class(db)) {
        (code, _) if *code == SqlState::DISK_FULL => ErrorKind::StorageFull,
        (code, _) if *code == SqlState::INVALID_CATALOG_NAME => ErrorKind::Missing,
        (code, _) if *code == SqlState::INSUFFICIENT_PRIVILEGE => ErrorKind::PermissionDenied,
        (code, _) if *code == SqlState::QUERY_CANCELED => ErrorKind::Unavailable,
        (code, _) if *code == SqlState::LOCK_NOT_AVAILABLE => ErrorKind::Unavailable,
        (_, "28") => ErrorKind::PermissionDenied,
        (_, "53") => ErrorKind::Unavailable,
        (_, "54") => ErrorKind::ValueTooLarge,
        (_, "XX") if *db.code() != SqlState::INTERNAL_ERROR => ErrorKind::Corrupted,
        _ => ErrorKind::Io,
    }
}

/// Whether the statement may be tried again on a new connection, once it is known what became of
/// it: the connection is lost, the server stops or starts, is a standby, or asks for it.
pub(crate) fn is_lost(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_none_or(is_passing)
}

fn is_passing(db: &DbError) -> bool {
    let code = db.code();
    matches!(class(db), "08" | "57") && *code != SqlState::QUERY_CANCELED
        || *code == SqlState::READ_ONLY_SQL_TRANSACTION
        || *code == SqlState::T_R_SERIALIZATION_FAILURE
        || *code == SqlState::T_R_DEADLOCK_DETECTED
}

/// Whether connecting may succeed later without anybody changing the options.
pub(crate) fn may_connect_later(error: &tokio_postgres::Error) -> bool {
    match error.as_db_error() {
        Some(db) => is_passing(db) || *db.code() == SqlState::TOO_MANY_CONNECTIONS,
        // A certificate does not become right by waiting, but tokio-postgres does not tell it from
        // a connection that breaks in the handshake.
        None => true,
    }
}

/// Whether the server ended the session with this message.
pub(crate) fn ends_session(error: &tokio_postgres::Error) -> bool {
    let severity = |db: &DbError| db.parsed_severity();
    error.as_db_error().is_none_or(|db| {
        matches!(severity(db), Some(Severity::Fatal | Severity::Panic)) || is_passing(db)
    })
}

fn class(db: &DbError) -> &str {
    db.code().code().get(..2).unwrap_or_default()
}
