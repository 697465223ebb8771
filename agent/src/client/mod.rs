//! A client of the agent's API, over its unix socket: what the command line uses.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use crn_api_types::{CreateRequest, ErrorBody, ErrorCode, ErrorDetail};
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header,
    upgrade::Upgraded,
};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;

use crate::{api::CONSOLE_PROTOCOL, ids::clip};

/// How long the agent may take to begin its answer: longer than it allows itself.
const ANSWER_LIMIT: Duration = Duration::from_secs(75);
/// How long connecting may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Largest answer that is not a stream, in bytes.
const MAX_ANSWER: usize = 64 << 20;
/// Longest line of a stream, in bytes.
const MAX_LINE: usize = 1 << 20;

/// Why there is no answer, or a bad one.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("cannot reach the agent at {socket}: {source}")]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The agent refused or failed.
    #[error(transparent)]
    Refused(ErrorDetail),
    /// The connection broke.
    #[error("the connection to the agent broke: {0}")]
    Broken(String),
    /// What came is not what this client knows.
    #[error("the agent's answer cannot be read ({0}); do its version and this program's differ?")]
    Unreadable(String),
    /// No answer in time.
    #[error("the agent does not answer")]
    Late,
}

/// The body of a request.
type Sent = Full<Bytes>;

/// Where the agent is.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

/// An answer that comes in lines.
pub struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
    ended: bool,
}

/// An answer that comes in bytes.
pub struct Chunks(Incoming);

fn broken(e: &hyper::Error) -> ClientError {
    ClientError::Broken(e.to_string())
}

impl Client {
    /// A client of the agent that listens on `socket`.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// Asks for something.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        read(self.request(Method::GET, path, None).await?).await
    }

    /// Sends a body, if any, and reads the answer.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn send<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<T, ClientError> {
        read(self.request(method, path, encode(body)?).await?).await
    }

    /// Creates an instance; with a key, at most one however often it is sent.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn create<T: DeserializeOwned>(
        &self,
        request: &CreateRequest,
        key: Option<&str>,
    ) -> Result<T, ClientError> {
        let mut head =
            builder(Method::POST, "/v1/instances").header(header::CONTENT_TYPE, "application/json");
        if let Some(key) = key {
            head = head.header("idempotency-key", key);
        }
        let body = encode(Some(request))?.unwrap_or_default();
        let request = head.body(Sent::from(body)).map_err(|e| {
            ClientError::Refused(ErrorDetail::new(ErrorCode::Invalid, e.to_string()))
        })?;
        read(refuse(self.exchange(request).await?).await?).await
    }

    /// Deletes something that is gone at once.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn remove(&self, path: &str) -> Result<(), ClientError> {
        self.request(Method::DELETE, path, None).await.map(|_| ())
    }

    /// Asks for something that comes in lines.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn lines<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<Lines, ClientError> {
        let body = self.request(method, path, encode(body)?).await?.into_body();
        Ok(Lines {
            body,
            buffer: Vec::new(),
            ended: false,
        })
    }

    /// Asks for something that comes in bytes.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn chunks(&self, path: &str) -> Result<Chunks, ClientError> {
        Ok(Chunks(
            self.request(Method::GET, path, None).await?.into_body(),
        ))
    }

    /// Turns a connection into an instance's console.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn console(&self, path: &str) -> Result<TokioIo<Upgraded>, ClientError> {
        let request = builder(Method::GET, path)
            .header(header::CONNECTION, "upgrade")
            .header(header::UPGRADE, CONSOLE_PROTOCOL)
            .body(Sent::default())
            .map_err(|e| ClientError::Unreadable(e.to_string()))?;
        let response = self.exchange(request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let response = refuse(response).await?;
            return Err(ClientError::Unreadable(response.status().to_string()));
        }
        let upgraded = hyper::upgrade::on(response).await.map_err(|e| broken(&e))?;
        Ok(TokioIo::new(upgraded))
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Response<Incoming>, ClientError> {
        let mut request = builder(method, path);
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(Sent::from(body.unwrap_or_default()))
            .map_err(|e| ClientError::Unreadable(e.to_string()))?;
        refuse(self.exchange(request).await?).await
    }

    async fn exchange(&self, request: Request<Sent>) -> Result<Response<Incoming>, ClientError> {
        let unreachable = |source| ClientError::Unreachable {
            socket: self.socket.clone(),
            source,
        };
        let connect = tokio::time::timeout(CONNECT_LIMIT, UnixStream::connect(&self.socket));
        let stream = connect
            .await
            .map_err(|_| ClientError::Late)?
            .map_err(unreachable)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| broken(&e))?;
        // The connection moves the bytes of this one request and ends with its answer.
        tokio::spawn(connection.with_upgrades());
        let answer = tokio::time::timeout(ANSWER_LIMIT, sender.send_request(request));
        answer
            .await
            .map_err(|_| ClientError::Late)?
            .map_err(|e| broken(&e))
    }
}

