//! The rules of HTTP that downloads rest on: which URLs, redirects, ranges, what an answer means.
//! Redirects are followed here, so that each hop is checked.

use std::time::Duration;

use reqwest::{
    Response, StatusCode, Url,
    header::{self, HeaderMap},
};

use super::{
    clients::Clients,
    reach::{self, Reach, is_loopback},
    tuning::Tuning,
    validator::Validator,
};
use crate::error::Error;

/// Most redirects that are followed for one request.
const MAX_REDIRECTS: usize = 8;

/// Whether what comes from a URL is checked against a digest from elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// It is: anyone may deliver it.
    ByDigest,
    /// It is not: only TLS, or this machine, vouches for it.
    ByTransport,
}

/// Reads a URL and refuses what must not be downloaded from.
pub(super) fn parse_url(text: &str, trust: Trust) -> Result<Url, Error> {
    let refuse = |reason| {
        // Nothing of an unreadable URL is repeated: it may hold a password.
        Error::Url {
            url: "the URL".to_owned(),
            reason,
        }
    };
    if text.len() > 2048 {
        return Err(refuse("it is longer than 2048 bytes"));
    }
    let url = Url::parse(text).map_err(|_| refuse("it cannot be read"))?;
    check_url(&url, trust)?;
    Ok(url)
}

fn check_url(url: &Url, trust: Trust) -> Result<(), Error> {
    let refuse = |reason| {
        Err(Error::Url {
            url: shown(url),
            reason,
        })
    };
    if !url.username().is_empty() || url.password().is_some() {
        return refuse("user names and passwords do not belong into URLs");
    }
    match url.scheme() {
        "https" => Ok(()),
        "http" if trust == Trust::ByDigest || is_loopback(url) => Ok(()),
        "http" => refuse("without a digest, only https is trusted"),
        _ => refuse("only https and http are supported"),
    }
}

/// Whether a server at `from` may send us on to `to`, as far as the URLs tell.
fn check_hop(from: &Url, to: &Url) -> Result<(), Error> {
    if from.scheme() == "https" && to.scheme() != "https" {
        return Err(Error::Url {
            url: shown(to),
            reason: "a redirect from https must be to https",
        });
    }
    Ok(())
}

/// A URL for messages: without credentials and query (which may be a signature).
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}

/// An answer that can be used.
pub(super) enum Answer {
    /// The whole content, of a length that may be unknown.
    Whole {
        response: Response,
        length: Option<u64>,
    },
    /// The bytes that were asked for, of a content of `total` bytes.
    Part {
        response: Response,
        total: u64,
        validator: Validator,
    },
    /// There are no such bytes (416).
    Unsatisfiable,
    /// The server does not like the question (400, 501): a request for all may be answered.
    NoRanges,
}

/// Why a request failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// Trying again is no use.
    Fatal(Error),
    /// It may work later, not before `after` if the server said so.
    Retry {
        error: Error,
        after: Option<Duration>,
    },
    /// The content is no longer the one that the download began with.
    Changed,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Fatal(error)
    }
}

/// Everything that one request needs.
pub(super) struct Fetch<'a> {
    pub(super) clients: &'a Clients,
    pub(super) tuning: &'a Tuning,
    pub(super) trust: Trust,
}

