//! A peer that says what a test has it say.

use std::time::Duration;

use qmp::{Config, Error, Events, Qmp};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

pub(crate) const GREETING: &str = "{\"QMP\":{\"version\":{\"qemu\":{\"major\":10,\"minor\":0,\
                                   \"micro\":2},\"package\":\"\"},\"capabilities\":[\"oob\"]}}\r\n";

/// Short limits, so that a peer that hangs costs a test little.
pub(crate) fn hasty() -> Config {
    Config {
        connect_timeout: Duration::from_millis(500),
        greeting_timeout: Duration::from_millis(500),
        command_timeout: Duration::from_secs(10),
        max_line: 256 << 10,
    }
}

/// The far end of a socket.
pub(crate) struct Peer {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Peer {
    pub(crate) fn new(stream: UnixStream) -> Self {
        let (reader, writer) = stream.into_split();
        Self {
            reader: BufReader::new(reader),
            writer,
        }
    }

    /// Sends bytes; whether the client still takes them.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.writer.write_all(bytes.as_ref()).await.is_ok()
    }

    /// The client's next bytes up to a line feed; `None` when it has gone.
    pub(crate) async fn line(&mut self) -> Option<Vec<u8>> {
        let mut line = Vec::new();
        let read = self.reader.read_until(b'\n', &mut line).await.ok()?;
        (read > 0).then_some(line)
    }

    /// The client's next command.
    pub(crate) async fn command(&mut self) -> Option<Value> {
        let line = self.line().await?;
        Some(serde_json::from_slice(&line).expect("the client sends JSON"))
    }

    /// The id of the client's next command.
    pub(crate) async fn id(&mut self) -> u64 {
        let command = self.command().await.expect("a command");
        command["id"].as_u64().expect("an id")
    }

    /// Answers the next command with `value`.
    pub(crate) async fn answer(&mut self, value: &str) -> bool {
        let id = self.id().await;
        self.send(format!("{{\"return\":{value},\"id\":{id}}}\r\n"))
            .await
    }

    /// Answers every command with `value` until the client goes.
    pub(crate) async fn answer_all(&mut self, value: &str) {
        while let Some(command) = self.command().await {
            let id = &command["id"];
            self.send(format!("{{\"return\":{value},\"id\":{id}}}\r\n"))
                .await;
        }
    }

    /// Reads nothing and says nothing until the test ends.
    pub(crate) async fn hang(&mut self) {
        std::future::pending().await
    }
}

/// What a client makes of a peer that behaves as `script` from the first byte on.
pub(crate) async fn meet<F>(script: F) -> Result<(Qmp, Events), Error>
where
    F: AsyncFnOnce(&mut Peer) + 'static,
{
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    let mut peer = Peer::new(UnixStream::from_std(theirs).unwrap());
    tokio::task::spawn_local(async move { script(&mut peer).await });
    Qmp::from_stream(ours, &hasty()).await
}

/// A client that has shaken hands with a peer that then behaves as `script`.
pub(crate) async fn befriend<F>(script: F) -> (Qmp, Events)
where
    F: AsyncFnOnce(&mut Peer) + 'static,
{
    let polite = async move |peer: &mut Peer| {
        peer.send(GREETING).await;
        peer.answer("{}").await;
        script(peer).await;
    };
    meet(polite).await.expect("the handshake is honest")
}

/// Runs a test on one thread, where scripts need not be `Send`.
pub(crate) fn alone(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let local = tokio::task::LocalSet::new();
    let limited = async { tokio::time::timeout(Duration::from_secs(60), test).await };
    local
        .block_on(&runtime, limited)
        .expect("the client does not hang on its peer");
}
