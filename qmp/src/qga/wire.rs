//! The bytes of the guest agent's protocol. Pure: no I/O.

use crate::message::{self, Message, ParseError, Reply};

/// Never part of UTF-8; makes either side throw away what it has read of a message.
pub const SENTINEL: u8 = 0xFF;

/// The longest reply to a synchronisation, in bytes.
const MAX_SYNC_REPLY: usize = 256;

/// Parses one line from the agent, without its end.
pub fn parse(line: &[u8]) -> Result<Reply, ParseError> {
    match message::parse(line)? {
        Message::Reply(reply) => Ok(reply),
        Message::Greeting(_) | Message::Event(_) => Err(ParseError::Ambiguous),
    }
}

/// Finds the reply to one `guest-sync-delimited` in whatever else the channel holds. Keeps at most
/// 256 bytes.
#[derive(Debug)]
pub struct SyncScanner {
    id: i64,
    /// What followed the last sentinel, if that can still become the reply.
    line: Option<Vec<u8>>,
}

impl SyncScanner {
    /// A scanner for the reply to the request with `id`.
    #[must_use]
    pub fn new(id: i64) -> Self {
        Self { id, line: None }
    }

    /// The request: a sentinel, so that the agent forgets half a command of an earlier client, and
    /// the command.
    #[must_use]
    pub fn request(&self) -> Vec<u8> {
        let command = format!(
            "{{\"execute\":\"guest-sync-delimited\",\"arguments\":{{\"id\":{}}}}}\n",
            self.id
        );
        [&[SENTINEL], command.as_bytes()].concat()
    }

    /// Looks at further bytes. Once the reply is complete: how many of them it took.
    pub fn feed(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, &byte) in bytes.iter().enumerate() {
            match (byte, &mut self.line) {
                (SENTINEL, _) => self.line = Some(Vec::new()),
                (_, None) => {}
                (b'\n', Some(line)) => {
                    if id_of(line) == Some(self.id) {
                        return Some(at + 1);
                    }
                    self.line = None;
                }
                (_, Some(line)) if line.len() < MAX_SYNC_REPLY => line.push(byte),
                (_, Some(_)) => self.line = None,
            }
        }
        None
    }
}

fn id_of(line: &[u8]) -> Option<i64> {
    let value = parse(line).ok()?.result.ok()?;
    serde_json::from_str(value.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn finds_its_own_reply_only() {
        let long = format!("\u{0}{}", " ".repeat(300));
        let table: &[(&str, &[u8], bool)] = &[
            ("plain", b"\xff{\"return\": 7}\n", true),
            ("carriage return", b"\xff{\"return\": 7}\r\n", true),
            (
                "stale replies first",
                b"{\"return\":{}}\n\xff{\"return\":6}\n\xff{\"return\":7}\n",
                true,
            ),
            ("half a line first", b"{\"ret\xff{\"return\":7}\n", true),
            (
                "half a sync first",
                b"\xff{\"retu\xff{\"return\":7}\n",
                true,
            ),
            ("no sentinel", b"{\"return\":7}\n", false),
            (
                "not at once after the sentinel",
                b"\xff{\"return\":{}}\n{\"return\":7}\n",
                false,
            ),
            ("as text", b"\xff{\"return\":\"7\"}\n", false),
            ("as fraction", b"\xff{\"return\":7.0}\n", false),
            (
                "an error",
                b"\xff{\"error\":{\"class\":\"GenericError\",\"desc\":\"7\"}}\n",
                false,
            ),
            ("unfinished", b"\xff{\"return\":7}", false),
            ("not UTF-8", b"\xff{\"return\":7,\"a\":\"\xfe\"}\n", false),
            ("empty", b"\xff\n", false),
        ];
        for (name, bytes, found) in table {
            let used = SyncScanner::new(7).feed(bytes);
            assert_eq!(used, found.then_some(bytes.len()), "{name}");
        }
        let mut scanner = SyncScanner::new(7);
        assert_eq!(scanner.feed(&[SENTINEL]), None);
        assert_eq!(scanner.feed(long.as_bytes()), None);
        assert_eq!(scanner.feed(b"{\"return\":7}\n"), None);
        assert_eq!(scanner.feed(b"\xff{\"return\":7}\n{"), Some(14));
    }

    proptest! {
        #[test]
        fn any_noise_in_any_pieces(
            noise in proptest::collection::vec(
                prop_oneof![Just(SENTINEL), Just(b'\n'), Just(b'{'), any::<u8>()], 0..600),
            cut in 0usize..700,
        ) {
            let mut bytes = noise;
            bytes.extend(b"\xff{\"return\": 123456789012345678}\n");
            let total = bytes.len();
            let cut = cut.min(total - 1);
            let mut scanner = SyncScanner::new(123_456_789_012_345_678);
            prop_assert_eq!(scanner.feed(&bytes[..cut]), None);
            prop_assert_eq!(scanner.feed(&bytes[cut..]), Some(total - cut));
        }
    }
}