fn builder(method: Method, path: &str) -> hyper::http::request::Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "crn-agent")
}

fn encode<B: Serialize>(body: Option<&B>) -> Result<Option<Vec<u8>>, ClientError> {
    let encoded = body.map(serde_json::to_vec).transpose();
    encoded.map_err(|e| ClientError::Unreadable(e.to_string()))
}

/// Turns an answer that is an error into one.
async fn refuse(response: Response<Incoming>) -> Result<Response<Incoming>, ClientError> {
    let status = response.status();
    if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response);
    }
    let bytes = collect(response).await?;
    match serde_json::from_slice::<ErrorBody>(&bytes) {
        Ok(body) => Err(ClientError::Refused(body.error)),
        Err(_) => Err(ClientError::Unreadable(status.to_string())),
    }
}

async fn collect(response: Response<Incoming>) -> Result<Bytes, ClientError> {
    let body = http_body_util::Limited::new(response.into_body(), MAX_ANSWER);
    match tokio::time::timeout(ANSWER_LIMIT, body.collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(e)) => Err(ClientError::Broken(e.to_string())),
        Err(_) => Err(ClientError::Late),
    }
}

async fn read<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T, ClientError> {
    let bytes = collect(response).await?;
    serde_json::from_slice(&bytes).map_err(|e| ClientError::Unreadable(clip(&e.to_string())))
}

impl Chunks {
    /// The next bytes; none at the end.
    ///
    /// # Errors
    /// [`ClientError::Broken`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            match self.0.frame().await {
                None => return Ok(None),
                Some(Err(e)) => return Err(broken(&e)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

impl Lines {
    /// The next line without its end; none at the end.
    ///
    /// # Errors
    /// [`ClientError::Broken`]; [`ClientError::Unreadable`] for an endless line.
    pub async fn next(&mut self) -> Result<Option<String>, ClientError> {
        loop {
            if let Some(at) = self.buffer.iter().position(|&b| b == b'\n') {
                let mut line: Vec<u8> = self.buffer.drain(..=at).collect();
                line.pop();
                return Ok(Some(text(line)));
            }
            if self.buffer.len() > MAX_LINE {
                return Err(ClientError::Unreadable("a line without an end".into()));
            }
            if self.ended {
                let rest = std::mem::take(&mut self.buffer);
                return Ok((!rest.is_empty()).then(|| text(rest)));
            }
            match self.body.frame().await {
                None => self.ended = true,
                Some(Err(e)) => return Err(broken(&e)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }

    /// The next line as JSON.
    ///
    /// # Errors
    /// As [`Lines::next`]; [`ClientError::Unreadable`] for another line.
    pub async fn json<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ClientError> {
        match self.next().await? {
            None => Ok(None),
            Some(line) => serde_json::from_str(&line)
                .map(Some)
                .map_err(|e| ClientError::Unreadable(clip(&e.to_string()))),
        }
    }

    /// The data of the next server-sent event.
    ///
    /// # Errors
    /// As [`Lines::json`].
    pub async fn event<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ClientError> {
        while let Some(line) = self.next().await? {
            if let Some(data) = line.strip_prefix("data:") {
                return serde_json::from_str(data.trim_start())
                    .map(Some)
                    .map_err(|e| ClientError::Unreadable(clip(&e.to_string())));
            }
        }
        Ok(None)
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

/// What a path's variable part cannot have as it is: all but the unreserved characters
/// (RFC 3986) and the colon, which images' names have.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'~')
    .remove(b'.')
    .remove(b':');

/// A path's variable part, escaped: nothing in it can become a path of its own or a
/// query.
#[must_use]
pub fn segment(text: &str) -> String {
    match text {
        // These mean something as they are.
        "." | ".." => text.replace('.', "%2E"),
        text => utf8_percent_encode(text, ESCAPED).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_stay_segments() {
        for (text, escaped) in [
            ("web", "web"),
            ("debian:12", "debian:12"),
            ("a/b", "a%2Fb"),
            ("..", "%2E%2E"),
            ("a?b#c", "a%3Fb%23c"),
            ("a b\r\nX: y", "a%20b%0D%0AX:%20y"),
            ("ä%", "%C3%A4%25"),
        ] {
            assert_eq!(segment(text), escaped);
        }
    }
}
