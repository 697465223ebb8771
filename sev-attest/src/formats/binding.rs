//! What comes with a report and is true only if the report data says so.

pub use super::azure::RuntimeClaims;
pub use super::ratls::CertificateKey;
use crate::channel::ChannelBinding;

/// What came with a report and has to be bound by its report data.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Binding {
    /// Claims of an Azure virtual machine.
    RuntimeClaims(RuntimeClaims),
    /// The key of the certificate that the report was in.
    CertificateKey(CertificateKey),
    /// The attested channel that the report came by.
    Channel(ChannelBinding),
}
