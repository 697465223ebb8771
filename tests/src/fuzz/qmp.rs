//! Fuzz targets of `qmp`.

use std::{io::Write, net::Shutdown, os::unix::net::UnixStream, time::Duration};

use qmp::testing::{Message, SyncScanner, parse, wire};
use qmp::{Config, Event, MAX_EVENT, Qmp};

/// Longest refusal that is kept: the limit, and the mark that it was cut.
const MAX_DESC: usize = (4 << 10) + 8;
/// What an honest monitor sends before anything else.
const HANDSHAKE: &[u8] =
    b"{\"QMP\":{\"version\":{\"qemu\":{\"major\":10,\"minor\":0,\"micro\":2}},\
                           \"capabilities\":[]}}\r\n{\"return\":{},\"id\":1}\r\n";

/// One line from a monitor.
///
/// # Panics
/// When a message passes its limits, or a text of the peer is not fit for a log.
pub fn qmp_message(data: &[u8]) {
    match parse(data) {
        Ok(Message::Event(raw)) => {
            assert!(data.len() <= MAX_EVENT && raw.name.len() <= MAX_EVENT);
            let _ = raw.at.to_system_time();
            let _ = Event::from_raw(&raw);
        }
        Ok(Message::Reply(reply)) => {
            if let Some(id) = &reply.id {
                assert!(!id.to_string().contains(char::is_control));
            }
            match reply.result {
                Ok(value) => assert!(value.get().len() <= data.len()),
                Err(refusal) => {
                    assert!(refusal.desc.len() <= MAX_DESC);
                    assert!(!refusal.desc.contains(char::is_control));
                }
            }
        }
        Ok(Message::Greeting(_)) => {}
        Err(e) => assert!(!e.to_string().contains(char::is_control), "{e}"),
    }
}

/// Everything that a monitor sends after an honest handshake, up to its end.
///
/// # Panics
/// When the client does not come to an end, or goes on after the peer's.
pub fn qmp_stream(data: &[u8]) {
    // As much as a socket takes without a reader.
    if data.len() > 64 << 10 {
        return;
    }
    let Ok((ours, mut theirs)) = UnixStream::pair() else {
        return;
    };
    let sent = theirs
        .write_all(HANDSHAKE)
        .and_then(|()| theirs.write_all(data))
        .and_then(|()| theirs.shutdown(Shutdown::Write));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let (Ok(()), Ok(runtime)) = (sent, runtime) else {
        return;
    };
    runtime.block_on(async {
        let end = tokio::time::timeout(Duration::from_secs(5), async {
            let config = Config {
                max_line: 8 << 10,
                ..Config::default()
            };
            // What follows at once may break the protocol before the handshake ends.
            let Ok((qmp, mut events)) = Qmp::from_stream(ours, &config).await else {
                return;
            };
            let _ = qmp.status().await;
            let reason = qmp.closed().await;
            while let Some(event) = events.next().await {
                let _ = format!("{event:?}");
            }
            assert!(!reason.to_string().contains(char::is_control), "{reason}");
            assert!(qmp.status().await.is_err());
        });
        assert!(end.await.is_ok(), "the client does not end with its peer");
    });
}

/// What a guest writes to the channel of its agent: whatever is cut where, the
/// synchronisation is found at the same byte, and lines are read as replies.
///
/// # Panics
/// When the place depends on how the bytes were cut.
pub fn guest_agent(data: &[u8]) {
    let whole = SyncScanner::new(7).feed(data);
    let (first, second) = data.split_at(data.len() / 2);
    let mut scanner = SyncScanner::new(7);
    let parts = match scanner.feed(first) {
        Some(at) => Some(at),
        None => scanner.feed(second).map(|at| first.len() + at),
    };
    assert_eq!(whole, parts);
    let rest = data.get(whole.unwrap_or(0)..).unwrap_or_default();
    for line in rest.split(|byte| *byte == b'\n') {
        if let Err(e) = wire::parse(line) {
            assert!(!e.to_string().contains(char::is_control), "{e}");
        }
    }
}
