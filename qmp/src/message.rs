//! One line of QMP to one message. Pure: no I/O, no state.
//!
//! The envelope is parsed without building a tree: what a reply or an event carries stays text
//! ([`RawValue`]) until somebody asks for it as a type. So a line costs its own length in memory
//! however it is made up, and its nesting costs no stack.
//!
//! Source: QEMU, docs/interop/qmp-spec.rst, "Protocol Specification".

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::timestamp::Timestamp;

/// The longest event accepted, in bytes. QEMU's own are below 1 KiB.
pub const MAX_EVENT: usize = 32 << 10;

/// The longest name of an event, in bytes.
const MAX_EVENT_NAME: usize = 128;

/// The longest error description kept, in bytes.
const MAX_DESC: usize = 4 << 10;

/// Why a line is no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// The line is not UTF-8.
    #[error("not UTF-8 (byte {at})")]
    NotUtf8 {
        /// Where, counted from 0.
        at: usize,
    },
    /// The line is not a JSON object, or a member has the wrong type.
    #[error("not a JSON message: {0}")]
    NotJson(String),
    /// The object is neither greeting, event, reply nor error, or more than one of them.
    #[error("neither greeting, event nor reply, or several at once")]
    Ambiguous,
    /// An event is longer than [`MAX_EVENT`] or has a name longer than 128 bytes.
    #[error("an event of {len} bytes")]
    EventTooLong {
        /// Length of the line.
        len: usize,
    },
}

/// A message from the monitor.
#[derive(Debug)]
pub enum Message {
    /// The first message on a connection.
    Greeting(Greeting),
    /// Something happened.
    Event(RawEvent),
    /// The answer to a command.
    Reply(Reply),
}

impl Message {
    /// The kind of message, for error texts.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Greeting(_) => "a greeting",
            Self::Event(_) => "an event",
            Self::Reply(_) => "a reply",
        }
    }
}

/// The monitor's greeting.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Greeting {
    /// QEMU's version.
    pub version: VersionInfo,
}

/// The version as the greeting carries it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct VersionInfo {
    /// The numbers.
    pub qemu: VersionTriple,
    /// The distributor's name of the build, may be empty.
    #[serde(default)]
    pub package: String,
}

/// `major.minor.micro`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct VersionTriple {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number; 50 and up are development versions.
    pub micro: u32,
}

/// An event whose data has not been looked at.
#[derive(Debug)]
pub struct RawEvent {
    /// Its name, as in QEMU's schema.
    pub name: String,
    /// Its data, if any.
    pub data: Option<Box<RawValue>>,
    /// When the peer says it happened.
    pub at: Timestamp,
}

/// The answer to a command.
#[derive(Debug)]
pub struct Reply {
    /// The command's id; `None` if the peer sent none.
    pub id: Option<ReplyId>,
    /// What the command returned.
    pub result: Result<Box<RawValue>, Refusal>,
}

/// The id of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyId {
    /// A number, as this client's ids are.
    Number(u64),
    /// Anything else, as text, shortened.
    Foreign(String),
}

impl std::fmt::Display for ReplyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(n) => write!(f, "{n}"),
            Self::Foreign(text) => f.write_str(text),
        }
    }
}

/// The peer's reason for refusing a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The class; one that this client does not know counts as `GenericError`.
    pub class: qapi::ErrorClass,
    /// The description, without control characters and shortened.
    pub desc: String,
}

/// Every member that a message may have. Others are skipped, as the specification asks.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "QMP", borrow, default, deserialize_with = "present")]
    greeting: Option<&'a RawValue>,
    #[serde(rename = "return", borrow, default, deserialize_with = "present")]
    ret: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    event: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(default)]
    timestamp: Option<Timestamp>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
}

/// Tells `"x": null` from a missing `x`.
fn present<'de, D: Deserializer<'de>>(d: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(d).map(Some)
}

#[derive(Deserialize)]
struct WireRefusal<'a> {
    #[serde(borrow, default)]
    class: Cow<'a, str>,
    #[serde(borrow, default)]
    desc: Cow<'a, str>,
}

/// Parses one line, without its end, from the monitor or (`return` and `error` only) from the
/// guest agent.
pub fn parse(line: &[u8]) -> Result<Message, ParseError> {
    let text = std::str::from_utf8(line).map_err(|error| ParseError::NotUtf8 {
        at: error.valid_up_to(),
    })?;
    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(not_json)?;
    match envelope {
        Envelope {
            greeting: Some(greeting),
            ret: None,
            error: None,
            event: None,
            ..
        } => serde_json::from_str(greeting.get())
            .map(Message::Greeting)
            .map_err(not_json),
        Envelope {
            greeting: None,
            ret: Some(value),
            error: None,
            event: None,
            id,
            ..
        } => Ok(Message::Reply(Reply {
            id: id.map(reply_id),
            result: Ok(value.to_owned()),
        })),
        Envelope {
            greeting: None,
            ret: None,
            error: Some(error),
            event: None,
            id,
            ..
        } => {
            let wire: WireRefusal<'_> = serde_json::from_str(error.get()).map_err(not_json)?;
            Ok(Message::Reply(Reply {
                id: id.map(reply_id),
                result: Err(refusal(&wire)),
            }))
        }
        Envelope {
            greeting: None,
            ret: None,
            error: None,
            event: Some(name),
            data,
            timestamp,
            ..
        } => {
            if line.len() > MAX_EVENT || name.len() > MAX_EVENT_NAME {
                return Err(ParseError::EventTooLong { len: line.len() });
            }
            Ok(Message::Event(RawEvent {
                name: name.into_owned(),
                data: data.map(RawValue::to_owned),
                at: timestamp.unwrap_or_default(),
            }))
        }
        _ => Err(ParseError::Ambiguous),
    }
}