impl Fetch<'_> {
    /// Asks for a URL, or for bytes `range` (start, end exclusive) of it, following redirects.
    pub(super) async fn get(
        &self,
        url: &Url,
        range: Option<(u64, u64)>,
        same_as: Option<&Validator>,
    ) -> Result<Answer, Failure> {
        let mut at = url.clone();
        let first = reach::of_host(url).await;
        let mut reach = first;
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(&at, reach, range, same_as).await?;
            let status = response.status();
            if !status.is_redirection() || status == StatusCode::NOT_MODIFIED {
                return judge(&at, response, range, self.tuning);
            }
            let next = response
                .headers()
                .get(header::LOCATION)
                .and_then(|v| v.to_str().ok())
                .and_then(|v| at.join(v).ok());
            let Some(next) = next else {
                let reason = "it redirects to nowhere";
                return Err(Error::Protocol {
                    url: shown(&at),
                    reason,
                }
                .into());
            };
            check_url(&next, self.trust)?;
            check_hop(&at, &next)?;
            reach = reach::of_host(&next).await;
            if (first, reach) == (Reach::Outside, Reach::Inside) {
                return Err(Error::Url {
                    url: shown(&next),
                    reason: "a server outside must not redirect to this host or a private network",
                }
                .into());
            }
            at = next;
        }
        Err(Error::Protocol {
            url: shown(url),
            reason: "it redirects too often",
        }
        .into())
    }

    async fn send(
        &self,
        url: &Url,
        reach: Reach,
        range: Option<(u64, u64)>,
        same_as: Option<&Validator>,
    ) -> Result<Response, Failure> {
        let client = self.clients.get(url, reach, self.tuning).await;
        let client = client.map_err(|reason| Error::Transfer {
            url: shown(url),
            reason,
        })?;
        let mut request = client
            .get(url.clone())
            .header(header::ACCEPT_ENCODING, "identity");
        if let Some((start, end)) = range {
            request = request.header(header::RANGE, format!("bytes={start}-{}", end.max(1) - 1));
            if let Some(value) = same_as.and_then(Validator::if_range) {
                request = request.header(header::IF_RANGE, value);
            }
        }
        match tokio::time::timeout(self.tuning.idle_timeout, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(broken(url, &error)),
            Err(_) => Err(stalled(url, self.tuning.idle_timeout)),
        }
    }

    /// The next bytes of a body; `None` at its end.
    pub(super) async fn chunk(
        &self,
        response: &mut Response,
    ) -> Result<Option<bytes::Bytes>, Failure> {
        let next = tokio::time::timeout(self.tuning.idle_timeout, response.chunk()).await;
        match next {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(error)) => Err(broken(response.url(), &error)),
            Err(_) => Err(stalled(response.url(), self.tuning.idle_timeout)),
        }
    }
}

fn stalled(url: &Url, after: Duration) -> Failure {
    Failure::Retry {
        error: Error::Stalled {
            url: shown(url),
            after,
        },
        after: None,
    }
}

/// A connection error with its causes; reqwest's own text would repeat the URL.
fn broken(url: &Url, error: &reqwest::Error) -> Failure {
    let mut reason = String::new();
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(cause) = source {
        let text = cause.to_string();
        // Each level tends to include the next one's text.
        if !text.contains(url.as_str()) && !reason.contains(&text) {
            if !reason.is_empty() {
                reason.push_str(": ");
            }
            reason.push_str(&text);
        }
        source = cause.source();
    }
    if reason.is_empty() {
        reason.push_str("the connection failed");
    }
    Failure::Retry {
        error: Error::Transfer {
            url: shown(url),
            reason,
        },
        after: None,
    }
}

