//! Which version of a content an answer of a server belongs to.

use reqwest::header::{self, HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};

/// Which version of a content an answer belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Validator {
    etag: Option<String>,
    last_modified: Option<String>,
}

impl Validator {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let text = |name| {
            let value: &HeaderValue = headers.get(name)?;
            value
                .to_str()
                .ok()
                .filter(|v| v.len() <= 1024)
                .map(str::to_owned)
        };
        Validator {
            etag: text(header::ETAG),
            last_modified: text(header::LAST_MODIFIED),
        }
    }

    /// Whether two answers may be parts of one content: where both have an entity tag, it
    /// decides; else where both have a date, that.
    pub(super) fn agrees(&self, other: &Validator) -> bool {
        match (&self.etag, &other.etag) {
            (Some(a), Some(b)) => a == b,
            _ => match (&self.last_modified, &other.last_modified) {
                (Some(a), Some(b)) => a == b,
                _ => true,
            },
        }
    }

    /// The value for `If-Range` (RFC 9110, 13.1.5: a strong entity tag, or a date).
    pub(super) fn if_range(&self) -> Option<&str> {
        self.etag
            .as_deref()
            .filter(|e| e.starts_with('"'))
            .or(self.last_modified.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validators() {
        let v = |etag: Option<&str>, date: Option<&str>| Validator {
            etag: etag.map(str::to_owned),
            last_modified: date.map(str::to_owned),
        };
        let none = v(None, None);
        assert!(none.agrees(&v(Some("\"a\""), None)) && none.if_range().is_none());
        assert!(!v(Some("\"a\""), Some("d")).agrees(&v(Some("\"b\""), Some("d"))));
        assert!(!v(Some("\"a\""), Some("d")).agrees(&v(None, Some("e"))));
        assert_eq!(v(Some("W/\"a\""), Some("d")).if_range(), Some("d"));
        assert_eq!(v(Some("\"a\""), Some("d")).if_range(), Some("\"a\""));
    }
}
