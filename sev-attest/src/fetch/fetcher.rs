//! Cache first, then the service: the source of certificates that `verify` uses.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::aleph_cache::AlephCache;
use super::cache::Cache;
use super::error::FetchError;
use super::http::Client;
use super::kds::Document;
use super::trust::{NotGenuine, Trust};
use crate::cert::{Certificate, Crl};
use crate::product::Product;
use crate::report::SigningKey;
use crate::source::{CertificateSource, SourceError, Wanted};
use crate::time::UnixTime;

/// Age at which a revocation list is asked for again, though it may be valid for weeks.
const CRL_REFRESH: Duration = Duration::from_secs(24 * 3600);

/// Where a document came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// This file of the cache.
    Cache(PathBuf),
    /// This URL.
    Service(String),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cache(path) => path.display().fmt(f),
            Self::Service(url) => f.write_str(url),
        }
    }
}

/// A verified document.
#[derive(Debug)]
pub struct Found<T> {
    /// The document.
    pub document: T,
    /// Where it came from.
    pub origin: Origin,
}

/// A document from the service, with its bytes as they came.
type Fetched<T> = (Found<T>, Vec<u8>);

/// Finds certificates in a cache and at a service, both optional.
#[derive(Debug)]
pub struct Fetcher {
    trust: Trust,
    cache: Option<Cache>,
    /// Looked at where the cache has nothing.
    aleph: Option<AlephCache>,
    client: Option<Client>,
    /// What the service said that it does not have.
    unknown: Mutex<Vec<String>>,
    /// Failures that were forgiven; `None` where none is.
    forgiven: Option<Mutex<Vec<FetchError>>>,
}

impl Fetcher {
    /// Without a client nothing is sent; without a cache nothing is kept.
    #[must_use]
    pub fn new(trust: Trust, cache: Option<Cache>, client: Option<Client>) -> Self {
        Self {
            trust,
            cache,
            aleph: None,
            client,
            unknown: Mutex::default(),
            forgiven: None,
        }
    }

    /// Looks into the cache of Aleph Cloud's client too, after the own one.
    #[must_use]
    pub fn with_aleph_cache(mut self, cache: AlephCache) -> Self {
        self.aleph = Some(cache);
        self
    }

    /// The error where no source has the key: with the service's answer, if it was asked.
    #[must_use]
    pub fn no_such_key(&self) -> FetchError {
        let unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        FetchError::NoSuchKey(if unknown.is_empty() {
            "the service was not asked".to_owned()
        } else {
            unknown.join("; ")
        })
    }

    /// A cache that can't be read counts as empty, and one that can't be written keeps nothing;
    /// [`CertificateSource::notes`] tells. For those who need the answer and not the cache.
    #[must_use]
    pub fn forgiving(mut self) -> Self {
        self.forgiven = Some(Mutex::default());
        self
    }

    /// Notes a failure where failures are forgiven.
    fn forgive(&self, error: FetchError) -> Result<(), FetchError> {
        let forgiven = self.forgiven.as_ref().map(Mutex::lock);
        let Some(Ok(mut forgiven)) = forgiven else {
            return Err(error);
        };
        forgiven.push(error);
        Ok(())
    }