/// What an answer means. Pure but for the response it passes on.
fn judge(
    url: &Url,
    response: Response,
    range: Option<(u64, u64)>,
    tuning: &Tuning,
) -> Result<Answer, Failure> {
    let headers = response.headers();
    let fatal = |reason| {
        Err(Error::Protocol {
            url: shown(url),
            reason,
        }
        .into())
    };
    let status = response.status();
    if status.is_success() && is_encoded(headers) {
        return fatal("it sends an encoded body, which was not asked for");
    }
    match (status, range) {
        (StatusCode::OK, _) => {
            let length = headers
                .get(header::CONTENT_LENGTH)
                .and_then(|v| v.to_str().ok()?.trim().parse().ok());
            Ok(Answer::Whole { response, length })
        }
        (StatusCode::PARTIAL_CONTENT, Some((start, end))) => {
            let value = headers
                .get(header::CONTENT_RANGE)
                .and_then(|v| v.to_str().ok());
            match value.and_then(content_range) {
                // Bytes of a content whose length the server does not say (RFC 9110, 14.4).
                Some((first, _, None)) if first == start => Ok(Answer::NoRanges),
                Some((first, last, Some(total)))
                    if first == start && last < end && last < total =>
                {
                    let validator = Validator::of(headers);
                    Ok(Answer::Part {
                        response,
                        total,
                        validator,
                    })
                }
                _ => fatal("it sends other bytes than were asked for"),
            }
        }
        (StatusCode::RANGE_NOT_SATISFIABLE, Some(_)) => Ok(Answer::Unsatisfiable),
        (StatusCode::BAD_REQUEST | StatusCode::NOT_IMPLEMENTED, Some(_)) => Ok(Answer::NoRanges),
        _ if status.is_success() => fatal("it answers with an unexpected kind of success"),
        _ => {
            let after = headers
                .get(header::RETRY_AFTER)
                .and_then(|v| v.to_str().ok());
            let after = after
                .and_then(|v| v.trim().parse().ok())
                .map(Duration::from_secs);
            let (url, status) = (shown(url), status.as_u16());
            let error = Error::Status {
                url,
                status,
                retry_after: after,
            };
            let passing = matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504);
            // A server that wants to be left alone for longer is asked again by the caller.
            if passing && after.is_none_or(|a| a <= tuning.max_retry_after) {
                Err(Failure::Retry { error, after })
            } else {
                Err(Failure::Fatal(error))
            }
        }
    }
}

fn is_encoded(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&b| b == b','))
        .map(<[u8]>::trim_ascii)
        // `aws-chunked` tells of an upload: S3 and others keep it, and send the body as it is. If
        // it is not, the digest tells.
        .any(|coding| {
            !coding.is_empty()
                && !coding.eq_ignore_ascii_case(b"identity")
                && !coding.eq_ignore_ascii_case(b"aws-chunked")
        })
}

/// `bytes first-last/total` (RFC 9110, 14.4); a total of `*` is `None`.
fn content_range(value: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, total) = value.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    let total = match total.trim() {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    (first <= last).then_some((first, last, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let ok = |url, trust| parse_url(url, trust).is_ok();
        for url in [
            "https://example.org/x",
            "http://127.0.0.1:80/x",
            "http://[::1]/x",
            "http://localhost/x",
        ] {
            assert!(
                ok(url, Trust::ByTransport) && ok(url, Trust::ByDigest),
                "{url}"
            );
        }
        for url in [
            "http://example.org/x",
            "http://127.0.0.1.example.org/",
            "http://[::2]/",
        ] {
            assert!(
                !ok(url, Trust::ByTransport) && ok(url, Trust::ByDigest),
                "{url}"
            );
        }
        for url in [
            "ftp://example.org/x",
            "file:///etc/passwd",
            "https://u:p@example.org/",
            "x",
            "",
        ] {
            assert!(!ok(url, Trust::ByDigest), "{url}");
        }
        assert!(!ok(
            &format!("https://example.org/{}", "x".repeat(2048)),
            Trust::ByDigest
        ));
        let url = Url::parse("https://u:secret@h/p?signature=s#f").unwrap();
        assert_eq!(shown(&url), "https://h/p");
        let error = check_url(&url, Trust::ByDigest).unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn hops() {
        let ok = |from: &str, to: &str| {
            check_hop(&Url::parse(from).unwrap(), &Url::parse(to).unwrap()).is_ok()
        };
        assert!(ok("https://a/", "https://b/") && ok("http://a/", "https://b/"));
        assert!(ok("http://a/", "http://b/") && !ok("https://a/", "http://a/"));
        assert!(!ok("https://a/", "http://localhost/"));
    }

    #[test]
    fn content_ranges() {
        assert_eq!(content_range("bytes 0-0/25"), Some((0, 0, Some(25))));
        assert_eq!(content_range("bytes 5-9/25"), Some((5, 9, Some(25))));
        assert_eq!(content_range("bytes 0-0/*"), Some((0, 0, None)));
        for bad in [
            "",
            "bytes */25",
            "bytes 9-5/25",
            "items 0-0/25",
            "bytes 0-0",
            "bytes -1-0/2",
        ] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }
}
