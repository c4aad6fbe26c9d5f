//! TLS by rustls with the ring provider.

use std::io;
use std::sync::{Arc, PoisonError};

use derp_kv_core::Result;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use rustls::{CertificateError, ClientConfig, Error as TlsError};

use crate::address::Address;
use crate::config::{TlsFiles, ValkeyConfig, field};
use crate::node::failure::Failure;

/// The TLS side of a store's connections, which also keeps the sessions to resume. It is built anew
/// only when a file that `config` names holds something else than before.
///
/// It reads files: call it where a thread may block.
pub(crate) fn client_config(config: &ValkeyConfig) -> Result<Arc<ClientConfig>> {
    let files = TlsFiles::read(config)?;
    let mut kept = config.tls.0.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, tls)) = kept.as_ref().filter(|(same, _)| *same == files) {
        return Ok(Arc::clone(tls));
    }
    let tls = Arc::new(build(&files)?);
    *kept = Some((files, Arc::clone(&tls)));
    Ok(tls)
}

/// The provider is passed in by hand: a process-wide default may be missing, or be another one.
fn build(files: &TlsFiles) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| field("use_tls", "TLS is not available").with_source(error))?
        .with_root_certificates(files.roots()?);
    Ok(match files.client()? {
        Some(client) => {
            let shown: Arc<dyn ResolvesClientCert> = Arc::new(SingleCertAndKey::from(client));
            builder.with_client_cert_resolver(shown)
        }
        None => builder.with_no_client_auth(),
    })
}

/// The name that the certificate of the server at `address` must hold.
pub(crate) fn server_name(
    address: &Address,
    config: &ValkeyConfig,
) -> Result<ServerName<'static>, Failure> {
    // A zone is this machine's own name for a network: no certificate holds it.
    let host = address.host().split('%').next().unwrap_or_default();
    let name = config.tls_server_name.as_deref().unwrap_or(host);
    ServerName::try_from(name.to_owned()).map_err(|_| {
        Failure::tls(
            address,
            "the host is no name that a certificate can hold; set tls_server_name",
        )
    })
}

/// Why a handshake failed; the cause itself is the error's source.
pub(crate) fn failure(address: &Address, error: io::Error) -> Failure {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<TlsError>());
    let message = match cause {
        Some(TlsError::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => "the server's certificate holds another name, which tls_server_name can allow",
        Some(TlsError::InvalidCertificate(_)) => "the server's certificate is refused",
        Some(TlsError::InvalidMessage(_)) => "the server does not speak TLS (is it a TLS port?)",
        _ => "the TLS handshake failed",
    };
    Failure::io(address, message, error)
}