fn not_json(error: serde_json::Error) -> ParseError {
    ParseError::NotJson(printable(&error.to_string(), 256))
}

fn reply_id(raw: &RawValue) -> ReplyId {
    match raw.get().parse() {
        Ok(number) => ReplyId::Number(number),
        Err(_) => ReplyId::Foreign(printable(raw.get(), 64)),
    }
}

fn refusal(wire: &WireRefusal<'_>) -> Refusal {
    use qapi::ErrorClass::*;
    let class = match &*wire.class {
        "CommandNotFound" => CommandNotFound,
        "DeviceNotActive" => DeviceNotActive,
        "DeviceNotFound" => DeviceNotFound,
        "KVMMissingCap" => KVMMissingCap,
        _ => GenericError,
    };
    Refusal {
        class,
        desc: printable(&wire.desc, MAX_DESC),
    }
}

/// At most `max` bytes of a peer's text with control characters made spaces, fit for a log.
pub(crate) fn printable(text: &str, max: usize) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if out.len() + c.len_utf8() > max {
            out.push('…');
            break;
        }
        out.push(if c.is_control() { ' ' } else { c });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(line: &str) -> Reply {
        match parse(line.as_bytes()).unwrap() {
            Message::Reply(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn replies_keep_their_value_as_text() {
        let r = reply(r#"{"return": {"a": [1, 2.50, "\u00e9"]}, "id": 7}"#);
        assert_eq!(r.id, Some(ReplyId::Number(7)));
        assert_eq!(r.result.unwrap().get(), r#"{"a": [1, 2.50, "\u00e9"]}"#);
        assert_eq!(reply(r#"{"return":null}"#).result.unwrap().get(), "null");
    }

    #[test]
    fn ids_that_are_not_ours_are_kept_apart() {
        for (id, want) in [
            ("18446744073709551615", ReplyId::Number(u64::MAX)),
            (
                "18446744073709551616",
                ReplyId::Foreign("18446744073709551616".into()),
            ),
            ("-1", ReplyId::Foreign("-1".into())),
            ("1.0", ReplyId::Foreign("1.0".into())),
            ("\"1\"", ReplyId::Foreign("\"1\"".into())),
            ("null", ReplyId::Foreign("null".into())),
        ] {
            assert_eq!(
                reply(&format!(r#"{{"return":{{}},"id":{id}}}"#)).id,
                Some(want)
            );
        }
    }

    #[test]
    fn refusals_are_fit_for_a_log() {
        let r = reply(r#"{"error":{"class":"DeviceNotFound","desc":"a\n\u001b[31mb"},"id":1}"#);
        assert_eq!(
            r.result.unwrap_err(),
            Refusal {
                class: qapi::ErrorClass::DeviceNotFound,
                desc: "a  [31mb".into()
            }
        );
        let long = format!(
            r#"{{"error":{{"class":"New","desc":"{}"}}}}"#,
            "é".repeat(1 << 20)
        );
        let refusal = reply(&long).result.unwrap_err();
        assert_eq!(refusal.class, qapi::ErrorClass::GenericError);
        assert!(refusal.desc.len() < MAX_DESC + 8);
    }

    #[test]
    fn what_is_no_message() {
        let deep = format!(
            r#"{{"error":{}{}}}"#,
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        for line in [
            "",
            "null",
            "[]",
            "{",
            "{}",
            r#"{"id":1}"#,
            r#"{"return":{},"error":{}}"#,
            r#"{"return":{},"event":"STOP"}"#,
            r#"{"return":{},"return":{}}"#,
            r#"{"event":5}"#,
            r#"{"event":"STOP","timestamp":"now"}"#,
            r#"{"error":"text"}"#,
            r#"{"QMP":{}}"#,
            r#"{"QMP":{"version":{"qemu":{"major":-1,"minor":0,"micro":0}}}}"#,
            r#"{"return":{}} {"return":{}}"#,
            r#"{"return":{"a":}}"#,
            &deep,
        ] {
            assert!(parse(line.as_bytes()).is_err(), "{line:.80}");
        }
        assert_eq!(
            parse(b"{\"return\":\"\xff\"}").unwrap_err(),
            ParseError::NotUtf8 { at: 11 }
        );
    }

    #[test]
    fn nesting_in_a_reply_costs_no_stack() {
        let deep = format!(
            r#"{{"return":{}{}}}"#,
            "[".repeat(1 << 20),
            "]".repeat(1 << 20)
        );
        let value = reply(&deep).result.unwrap();
        assert!(serde_json::from_str::<serde_json::Value>(value.get()).is_err());
    }

    #[test]
    fn events_are_bounded() {
        let event = |n| format!(r#"{{"event":"X","data":{{"a":"{}"}}}}"#, "a".repeat(n));
        assert!(matches!(
            parse(event(1000).as_bytes()),
            Ok(Message::Event(_))
        ));
        assert!(matches!(
            parse(event(MAX_EVENT).as_bytes()),
            Err(ParseError::EventTooLong { .. })
        ));
        let named = format!(r#"{{"event":"{}"}}"#, "A".repeat(129));
        assert!(matches!(
            parse(named.as_bytes()),
            Err(ParseError::EventTooLong { len: 141 })
        ));
    }
}
