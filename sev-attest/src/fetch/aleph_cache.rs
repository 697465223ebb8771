//! The certificates that Aleph Cloud's own client has fetched, as another cache. It is read and
//! never written, and what it holds is verified as anything else is.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::http::MAX_ANSWER;
use super::kds::Document;
use crate::report::SigningKey;

/// A directory of `aleph-sdk`.
#[derive(Debug, Clone)]
pub struct AlephCache {
    root: PathBuf,
}

impl AlephCache {
    /// The cache in `root`, which need not be there.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Where the client keeps it: `$XDG_CACHE_HOME/aleph-sdk/kds`, or `~/.cache/aleph-sdk/kds`.
    #[must_use]
    pub fn default_directory() -> Option<PathBuf> {
        let set = |name| std::env::var_os(name).map(PathBuf::from);
        set("XDG_CACHE_HOME")
            .or_else(|| set("HOME").map(|home| home.join(".cache")))
            .filter(|cache| cache.is_absolute())
            .map(|cache| cache.join("aleph-sdk/kds"))
    }

    /// Where a document would be. The client keeps neither chains nor lists for VLEKs, and knows
    /// no component of a TCB beside these four.
    #[must_use]
    pub fn path(&self, document: &Document) -> Option<PathBuf> {
        let (product, name) = match *document {
            Document::Vcek {
                product,
                chip_id,
                tcb,
            } => {
                let tcb = tcb.decode(product);
                let (chip, bl, tee) = (chip_id, tcb.boot_loader, tcb.tee);
                let name = format!("vcek_{chip}_{bl}_{tee}_{}_{}.der", tcb.snp, tcb.microcode);
                (product, name)
            }
            Document::Crl(product, SigningKey::Vcek) => (product, "crl.der".to_owned()),
            Document::Crl(..) | Document::Chain(..) => return None,
        };
        Some(self.root.join(product.name()).join(name))
    }

    /// A document and its age; `None` where there is none, or none that can be read.
    pub(super) fn get(&self, document: &Document) -> Option<(Vec<u8>, Duration)> {
        let file = File::open(self.path(document)?).ok()?;
        let modified = file.metadata().and_then(|meta| meta.modified()).ok()?;
        let mut bytes = Vec::new();
        file.take(MAX_ANSWER).read_to_end(&mut bytes).ok()?;
        let age = SystemTime::now().duration_since(modified);
        Some((bytes, age.unwrap_or(Duration::ZERO)))
    }
}
