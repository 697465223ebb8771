//! Certificates from AMD's Key Distribution Service, kept in a cache.
//!
//! Nothing that the service, a mirror or the network says is trusted: an answer is kept and handed
//! on only when it is the document that was asked for and bears the signatures of the trusted root.

mod aleph_cache;
mod bundle;
mod cache;
mod error;
mod fetcher;
mod http;
mod kds;
mod retry;
mod trust;

pub use aleph_cache::AlephCache;
pub use bundle::{Bundle, bundle, pem};
pub use cache::{Cache, write_atomically, write_named};
pub use error::FetchError;
pub use fetcher::{Fetcher, Found, Origin};
pub use http::{BaseUrl, Client, KDS, Limits, MAX_ANSWER};
pub use kds::Document;
pub use retry::{Next, Outcome, RetryPolicy, retry_after};
pub use trust::{ForeignRoot, NotGenuine, Trust};
