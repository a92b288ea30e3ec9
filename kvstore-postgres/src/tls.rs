//! TLS by rustls, with libpq's modes.

use std::path::PathBuf;
use std::sync::Arc;

use kvstore_core::{ErrorKind, Result};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore,
    SignatureScheme,
};
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::PostgresOptions;
use crate::error::error;

/// Whether and how the connection to the server is encrypted.
///
/// **Source**: libpq's `sslmode`, in PostgreSQL's "Database Connection Control Functions".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// Never.
    Disable,
    /// If the server offers it; nothing is verified, and somebody in between can read along.
    #[default]
    Prefer,
    /// Always. The server's certificate is verified as with `VerifyCa` if
    /// [`root_certificates`](PostgresOptions::root_certificates) are named, and otherwise not.
    Require,
    /// Always, with a certificate that one of the root certificates leads to.
    VerifyCa,
    /// As `VerifyCa`, and the certificate must be of the host that was asked for.
    VerifyFull,
}

/// Which authorities may have signed the server's certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RootCertificates {
    /// None are named: those of the system, where verification is asked for.
    #[default]
    Unnamed,
    /// Those that the operating system trusts.
    System,
    /// Those in a PEM file.
    File(PathBuf),
}

impl TlsMode {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "disable" => Self::Disable,
            "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => return None,
        })
    }

    /// What the driver has to do; the verification is ours.
    pub(crate) fn of_driver(self) -> SslMode {
        match self {
            Self::Disable => SslMode::Disable,
            Self::Prefer => SslMode::Prefer,
            Self::Require | Self::VerifyCa | Self::VerifyFull => SslMode::Require,
        }
    }
}

/// Prepares what every connection of a store uses.
pub(crate) fn connector(options: &PostgresOptions) -> Result<MakeRustlsConnect> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let failed = |source: TlsError| {
        error(ErrorKind::InvalidInput, "open", format!("cannot set up TLS: {source}"))
    };
    let verifier = Verifier::new(options, &provider)?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

/// Verifies as much of a certificate as the mode asks for.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    /// `None` if any certificate is taken.
    chain: Option<Arc<WebPkiServerVerifier>>,
    name: bool,
}

impl Verifier {
    fn new(options: &PostgresOptions, provider: &Arc<CryptoProvider>) -> Result<Self> {
        let named = options.root_certificates != RootCertificates::Unnamed;
        let verifies = match options.tls {
            TlsMode::Disable | TlsMode::Prefer => false,
            TlsMode::Require => named,
            TlsMode::VerifyCa | TlsMode::VerifyFull => true,
        };
        let chain = verifies.then(|| {
            let roots = Arc::new(roots(&options.root_certificates)?);
            let builder = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider));
            builder.build().map_err(|source| {
                let message = format!("cannot use the root certificates: {source}");
                error(ErrorKind::InvalidInput, "open", message)
            })
        });
        let name = options.tls == TlsMode::VerifyFull;
        Ok(Self { provider: Arc::clone(provider), chain: chain.transpose()?, name })
    }
}

fn roots(named: &RootCertificates) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let from = match named {
        RootCertificates::Unnamed | RootCertificates::System => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            "the system".to_owned()
        }
        RootCertificates::File(path) => {
            let failed = |source: rustls::pki_types::pem::Error| {
                let message = format!("cannot read certificates of {}: {source}", path.display());
                error(ErrorKind::InvalidInput, "open", message)
            };
            let found = CertificateDer::pem_file_iter(path).map_err(failed)?;
            let found = found.collect::<std::result::Result<Vec<_>, _>>().map_err(failed)?;
            roots.add_parsable_certificates(found);
            path.display().to_string()
        }
    };
    if roots.is_empty() {
        let message = format!("{from} has no root certificate; name a PEM file with sslrootcert");
        return Err(error(ErrorKind::InvalidInput, "open", message));
    }
    Ok(roots)
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, TlsError> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        let verified =
            chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            // The name is looked at last, so the chain is good.
            Err(TlsError::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.name => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
