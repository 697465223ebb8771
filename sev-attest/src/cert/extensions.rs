//! AMD's extensions of VCEKs and VLEKs (AMD 57230, tables 8 and 9), decoded strictly.

use const_oid::ObjectIdentifier;
use const_oid::db::rfc5280::{ID_CE_BASIC_CONSTRAINTS, ID_CE_KEY_USAGE};
use der::Decode as _;
use der::asn1::Ia5StringRef;
use x509_cert::ext::Extension;

use crate::product::{Product, TcbLayout};
use crate::report::SigningKey;
use crate::tcb::Tcb;

const STRUCT_VERSION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.1");
const PRODUCT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.2");
const BOOT_LOADER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.1");
const TEE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.2");
const SNP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.3");
const MICROCODE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.8");
const FMC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.9");
/// Reserved components, zero in all certificates.
const RESERVED: [ObjectIdentifier; 4] = [
    ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.4"),
    ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.5"),
    ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.6"),
    ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.7"),
];
const HWID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.4");
const CSP_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.5");

/// All that are looked at, beside the reserved ones.
const LOOKED_AT: [ObjectIdentifier; 9] = [
    STRUCT_VERSION,
    PRODUCT_NAME,
    BOOT_LOADER,
    TEE,
    SNP,
    MICROCODE,
    FMC,
    HWID,
    CSP_ID,
];

/// Longest CSP id that is read, in bytes.
const MAX_CSP_ID: usize = 256;

/// What AMD says in a leaf certificate about the key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndorsementExtensions {
    /// Version of the structure: 0 for Milan and Genoa, 1 for Turin.
    pub struct_version: u8,
    /// Product name as written, as `Milan-B0`.
    pub product_name: String,
    /// The product of that name.
    pub product: Product,
    /// The TCB that the key was derived from.
    pub tcb: Tcb,
    /// The chip (VCEK).
    pub hwid: Option<Vec<u8>>,
    /// The cloud provider (VLEK).
    pub csp_id: Option<String>,
}

impl EndorsementExtensions {
    /// The kind of key: a chip's has a hardware id, a provider's a CSP id.
    #[must_use]
    pub fn signing_key(&self) -> SigningKey {
        if self.hwid.is_some() {
            SigningKey::Vcek
        } else {
            SigningKey::Vlek
        }
    }
}

/// Why a certificate's extensions are not a VCEK's or VLEK's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExtensionError {
    /// An extension is missing.
    #[error("it has no extension {0}")]
    Missing(ObjectIdentifier),
    /// An extension can't be read.
    #[error("extension {0} is malformed")]
    Malformed(ObjectIdentifier),
    /// A product that this program doesn't know.
    #[error("product {0:?} is unknown")]
    UnknownProduct(String),
    /// A structure version that this program doesn't know, or not that of the product.
    #[error("structure version {0} is not that of {1}")]
    StructVersion(u8, Product),
    /// An extension that has no place in certificates of this kind.
    #[error("extension {0} does not belong there")]
    Unexpected(ObjectIdentifier),
    /// Neither a hardware id nor a CSP id, or both.
    #[error("exactly one of hardware id and CSP id must be there")]
    HwidOrCspId,
    /// A reserved component is not zero.
    #[error("the reserved component {0} is not zero")]
    Reserved(ObjectIdentifier),
}

struct Extensions<'a>(&'a [Extension]);

impl<'a> Extensions<'a> {
    fn find(&self, oid: ObjectIdentifier) -> Option<&'a [u8]> {
        let extension = self.0.iter().find(|e| e.extn_id == oid)?;
        Some(extension.extn_value.as_bytes())
    }

    fn get(&self, oid: ObjectIdentifier) -> Result<&'a [u8], ExtensionError> {
        self.find(oid).ok_or(ExtensionError::Missing(oid))
    }

    /// An INTEGER of 0 to 255.
    fn number(&self, oid: ObjectIdentifier) -> Result<u8, ExtensionError> {
        u8::from_der(self.get(oid)?).map_err(|_| ExtensionError::Malformed(oid))
    }

    /// An IA5String.
    fn text(&self, oid: ObjectIdentifier) -> Result<String, ExtensionError> {
        let text = Ia5StringRef::from_der(self.get(oid)?);
        let text = text.map_err(|_| ExtensionError::Malformed(oid))?;
        Ok(text.as_str().to_owned())
    }
}

impl EndorsementExtensions {
    pub(super) fn read(extensions: &[Extension]) -> Result<Self, ExtensionError> {
        let extensions = Extensions(extensions);
        let struct_version = extensions.number(STRUCT_VERSION)?;
        let product_name = extensions.text(PRODUCT_NAME)?;
        let Some(product) = Product::from_certificate_name(&product_name) else {
            return Err(ExtensionError::UnknownProduct(product_name));
        };
        let layout = product.tcb_layout();
        let expected = match layout {
            TcbLayout::MilanGenoa => 0,
            TcbLayout::Turin => 1,
        };
        if struct_version != expected {
            return Err(ExtensionError::StructVersion(struct_version, product));
        }
        let fmc = match layout {
            TcbLayout::Turin => Some(extensions.number(FMC)?),
            TcbLayout::MilanGenoa if extensions.find(FMC).is_some() => {
                return Err(ExtensionError::Unexpected(FMC));
            }
            TcbLayout::MilanGenoa => None,
        };
        for oid in RESERVED {
            if extensions.find(oid).is_some() && extensions.number(oid)? != 0 {
                return Err(ExtensionError::Reserved(oid));
            }
        }
        let hwid = extensions
            .find(HWID)
            .map(|value| hwid(value, product))
            .transpose()?;
        let csp_id = match extensions.find(CSP_ID) {
            Some(_) => Some(extensions.text(CSP_ID)?),
            None => None,
        };
        if csp_id
            .as_ref()
            .is_some_and(|id| id.is_empty() || id.len() > MAX_CSP_ID)
        {
            return Err(ExtensionError::Malformed(CSP_ID));
        }
        if hwid.is_some() == csp_id.is_some() {
            return Err(ExtensionError::HwidOrCspId);
        }
        Ok(Self {
            struct_version,
            tcb: Tcb {
                fmc,
                boot_loader: extensions.number(BOOT_LOADER)?,
                tee: extensions.number(TEE)?,
                snp: extensions.number(SNP)?,
                microcode: extensions.number(MICROCODE)?,
            },
            product_name,
            product,
            hwid,
            csp_id,
        })
    }
}

/// The hardware id stands bare in its extension, without a type of its own.
fn hwid(value: &[u8], product: Product) -> Result<Vec<u8>, ExtensionError> {
    if value.len() == product.hwid_len() {
        Ok(value.to_vec())
    } else {
        Err(ExtensionError::Malformed(HWID))
    }
}

/// A critical extension that this program doesn't look at.
pub(super) fn unknown_critical(extensions: &[Extension]) -> Option<String> {
    let unknown = extensions.iter().find(|extension| {
        let oid = extension.extn_id;
        let known = oid == ID_CE_BASIC_CONSTRAINTS
            || oid == ID_CE_KEY_USAGE
            || LOOKED_AT.contains(&oid)
            || RESERVED.contains(&oid);
        extension.critical && !known
    })?;
    Some(unknown.extn_id.to_string())
}
