//! The guest's key of this boot, and the certificate that TLS shows it in.
//!
//! The certificate is worth nothing by itself: nobody signed it but its own key. Names and dates are
//! there because X.509 has them.

use der::asn1::{Ia5String, OctetString};
use der::oid::ObjectIdentifier;
use der::{DateTime, Encode as _};
use p384::ecdsa::{DerSignature, SigningKey};
use p384::pkcs8::{EncodePrivateKey as _, EncodePublicKey as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{Builder as _, CertificateBuilder};
use x509_cert::certificate::TbsCertificate;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::{Extension, ToExtension as _};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{SubjectPublicKeyInfoOwned, SubjectPublicKeyInfoRef};
use x509_cert::time::{Time, Validity};
use zeroize::Zeroizing;

use super::ServeError;
use crate::channel::v1;
use crate::report::Report;

/// A TLS key that exists in this process alone.
pub(crate) struct BootKey {
    key: SigningKey,
    /// SubjectPublicKeyInfo in DER.
    pub(in crate::endpoint) spki: Vec<u8>,
    /// The uncompressed point.
    pub(in crate::endpoint) point: Vec<u8>,
}

impl BootKey {
    /// A new key.
    pub(in crate::endpoint) fn generate() -> Result<Self, ServeError> {
        loop {
            let mut scalar = Zeroizing::new([0; 48]);
            getrandom::fill(&mut *scalar).map_err(|error| ServeError::Random(error.to_string()))?;
            // Zero, and what is above the curve's order, is no key.
            if let Ok(key) = SigningKey::from_slice(&*scalar) {
                return Self::of(key);
            }
        }
    }

    pub(in crate::endpoint) fn of(key: SigningKey) -> Result<Self, ServeError> {
        let public = key.verifying_key();
        let spki = public.to_public_key_der().map_err(certificate)?;
        Ok(Self {
            spki: spki.into_vec(),
            point: public.to_sec1_point(false).as_bytes().to_vec(),
            key,
        })
    }

    /// The key as rustls takes it.
    pub(in crate::endpoint) fn to_rustls(&self) -> Result<PrivateKeyDer<'static>, ServeError> {
        let document = self.key.to_pkcs8_der().map_err(certificate)?;
        let key = PrivatePkcs8KeyDer::from(document.as_bytes().to_vec());
        Ok(key.into())
    }

    /// A certificate for the key, with a report for clients of version 1 where there is one.
    pub(in crate::endpoint) fn certificate(
        &self,
        report: Option<&Report>,
    ) -> Result<CertificateDer<'static>, ServeError> {
        let mut serial = [0; 8];
        getrandom::fill(&mut serial).map_err(|error| ServeError::Random(error.to_string()))?;
        let date = |year| DateTime::new(year, 1, 1, 0, 0, 0).map_err(certificate);
        // A guest without the time must have a certificate too.
        let validity = Validity::new(Time::from(date(2020)?), Time::from(date(2120)?));
        let spki: SubjectPublicKeyInfoOwned =
            der::Decode::from_der(&self.spki).map_err(certificate)?;
        let serial = SerialNumber::new(&serial).map_err(certificate)?;
        let profile = Profile {
            name: "CN=localhost".parse().map_err(certificate)?,
            evidence: report
                .map(v1::extension_value)
                .transpose()
                .map_err(certificate)?,
        };
        let builder =
            CertificateBuilder::new(profile, serial, validity, spki).map_err(certificate)?;
        let built = builder
            .build::<_, DerSignature>(&self.key)
            .map_err(certificate)?;
        Ok(built.to_der().map_err(certificate)?.into())
    }
}

fn certificate(error: impl std::fmt::Display) -> ServeError {
    ServeError::Certificate(error.to_string())
}

/// A certificate signed by its own key.
struct Profile {
    name: Name,
    /// Value of version 1's extension.
    evidence: Option<Vec<u8>>,
}

impl BuilderProfile for Profile {
    fn get_issuer(&self, subject: &Name) -> Name {
        subject.clone()
    }

    fn get_subject(&self) -> Name {
        self.name.clone()
    }

    fn build_extensions(
        &self,
        _spk: SubjectPublicKeyInfoRef<'_>,
        _issuer_spk: SubjectPublicKeyInfoRef<'_>,
        tbs: &TbsCertificate,
    ) -> x509_cert::builder::Result<Vec<Extension>> {
        let names = SubjectAltName(vec![GeneralName::DnsName(Ia5String::new("localhost")?)]);
        let mut extensions = vec![names.to_extension(tbs.subject(), &[])?];
        if let Some(evidence) = &self.evidence {
            extensions.push(Extension {
                extn_id: ObjectIdentifier::new(v1::EXTENSION).map_err(der::Error::from)?,
                critical: false,
                extn_value: OctetString::new(evidence.as_slice())?,
            });
        }
        Ok(extensions)
    }
}
