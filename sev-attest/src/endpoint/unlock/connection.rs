//! A connection to a guest that nothing is known of yet.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use der::{Decode as _, Encode as _};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use x509_cert::certificate::{CertificateInner, Rfc5280};
use zeroize::Zeroizing;

use super::UnlockError;
use super::target::Target;
use crate::channel::NONCE_LEN;
use crate::channel::v2::Session;
use crate::endpoint::http::Messages;
use crate::endpoint::tls::{self, Socket, Timed};

/// Time to connect and shake hands.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest answer that is read, in bytes: a report and its certificates.
const MAX_ANSWER: usize = 2 << 20;

/// Any certificate will do: what counts is that the peer has the key of the one that it shows. Which
/// key that is, is for the report to say.
#[derive(Debug)]
pub(in crate::endpoint) struct AnyCertificate(pub(in crate::endpoint) WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// The key of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::endpoint) struct PeerKey {
    /// SubjectPublicKeyInfo in DER.
    pub(in crate::endpoint) spki: Vec<u8>,
    /// The key alone: content of `subjectPublicKey`.
    pub(in crate::endpoint) bits: Vec<u8>,
}

impl PeerKey {
    fn of(der: &[u8]) -> Option<Self> {
        let certificate = CertificateInner::<Rfc5280>::from_der(der).ok()?;
        let info = certificate.tbs_certificate().subject_public_key_info();
        Some(Self {
            spki: info.to_der().ok()?,
            bits: info.subject_public_key.as_bytes()?.to_vec(),
        })
    }
}

/// A connection over TLS 1.3, with the key of the peer's certificate.
pub(in crate::endpoint) struct Connection {
    messages: Messages<StreamOwned<ClientConnection, Timed<Box<dyn Socket + Send>>>>,
    pub(in crate::endpoint) key: PeerKey,
    host: String,
}

impl Connection {
    /// Connects and shakes hands. Nothing is sent but the handshake.
    pub(in crate::endpoint) fn open(target: &Target) -> Result<Self, UnlockError> {
        let provider = tls::provider();
        let verifier = AnyCertificate(provider.signature_verification_algorithms);
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        // Each connection is a session of its own.
        config.resumption = rustls::client::Resumption::disabled();
        config.enable_early_data = false;
        // The certificate says localhost; the name is no part of what is verified.
        config.enable_sni = false;
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let connection = ClientConnection::new(Arc::new(config), name)?;
        let socket = Timed::new(target.connect(CONNECT)?, CONNECT);
        let mut stream = StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        let certificates = stream.conn.peer_certificates();
        let certificate = certificates.and_then(|certificates| certificates.first());
        let key = certificate.and_then(|certificate| PeerKey::of(certificate));
        Ok(Self {
            messages: Messages::new(stream),
            key: key.ok_or(UnlockError::Certificate)?,
            host: target.to_string(),
        })
    }

    /// This connection's session for a nonce.
    pub(in crate::endpoint) fn session(&mut self, nonce: [u8; NONCE_LEN]) -> Option<Session> {
        tls::session(&self.messages.stream().conn, &self.key.spki, nonce)
    }

    /// The peer's certificate, in DER.
    #[cfg(test)]
    pub(in crate::endpoint) fn certificate(&mut self) -> Vec<u8> {
        self.messages.stream().conn.peer_certificates().unwrap()[0].to_vec()
    }

    /// Sends a request and reads its answer: status and body.
    pub(in crate::endpoint) fn request(
        &mut self,
        method: &str,
        target: &str,
        body: &[u8],
        time: Duration,
    ) -> Result<(u16, Zeroizing<Vec<u8>>), UnlockError> {
        self.messages.stream().sock.end_at(Instant::now() + time);
        self.messages
            .write_request(method, target, &self.host, body)?;
        let head = self.messages.response()?;
        let body = self.messages.body(head.length, MAX_ANSWER)?;
        Ok((head.status, body))
    }
}
