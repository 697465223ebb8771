//! As much of HTTP/1.1 as the channel needs, over any stream; every length is bounded before anything
//! is read for it. Bodies come with their length; chunked ones are refused.

use std::io::{self, Read, Write};

use zeroize::Zeroizing;

/// Longest head of a request or response, in bytes.
const MAX_HEAD: usize = 8 << 10;
/// Most header lines.
const MAX_HEADERS: usize = 48;
/// Bytes that are asked of the stream at once.
const CHUNK: usize = 4096;

/// Why a message could not be read.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The connection failed or was closed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Not HTTP.
    #[error("not HTTP: {0}")]
    Malformed(#[from] httparse::Error),
    /// The head is too long.
    #[error("the message's head is longer than {MAX_HEAD} bytes")]
    HeadTooLong,
    /// The body is too long.
    #[error("the message's body is longer than {0} bytes")]
    BodyTooLong(usize),
    /// The length of the body can't be told.
    #[error("the message does not say plainly how long its body is")]
    Length,
}

/// A request's first line and what matters of its header.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RequestHead {
    pub(super) method: String,
    /// Path and query.
    pub(super) target: String,
    /// Length of the body.
    pub(super) length: usize,
    /// Whether the client closes the connection after the answer.
    pub(super) last: bool,
}

/// A response's status and the length of its body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ResponseHead {
    pub(super) status: u16,
    pub(super) length: usize,
}

/// A stream of messages.
#[derive(Debug)]
pub(super) struct Messages<S> {
    stream: S,
    /// Read, and not yet taken. It may hold secrets.
    buffer: Zeroizing<Vec<u8>>,
}

impl<S: Read + Write> Messages<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            buffer: Zeroizing::new(Vec::with_capacity(MAX_HEAD + CHUNK)),
        }
    }

    pub(super) fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The next request's head; `None` where the peer closed the connection between requests.
    pub(super) fn request(&mut self) -> Result<Option<RequestHead>, HttpError> {
        loop {
            if let Some((head, used)) = parse_request(&self.buffer)? {
                self.take(used);
                return Ok(Some(head));
            }
            if !self.more()? {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                };
            }
        }
    }

    /// The next response's head.
    pub(super) fn response(&mut self) -> Result<ResponseHead, HttpError> {
        loop {
            if let Some((head, used)) = parse_response(&self.buffer)? {
                self.take(used);
                return Ok(head);
            }
            if !self.more()? {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    /// The body after a head.
    pub(super) fn body(
        &mut self,
        length: usize,
        max: usize,
    ) -> Result<Zeroizing<Vec<u8>>, HttpError> {
        if length > max {
            return Err(HttpError::BodyTooLong(max));
        }
        let mut body = Zeroizing::new(Vec::with_capacity(length));
        let had = length.min(self.buffer.len());
        body.extend_from_slice(&self.buffer[..had]);
        self.take(had);
        body.resize(length, 0);
        self.stream.read_exact(&mut body[had..])?;
        Ok(body)
    }

    /// Writes a request.
    pub(super) fn write_request(
        &mut self,
        method: &str,
        target: &str,
        host: &str,
        body: &[u8],
    ) -> io::Result<()> {
        let length = body.len();
        let head = format!(
            "{method} {target} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n"
        );
        self.stream.write_all(head.as_bytes())?;
        self.stream.write_all(body)?;
        self.stream.flush()
    }

    /// Writes a response of JSON.
    pub(super) fn write_response(
        &mut self,
        status: u16,
        body: &[u8],
        last: bool,
    ) -> io::Result<()> {
        let (reason, length) = (reason(status), body.len());
        let connection = if last { "close" } else { "keep-alive" };
        let head = format!(
            "HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\n\
             cache-control: no-store\r\ncontent-length: {length}\r\nconnection: {connection}\r\n\r\n"
        );
        self.stream.write_all(head.as_bytes())?;
        self.stream.write_all(body)?;
        self.stream.flush()
    }

    fn take(&mut self, used: usize) {
        let left = Zeroizing::new(self.buffer[used..].to_vec());
        // What was read is wiped, not only forgotten.
        zeroize::Zeroize::zeroize(&mut *self.buffer);
        self.buffer.extend_from_slice(&left);
    }

    /// Reads more of a head; `false` at the end of the stream.
    fn more(&mut self) -> Result<bool, HttpError> {
        let had = self.buffer.len();
        if had > MAX_HEAD {
            return Err(HttpError::HeadTooLong);
        }
        self.buffer.resize(had + CHUNK, 0);
        let read = self.stream.read(&mut self.buffer[had..]);
        self.buffer
            .truncate(had + read.as_ref().map_or(0, |read| *read));
        Ok(read? > 0)
    }
}

/// A head and its length in bytes; `None` where it is not whole yet.
fn parse_request(bytes: &[u8]) -> Result<Option<(RequestHead, usize)>, HttpError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(used) = request.parse(bytes)? else {
        return Ok(None);
    };
    let head = RequestHead {
        method: request.method.unwrap_or_default().to_owned(),
        target: request.path.unwrap_or_default().to_owned(),
        length: content_length(request.headers)?.unwrap_or(0),
        last: request.version != Some(1) || says_close(request.headers),
    };
    Ok(Some((head, used)))
}

/// A head and its length in bytes; `None` where it is not whole yet.
fn parse_response(bytes: &[u8]) -> Result<Option<(ResponseHead, usize)>, HttpError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(used) = response.parse(bytes)? else {
        return Ok(None);
    };
    let head = ResponseHead {
        status: response.code.unwrap_or_default(),
        length: content_length(response.headers)?.ok_or(HttpError::Length)?,
    };
    Ok(Some((head, used)))
}

