//! [`Handshakes`]: TLS by rustls, its certificates as they lie in their files at that moment.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tracing::warn;

pub(super) use tokio_rustls::client::TlsStream;

use super::Tls;
use super::connect::closed;
use super::words::Words;
use crate::error::{Error, Result};

/// Shakes hands as the settings say.
pub(super) struct Handshakes {
    tls: Arc<Tls>,
    protocols: Vec<Vec<u8>>,
    server_name: Option<ServerName<'static>>,
    /// What was used last, and the bytes that it was made of.
    last: Arc<Mutex<(Material, Arc<ClientConfig>)>>,
}

/// What lay in the files.
#[derive(PartialEq, Eq)]
struct Material {
    ca: Option<Vec<u8>>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl fmt::Debug for Handshakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshakes").field("tls", &self.tls).finish_non_exhaustive()
    }
}

impl Handshakes {
    pub(super) fn new(tls: Tls, protocols: &[&str]) -> Result<Self> {
        let server_name = tls.server_name.clone().map(|name| {
            ServerName::try_from(name.clone()).map_err(|_| {
                Error::invalid(format!("TLS server name {name:?} is neither an IP address nor a DNS name"))
            })
        });
        let server_name = server_name.transpose()?;
        if tls.skip_verify == Some(true) {
            warn!(
                "TLS without verification: whoever is between this program and the server can read and change everything"
            );
        }
        let protocols: Vec<_> = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let material = Material::load(&tls)?;
        let config = material.config(&tls, &protocols)?;
        let last = Arc::new(Mutex::new((material, Arc::new(config))));
        Ok(Self { tls: Arc::new(tls), protocols, server_name, last })
    }

    /// Shakes hands with `host`. If it is `expected` in the certificate, it is so whatever the settings say.
    pub(super) async fn shake_hands(
        &self,
        host: &str,
        expected: bool,
        tcp: TcpStream,
        words: &Words,
    ) -> io::Result<Box<TlsStream<TcpStream>>> {
        let name = match &self.server_name {
            Some(name) if !expected => name.clone(),
            _ => ServerName::try_from(host.to_owned()).map_err(io::Error::other)?,
        };
        let config = self.config().await;
        TlsConnector::from(config)
            .connect(name, tcp)
            .await
            .map(Box::new)
            .map_err(|error| explain(refused(error, words), self.shows_certificate(), words))
    }

    /// Whether we say who we are.
    pub(super) fn shows_certificate(&self) -> bool {
        self.tls.identity.is_some()
    }

    /// The files as they are now, or what was used last if they are of no use.
    async fn config(&self) -> Arc<ClientConfig> {
        let (tls, protocols, last) = (Arc::clone(&self.tls), self.protocols.clone(), Arc::clone(&self.last));
        let load = move || {
            let loaded = Material::load(&tls);
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            let made = loaded.and_then(|material| {
                if material != last.0 {
                    let config = material.config(&tls, &protocols)?;
                    *last = (material, Arc::new(config));
                }
                Ok(())
            });
            if let Err(error) = made {
                warn!(error = %error.chain(), "the TLS files cannot be used; connecting with what was used last");
            }
            Arc::clone(&last.1)
        };
        match tokio::task::spawn_blocking(load).await {
            Ok(config) => config,
            // The runtime ends.
            Err(_) => Arc::clone(&self.last.lock().unwrap_or_else(PoisonError::into_inner).1),
        }
    }
}

impl Material {
    fn load(tls: &Tls) -> Result<Self> {
        let ca = tls.ca.as_ref().map(|ca| ca.load("TLS authority")).transpose()?;
        let identity = tls.identity.as_ref().map(|(certificate, key)| {
            Ok::<_, Error>((certificate.load("TLS certificate")?, key.load("TLS private key")?))
        });
        Ok(Self { ca, identity: identity.transpose()? })
    }

    fn config(&self, tls: &Tls, protocols: &[Vec<u8>]) -> Result<ClientConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::invalid("TLS cannot be set up").with_source(error))?;
        let builder = if tls.skip_verify == Some(true) {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        } else {
            let roots = Arc::new(self.roots(tls)?);
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|error| Error::invalid("TLS trusts nobody").with_source(error))?;
            builder.with_webpki_verifier(verifier)
        };
        let mut config = match (&self.identity, &tls.identity) {
            (Some((certificate, key)), Some((named, key_named))) => {
                let chain = certificates(certificate, &format!("TLS certificate {named}"))?;
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| {
                    Error::invalid(format!("TLS private key {key_named} has none in PEM")).with_source(error)
                })?;
                builder.with_client_auth_cert(chain, key).map_err(|error| {
                    let text = format!(
                        "TLS private key {key_named} is not that of certificate {named}, or of no use"
                    );
                    Error::invalid(text).with_source(error)
                })?
            }
            _ => builder.with_no_client_auth(),
        };
        config.alpn_protocols = protocols.to_vec();
        // A resumed session shows no certificate, so one that has expired since would pass.
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    fn roots(&self, tls: &Tls) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        let Some((bytes, named)) = self.ca.as_ref().zip(tls.ca.as_ref()) else {
            let native = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(native.certs);
            if roots.is_empty() {
                let error = Error::invalid("TLS: this machine trusts nobody: name an authority (ca)");
                return Err(match native.errors.into_iter().next() {
                    Some(cause) => error.with_source(cause),
                    None => error,
                });
            }
            return Ok(roots);
        };
        let what = format!("TLS authority {named}");
        for certificate in certificates(bytes, &what)? {
            roots
                .add(certificate)
                .map_err(|error| Error::invalid(format!("{what} is of no use")).with_source(error))?;
        }
        Ok(roots)
    }
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| Error::invalid(format!("{what} is no PEM")).with_source(error))?;
    if all.is_empty() {
        return Err(Error::invalid(format!("{what} has no -----BEGIN CERTIFICATE-----")));
    }
    Ok(all)
}

/// Who does not speak TLS has no words for who does: some just close.
fn refused(error: io::Error, words: &Words) -> io::Error {
    if !closed(&error) {
        return error;
    }
    let text = format!(
        "the server closed the connection when asked for TLS: it went away, or it does not speak TLS: {}",
        words.without_tls
    );
    io::Error::new(error.kind(), text)
}

/// Says what can be done, where rustls says only what is wrong. `shown`: whether the server was shown a certificate.
pub(super) fn explain(error: io::Error, shown: bool, words: &Words) -> io::Error {
    let Some(cause) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return error;
    };
    let hint = match cause {
        rustls::Error::InvalidMessage(_) => format!("the server does not speak TLS: {}", words.without_tls),
        // The latter, where another authority has the same name.
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => words.ca.to_owned(),
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => words.server_name.to_owned(),
        // Before TLS 1.3 had words of its own for it, servers called one that is missing a bad one.
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired | AlertDescription::BadCertificate,
        ) if !shown => format!("the server wants to see a certificate: {}", words.identity),
        rustls::Error::AlertReceived(
            AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            // Where another authority has the same name.
            | AlertDescription::DecryptError
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRevoked,
        ) => format!("the server refuses {}", words.certificate),
        _ => return error,
    };
    io::Error::new(error.kind(), format!("{cause}: {hint}"))
}

/// Takes every certificate.
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
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
