//! TLS over a connection, and who may vouch for the other side.

use std::io;
use std::sync::{Arc, OnceLock};

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, client::WebPkiServerVerifier,
};

use super::ProbeError;
use crate::model::health::Tls;

/// Shakes hands with the server that has to be `name`.
pub async fn over(stream: TcpStream, name: &str, tls: &Tls) -> Result<TlsStream<TcpStream>, ProbeError> {
    let failed = |source| ProbeError::Tls { name: name.to_owned(), source };
    let bare = name.trim_start_matches('[').trim_end_matches(']').to_owned();
    let asked = ServerName::try_from(bare).map_err(|error| failed(io::Error::other(error)))?;
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = if tls.verify {
        let authorities = authorities(tls.ca_file.as_deref())?;
        WebPkiServerVerifier::builder_with_provider(authorities, provider.clone())
            .build()
            .map_err(|error| failed(io::Error::other(error)))?
    } else {
        Arc::new(Anybody(provider.clone()))
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(io::Error::other(error)))?
        // Of `Anybody` and of the ordinary verifier alike.
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config)).connect(asked, stream).await.map_err(failed)
}

/// Those of a file, which is read each time; those of the system once.
fn authorities(file: Option<&str>) -> Result<Arc<RootCertStore>, ProbeError> {
    static OF_SYSTEM: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let Some(path) = file else {
        if let Some(known) = OF_SYSTEM.get() {
            return Ok(known.clone());
        }
        let loaded = rustls_native_certs::load_native_certs();
        let said = loaded.errors.first().map_or_else(|| "there is none".to_owned(), ToString::to_string);
        let store = store("the system's directory", loaded.certs, said)?;
        return Ok(OF_SYSTEM.get_or_init(|| store).clone());
    };
    let wrong = |said: String| ProbeError::Authority { path: path.to_owned(), said };
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(|all| all.collect::<Result<Vec<_>, _>>())
        .map_err(|error| wrong(error.to_string()))?;
    store(path, certificates, "there is none".into())
}

fn store(
    path: &str,
    certificates: Vec<CertificateDer<'static>>,
    said: String,
) -> Result<Arc<RootCertStore>, ProbeError> {
    let mut store = RootCertStore::empty();
    let (added, _) = store.add_parsable_certificates(certificates);
    if added == 0 {
        return Err(ProbeError::Authority { path: path.to_owned(), said });
    }
    Ok(Arc::new(store))
}

/// `tls.verify = false`: any certificate will do, if its owner has signed the handshake.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