    /// The root that answers must lead to.
    #[must_use]
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The VCEK that `wanted` describes, of whichever product it can be. `Ok(None)` where the
    /// cache has none and the service says the same, or may not be asked. VLEKs are never had.
    ///
    /// One in the cache that is not valid `at` that time serves only where the service has none.
    ///
    /// # Errors
    /// When the service didn't answer or answered wrongly, and for a chip that is masked.
    pub fn leaf(
        &self,
        wanted: &Wanted,
        at: UnixTime,
    ) -> Result<Option<Found<Certificate>>, FetchError> {
        if wanted.signing_key == SigningKey::Vlek {
            return Ok(None);
        }
        if wanted.chip_id.is_zero() {
            return Err(FetchError::MaskedChip);
        }
        let documents: Vec<_> = wanted
            .products()
            .into_iter()
            .map(|product| Document::Vcek {
                product,
                chip_id: wanted.chip_id,
                tcb: wanted.reported_tcb,
            })
            .collect();
        // all of the cache before any of the network
        let mut kept = None;
        for document in &documents {
            let read = |bytes: &[u8]| self.trust.leaf(bytes, wanted);
            if let Some((found, _)) = self.cached(document, read)? {
                if found.document.is_valid_at(at) {
                    return Ok(Some(found));
                }
                kept = Some(found);
            }
        }
        for document in &documents {
            match self.fetched(document, |bytes| self.trust.leaf(bytes, wanted)) {
                Ok(Some((found, bytes))) => {
                    self.keep(document, &bytes)?;
                    return Ok(Some(found));
                }
                Ok(None) => {}
                Err(FetchError::NotFound { url }) => {
                    let mut unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
                    unknown.push(format!(
                        "the service knows no certificate of this chip and TCB (404): {url}"
                    ));
                }
                Err(error) if kept.is_some() => {
                    self.forgive(error)?;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(kept)
    }

    /// ASK or ASVK, and ARK, as the service gives them.
    ///
    /// # Errors
    /// When the service didn't answer or answered wrongly.
    pub fn chain(
        &self,
        product: Product,
        key: SigningKey,
    ) -> Result<Option<Found<[Certificate; 2]>>, FetchError> {
        let document = Document::Chain(product, key);
        let read = |bytes: &[u8]| self.trust.chain(bytes, product, key);
        if let Some((found, _)) = self.cached(&document, read)? {
            return Ok(Some(found));
        }
        let Some((found, bytes)) = self.fetched(&document, read)? else {
            return Ok(None);
        };
        self.keep(&document, &bytes)?;
        Ok(Some(found))
    }

    /// The revocation list. One in the cache serves for a day; after that the service is asked for
    /// a newer one, and the old one serves on while it is valid and the service fails.
    ///
    /// A list older than the cached one is not taken: it may be replayed to hide a revocation.
    ///
    /// # Errors
    /// When the service didn't answer or answered wrongly, and no valid one is in the cache.
    pub fn crl(
        &self,
        product: Product,
        key: SigningKey,
        now: UnixTime,
    ) -> Result<Option<Found<Crl>>, FetchError> {
        let document = Document::Crl(product, key);
        let read = |bytes: &[u8]| self.trust.crl(bytes, product, key);
        let cached = self.cached(&document, read)?;
        let (kept, age) = match cached {
            Some((found, age)) => (Some(found), age),
            None => (None, Duration::MAX),
        };
        let valid = |crl: &Crl| {
            crl.this_update() <= now && crl.next_update().is_some_and(|next| now <= next)
        };
        let kept_is_valid = kept.as_ref().is_some_and(|found| valid(&found.document));
        if kept_is_valid && age < CRL_REFRESH {
            return Ok(kept);
        }
        match self.fetched(&document, read) {
            Ok(Some((new, bytes))) => {
                let older =
                    |old: &Found<Crl>| old.document.this_update() > new.document.this_update();
                if kept.as_ref().is_some_and(older) {
                    return Ok(kept);
                }
                self.keep(&document, &bytes)?;
                Ok(Some(new))
            }
            // offline: the appraisal says so when it is out of date
            Ok(None) => Ok(kept),
            Err(_) if kept_is_valid => Ok(kept),
            Err(error) => Err(error),
        }
    }

    fn cached<T>(
        &self,
        document: &Document,
        read: impl Fn(&[u8]) -> Result<T, NotGenuine>,
    ) -> Result<Option<(Found<T>, Duration)>, FetchError> {
        let found = |path: PathBuf, bytes: &[u8], age| {
            // what does not verify is as good as absent, and is replaced by the next download
            let document = read(bytes).ok()?;
            let origin = Origin::Cache(path);
            Some((Found { document, origin }, age))
        };
        if let Some(cache) = &self.cache {
            match cache.get(document) {
                Ok(Some((bytes, age))) => {
                    let own = found(cache.path(document), &bytes, age);
                    if own.is_some() {
                        return Ok(own);
                    }
                }
                Ok(None) => {}
                Err(error) => self.forgive(error)?,
            }
        }
        Ok(self.aleph.as_ref().and_then(|cache| {
            let (bytes, age) = cache.get(document)?;
            found(cache.path(document)?, &bytes, age)
        }))
    }

    fn fetched<T>(
        &self,
        document: &Document,
        read: impl Fn(&[u8]) -> Result<T, NotGenuine>,
    ) -> Result<Option<Fetched<T>>, FetchError> {
        let Some(client) = &self.client else {
            return Ok(None);
        };
        let path = document.path();
        let bytes = client.get(&path)?;
        let url = client.url(&path);
        match read(&bytes) {
            Ok(content) => {
                let found = Found {
                    document: content,
                    origin: Origin::Service(url),
                };
                Ok(Some((found, bytes)))
            }
            Err(source) => Err(FetchError::NotGenuine { url, source }),
        }
    }

    fn keep(&self, document: &Document, bytes: &[u8]) -> Result<(), FetchError> {
        if let Some(cache) = &self.cache {
            if let Err(error) = cache.put(document, bytes) {
                self.forgive(error)?;
            }
        }
        Ok(())
    }
}

impl CertificateSource for Fetcher {
    fn name(&self) -> String {
        match &self.client {
            Some(client) => client.url(""),
            None => "cache".to_owned(),
        }
    }

    fn leaf(&self, wanted: &Wanted, at: UnixTime) -> Result<Option<Certificate>, SourceError> {
        match Self::leaf(self, wanted, at) {
            Ok(found) => Ok(found.map(|found| found.document)),
            Err(FetchError::MaskedChip) if self.client.is_none() => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn crl(&self, product: Product, key: SigningKey) -> Result<Option<Crl>, SourceError> {
        match Self::crl(self, product, key, UnixTime::now()) {
            Ok(found) => Ok(found.map(|found| found.document)),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn notes(&self) -> Vec<String> {
        let unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        let mut notes = unknown.clone();
        if let Some(Ok(forgiven)) = self.forgiven.as_ref().map(Mutex::lock) {
            notes.extend(forgiven.iter().map(ToString::to_string));
        }
        notes
    }
}

impl Fetcher {
    fn failed(&self, error: FetchError) -> SourceError {
        SourceError {
            source_name: self.name(),
            reason: Box::new(error),
        }
    }
}
