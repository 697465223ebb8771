//! A small blocking HTTP client: one GET, bounded in size, time and repetitions.
//!
//! Redirects are refused: the service has none, and a mirror that wants one can be named itself.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::error::FetchError;
use super::retry::{Next, Outcome, RetryPolicy, retry_after};

/// AMD's Key Distribution Service.
pub const KDS: &str = "https://kdsintf.amd.com";

/// Largest answer read, in bytes. Certificates have about 1,300, chains 5,000, CRLs 1,000.
pub const MAX_ANSWER: u64 = 1 << 20;

/// The address of a service, as `https://host[:port][/path]`, without a slash at its end.
///
/// `http://` is accepted too: what is fetched carries AMD's signatures, so a mirror need not be
/// trusted. It only learns what was asked for, and may hold a newer CRL back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl(String);

impl BaseUrl {
    /// The address as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for BaseUrl {
    fn default() -> Self {
        Self(KDS.to_owned())
    }
}

impl std::str::FromStr for BaseUrl {
    type Err = FetchError;

    fn from_str(text: &str) -> Result<Self, FetchError> {
        let refuse = |why| FetchError::BaseUrl {
            url: text.to_owned(),
            why,
        };
        let rest = text
            .strip_prefix("https://")
            .or_else(|| text.strip_prefix("http://"))
            .ok_or_else(|| refuse("it must begin with https:// or http://"))?;
        if rest.is_empty() || rest.starts_with('/') || rest.starts_with(':') {
            return Err(refuse("it names no host"));
        }
        if rest.contains(['?', '#', '@']) {
            return Err(refuse("a query, fragment or user name has no place in it"));
        }
        if !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(refuse("it has blanks or characters outside ASCII"));
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

/// Limits of a [`Client`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Time for one request, from the name's look-up to the last byte.
    pub request_time: Duration,
    /// Repetitions.
    pub retry: RetryPolicy,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_time: Duration::from_secs(20),
            retry: RetryPolicy::default(),
        }
    }
}

/// Fetches documents from one service.
#[derive(Debug)]
pub struct Client {
    base: BaseUrl,
    limits: Limits,
    agent: ureq::Agent,
    /// When the first request began, of all documents together.
    started: Mutex<Option<Instant>>,
}

impl Client {
    /// A client of the service at `base`. Nothing is sent yet.
    #[must_use]
    pub fn new(base: BaseUrl, limits: Limits) -> Self {
        let tls = ureq::tls::TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let config = ureq::Agent::config_builder()
            .tls_config(tls)
            .timeout_global(Some(limits.request_time))
            .timeout_connect(Some(limits.request_time.min(Duration::from_secs(10))))
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .max_response_header_size(16 << 10)
            .user_agent(concat!("sev-attest/", env!("CARGO_PKG_VERSION")))
            .build();
        Self {
            base,
            limits,
            agent: config.into(),
            started: Mutex::default(),
        }
    }

    /// The address of `path` (with its leading slash) at this service.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base.as_str())
    }

    /// Time since the first request began.
    fn elapsed(&self) -> Duration {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        started.get_or_insert_with(Instant::now).elapsed()
    }

    /// The document at `path`, asking again as [`Limits`] allow.
    ///
    /// # Errors
    /// When no complete answer with status 200 was had within the limits.
    pub fn get(&self, path: &str) -> Result<Vec<u8>, FetchError> {
        let url = self.url(path);
        let mut attempt = 1;
        let total = self.limits.retry.total_time;
        loop {
            let left = total.saturating_sub(self.elapsed());
            if left.is_zero() {
                let seconds = total.as_secs();
                return Err(FetchError::Deadline { url, seconds });
            }
            let (outcome, error) = match self.once(&url, left.min(self.limits.request_time)) {
                Ok(body) => return Ok(body),
                Err(failure) => failure,
            };
            let retry = &self.limits.retry;
            let next = retry.next(attempt, outcome, self.elapsed(), jitter());
            match next {
                Next::Wait(wait) => {
                    std::thread::sleep(wait);
                    attempt += 1;
                }
                Next::Final => return Err(error),
                Next::TooLong(asked) => {
                    return Err(FetchError::AskedToWait {
                        url,
                        seconds: asked.as_secs(),
                        limit: total.as_secs(),
                    });
                }
                Next::Exhausted => {
                    return Err(FetchError::GaveUp {
                        attempts: attempt,
                        last: Box::new(error),
                    });
                }
            }
        }
    }

    fn once(&self, url: &str, time: Duration) -> Result<Vec<u8>, (Outcome, FetchError)> {
        let broken = |source: ureq::Error| {
            // an address or an answer that is wrong in itself stays so
            let outcome = match source {
                ureq::Error::Io(_)
                | ureq::Error::Timeout(_)
                | ureq::Error::ConnectionFailed
                | ureq::Error::BodyStalled
                | ureq::Error::Protocol(_) => Outcome::Broken,
                _ => Outcome::Status(0, None),
            };
            let error = match source {
                ureq::Error::BodyExceedsLimit(limit) => FetchError::TooLarge {
                    url: url.to_owned(),
                    limit,
                },
                source => FetchError::Transport {
                    url: url.to_owned(),
                    source: Box::new(source),
                },
            };
            (outcome, error)
        };
        let request = self.agent.get(url).config();
        let request = request.timeout_global(Some(time)).build();
        let mut answer = request.call().map_err(broken)?;
        let status = answer.status().as_u16();
        if status != 200 {
            let asked = answer
                .headers()
                .get("retry-after")
                .and_then(|value| value.to_str().ok())
                .and_then(|value| retry_after(value, SystemTime::now()));
            let error = match status {
                300..400 => FetchError::Redirect {
                    url: url.to_owned(),
                    status,
                },
                404 => FetchError::NotFound {
                    url: url.to_owned(),
                },
                _ => FetchError::Status {
                    url: url.to_owned(),
                    status,
                },
            };
            return Err((Outcome::Status(status, asked), error));
        }
        answer
            .body_mut()
            .with_config()
            .limit(MAX_ANSWER)
            .read_to_vec()
            .map_err(broken)
    }
}

/// A number that differs from call to call; it spreads waits and guards nothing.
fn jitter() -> u8 {
    RandomState::new().build_hasher().finish().to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls() {
        let parse = |text: &str| text.parse::<BaseUrl>();
        assert_eq!(BaseUrl::default().as_str(), KDS);
        assert_eq!(
            parse("http://127.0.0.1:8080/kds//").unwrap().as_str(),
            "http://127.0.0.1:8080/kds"
        );
        for text in [
            "",
            "kdsintf.amd.com",
            "ftp://host",
            "https://",
            "https:///path",
            "http://:80",
            "https://user@host",
            "https://host/?q",
            "https://host/#f",
            "https://ho st",
            "https://höst",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