/// The one length that a header names.
fn content_length(headers: &[httparse::Header<'_>]) -> Result<Option<usize>, HttpError> {
    let named = |name: &'static str| {
        headers
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
    };
    if named("transfer-encoding").next().is_some() {
        return Err(HttpError::Length);
    }
    let mut lengths = named("content-length");
    match (lengths.next(), lengths.next()) {
        (None, _) => Ok(None),
        (Some(length), None) => {
            let digits = std::str::from_utf8(length.value).unwrap_or_default();
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(HttpError::Length);
            }
            digits.parse().map(Some).map_err(|_| HttpError::Length)
        }
        (Some(_), Some(_)) => Err(HttpError::Length),
    }
}

fn says_close(headers: &[httparse::Header<'_>]) -> bool {
    headers.iter().any(|header| {
        header.name.eq_ignore_ascii_case("connection")
            && header.value.eq_ignore_ascii_case(b"close")
    })
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        413 => "Content Too Large",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream that gives its bytes so many at a time.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.1.min(self.0.len()).min(buffer.len());
            buffer[..length].copy_from_slice(&self.0[..length]);
            self.0 = &self.0[length..];
            Ok(length)
        }
    }

    impl Write for Slow<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn requests_in_pieces_and_one_after_the_other() {
        let text = b"POST /a?b=c HTTP/1.1\r\nContent-Length: 3\r\n\r\nxyzGET /d HTTP/1.1\r\nConnection: close\r\n\r\n";
        for step in [1, 2, 7, 4096] {
            let mut messages = Messages::new(Slow(text, step));
            let first = messages.request().unwrap().unwrap();
            assert_eq!((&*first.method, &*first.target), ("POST", "/a?b=c"));
            assert_eq!((first.length, first.last), (3, false));
            assert_eq!(&**messages.body(first.length, 3).unwrap(), b"xyz");
            let second = messages.request().unwrap().unwrap();
            assert_eq!((second.length, second.last), (0, true));
            assert!(messages.request().unwrap().is_none());
        }
    }

    #[test]
    fn what_is_not_plain_is_refused() {
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(2 * MAX_HEAD));
        for (text, expected) in [
            ("\x16\x03\x01\r\n\r\n", "not HTTP"),
            (
                "GET / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n",
                "plainly",
            ),
            ("GET / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", "plainly"),
            ("GET / HTTP/1.1\r\ncontent-length: +1\r\n\r\n", "plainly"),
            (
                "GET / HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n",
                "plainly",
            ),
            (
                "GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
                "plainly",
            ),
            ("GET / HTTP/1.1\r\nhost", "unexpected end"),
            (&long, "head is longer"),
        ] {
            let mut messages = Messages::new(Slow(text.as_bytes(), 512));
            let said = messages.request().unwrap_err().to_string();
            assert!(said.contains(expected), "{text:.60}: {said}");
        }
        let mut messages = Messages::new(Slow(b"xyz", 1));
        assert!(matches!(
            messages.body(4, 3),
            Err(HttpError::BodyTooLong(3))
        ));
        let mut messages = Messages::new(Slow(b"xyz", 1));
        assert!(matches!(messages.body(4, 4), Err(HttpError::Io(_))));
        let mut messages = Messages::new(Slow(b"HTTP/1.1 200 OK\r\n\r\n", 64));
        assert!(matches!(messages.response(), Err(HttpError::Length)));
    }
}
