//! Why bytes are not a usable certificate.

/// Why bytes are not a readable certificate or revocation list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertError {
    /// Longer than any certificate of AMD's hierarchy.
    #[error("{0} bytes are too long for a certificate")]
    TooLong(usize),
    /// Not DER, or not this structure.
    #[error("malformed: {0}")]
    Der(#[from] der::Error),
    /// An older certificate version.
    #[error("not an X.509 v3 certificate")]
    NotV3,
    /// The signed and the unsigned algorithm identifier differ.
    #[error("its two signature algorithms differ")]
    AlgorithmsDiffer,
    /// The signature is not a whole number of bytes.
    #[error("its signature has unused bits")]
    SignatureBits,
    /// An extension occurs twice.
    #[error("extension {0} occurs twice")]
    DuplicateExtension(String),
}
