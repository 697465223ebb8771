//! Why certificates could not be had.

use std::path::PathBuf;

use super::trust::NotGenuine;

/// Why certificates could not be fetched, kept or bundled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The address of the service is not usable.
    #[error("{url:?} is no address of a service: {why}")]
    BaseUrl {
        /// As given.
        url: String,
        /// What is wrong.
        why: &'static str,
    },
    /// No complete answer.
    #[error("{url}: {source}")]
    Transport {
        /// The request.
        url: String,
        /// What the client said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An answer with an unusable status.
    #[error("{url}: the server answered with status {status}")]
    Status {
        /// The request.
        url: String,
        /// HTTP status.
        status: u16,
    },
    /// The service has no such document.
    #[error("{url}: the server has no such certificate (status 404)")]
    NotFound {
        /// The request.
        url: String,
    },
    /// A redirect.
    #[error(
        "{url}: redirected (status {status}); redirects are not followed: name the address itself"
    )]
    Redirect {
        /// The request.
        url: String,
        /// HTTP status.
        status: u16,
    },
    /// An answer beyond the limit.
    #[error("{url}: the answer is longer than {limit} bytes")]
    TooLarge {
        /// The request.
        url: String,
        /// In bytes.
        limit: u64,
    },
    /// The service is busy for longer than the caller waits.
    #[error(
        "{url}: the server asks to wait {seconds} s, more than the limit of {limit} s (--max-wait)"
    )]
    AskedToWait {
        /// The request.
        url: String,
        /// In seconds.
        seconds: u64,
        /// In seconds.
        limit: u64,
    },
    /// The time for everything is over.
    #[error("{url}: not asked: the {seconds} s for everything are over (--max-wait)")]
    Deadline {
        /// The request that was not made.
        url: String,
        /// In seconds.
        seconds: u64,
    },
    /// All attempts failed.
    #[error("{last} (after {attempts} attempts)")]
    GaveUp {
        /// Requests made.
        attempts: u32,
        /// The last failure.
        last: Box<FetchError>,
    },
    /// The answer is not what was asked for, or not AMD's. It was not kept.
    #[error("{url}: {source}")]
    NotGenuine {
        /// The request.
        url: String,
        /// What is wrong with it.
        source: NotGenuine,
    },
    /// A file can't be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// No place for the cache.
    #[error("no cache directory: neither XDG_CACHE_HOME nor HOME is set (--cache-dir)")]
    NoCacheDirectory,
    /// Nobody can say which VCEK a report needs.
    #[error("the report's chip id is masked: its VCEK can't be asked for; give it as a file")]
    MaskedChip,
    /// The report says no known kind of key.
    #[error("the report was signed by no known kind of key (VCEK or VLEK)")]
    UnsignedReport,
    /// Neither cache nor service has the key.
    #[error("no VCEK of this chip and TCB was found: {0}")]
    NoSuchKey(String),
    /// A document is neither at hand nor may it be fetched.
    #[error("{0} is not in the cache, and nothing may be fetched (--offline)")]
    Offline(&'static str),
    /// VLEKs are not public.
    #[error(
        "the report was signed by a VLEK, which AMD hands out to the cloud provider alone: take it \
         from the provider or from the guest's extended report, and give it as a file"
    )]
    VlekNotPublic,
}
