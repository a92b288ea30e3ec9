//! Certificates.

use std::path::Path;

use crate::account::Account;
use crate::error::Result;
use crate::home::Home;
use crate::programs::{other, run};

/// The authority's certificate, in the directory of the data.
pub(crate) const CA: &str = "ca.crt";

const CONFIG: &str = "\
[req]
prompt = no
distinguished_name = name
[name]
CN = throw-away
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost, IP:127.0.0.1
";

/// The names that PostgreSQL looks for by itself; a copy of the data directory has them too.
const REQUEST_AUTHORITY: &str = "req -x509 -days 30 -nodes -config tls.cnf -extensions authority \
    -subj /CN=throw-away-authority -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 \
    -keyout ca.key -out ca.crt";
const REQUEST_SERVER: &str = "req -new -nodes -config tls.cnf -subj /CN=localhost \
    -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -keyout server.key -out server.csr";
const SIGN_SERVER: &str = "x509 -req -days 30 -in server.csr -CA ca.crt -CAkey ca.key \
    -CAcreateserial -extfile tls.cnf -extensions server -out server.crt";

/// Makes an authority, and a certificate of it for the server in `home`.
pub(crate) fn certify(account: Account, home: &Home) -> Result<()> {
    let data = home.data();
    home.write(&data.join("tls.cnf"), CONFIG)?;
    for arguments in [REQUEST_AUTHORITY, REQUEST_SERVER, SIGN_SERVER] {
        openssl(account, &data, arguments)?;
    }
    // Readable by nobody else, or the server refuses it.
    let key = data.join("server.key");
    let text = std::fs::read_to_string(&key).unwrap_or_default();
    home.write(&key, &text)
}

fn openssl(account: Account, directory: &Path, arguments: &str) -> Result<()> {
    let mut openssl = other("openssl", "openssl", account, directory)?;
    run(openssl.args(arguments.split_whitespace())).map(|_| ())
}
