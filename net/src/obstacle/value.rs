//! What an expression says of a packet, and whether it is as a rule wants it. `None` where it
//! cannot be told.

use std::net::IpAddr;

use nftables::{
    expr::{BinaryOperation, Expression, MetaKey, NamedExpression, Payload, PayloadField, SetItem},
    stmt::{Match, Operator},
};

use super::{
    packet::{Layer4, Packet},
    tables::{Table, Tables},
};

/// A value of a packet.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// A name; of several words any one may be meant.
    Name(&'static str),
    Interface(String),
    Address(IpAddr),
    Number(u64),
    Several(Vec<Value>),
    /// A field of a protocol that the packet does not have.
    Absent,
}

/// Where an expression is looked at.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) tables: &'a Tables,
    pub(super) table: &'a Table,
    pub(super) hook: &'a str,
    pub(super) packet: &'a Packet,
}

impl Place<'_> {
    /// Whether a match holds.
    pub(super) fn holds(&self, wanted: &Match<'_>) -> Option<bool> {
        let value = self.value(&wanted.left)?;
        if value == Value::Absent {
            return Some(false);
        }
        match wanted.op {
            Operator::EQ | Operator::IN => self.is(&value, &wanted.right),
            Operator::NEQ => self.is(&value, &wanted.right).map(|is| !is),
            _ => None,
        }
    }

    pub(super) fn value(&self, expression: &Expression<'_>) -> Option<Value> {
        match expression {
            Expression::Named(named) => self.named(named),
            Expression::BinaryOperation(operation) => match operation.as_ref() {
                // Marks and status bits are all zero.
                BinaryOperation::AND(of, _) => match self.value(of)? {
                    Value::Number(0) => Some(Value::Number(0)),
                    Value::Absent => Some(Value::Absent),
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        }
    }

    fn named(&self, named: &NamedExpression<'_>) -> Option<Value> {
        let packet = self.packet;
        match named {
            NamedExpression::Meta(meta) => match meta.key {
                MetaKey::Iif | MetaKey::Iifname => Some(Value::Interface(
                    packet.interface(true, self.hook).to_owned(),
                )),
                MetaKey::Oif | MetaKey::Oifname => Some(Value::Interface(
                    packet.interface(false, self.hook).to_owned(),
                )),
                MetaKey::Nfproto if packet.source.is_ipv4() => Some(Value::Name("ipv4")),
                MetaKey::Nfproto => Some(Value::Name("ipv6")),
                MetaKey::Protocol if packet.source.is_ipv4() => Some(Value::Name("ip")),
                MetaKey::Protocol => Some(Value::Name("ip6")),
                MetaKey::L4proto => Some(Value::Name(protocol(packet))),
                MetaKey::Mark => Some(Value::Number(0)),
                _ => None,
            },
            NamedExpression::CT(ct) => match ct.key.as_ref() {
                "state" if packet.established => Some(Value::Name("established")),
                "state" if matches!(packet.layer4, Layer4::Icmp6(_)) => {
                    Some(Value::Name("untracked"))
                }
                "state" => Some(Value::Name("new")),
                "status" | "mark" => Some(Value::Number(0)),
                _ => None,
            },
            NamedExpression::Payload(Payload::PayloadField(field)) => self.field(field),
            NamedExpression::Exthdr(_) => Some(Value::Absent),
            NamedExpression::Concat(parts) => {
                let values: Option<Vec<_>> = parts.iter().map(|p| self.value(p)).collect();
                values.map(|values| {
                    if values.contains(&Value::Absent) {
                        Value::Absent
                    } else {
                        Value::Several(values)
                    }
                })
            }
            _ => None,
        }
    }

    fn field(&self, field: &PayloadField<'_>) -> Option<Value> {
        let packet = self.packet;
        let ipv4 = packet.source.is_ipv4();
        match (field.protocol.as_ref(), packet.layer4) {
            ("ip", _) if !ipv4 => Some(Value::Absent),
            ("ip6", _) if ipv4 => Some(Value::Absent),
            ("ip" | "ip6", layer4) => match field.field.as_ref() {
                "saddr" => Some(Value::Address(packet.source)),
                "daddr" => Some(Value::Address(packet.destination)),
                "protocol" | "nexthdr" => Some(Value::Name(protocol(packet))),
                "hoplimit" if matches!(layer4, Layer4::Icmp6(_)) => Some(Value::Number(255)),
                _ => None,
            },
            ("tcp" | "th", Layer4::Tcp { from, to }) => match field.field.as_ref() {
                "sport" => Some(Value::Number(from.into())),
                "dport" => Some(Value::Number(to.into())),
                _ => None,
            },
            ("icmpv6", Layer4::Icmp6(kind)) if field.field == "type" => Some(Value::Name(kind)),
            ("tcp" | "th" | "udp" | "icmp" | "icmpv6" | "sctp" | "arp" | "esp" | "ah", _) => {
                Some(Value::Absent)
            }
            _ => None,
        }
    }

    /// Whether a value is what the right hand side of a match wants.
    pub(super) fn is(&self, value: &Value, wanted: &Expression<'_>) -> Option<bool> {
        match wanted {
            Expression::String(text) => match text.strip_prefix('@') {
                Some(name) => {
                    let elements = self.tables.set(self.table, name)?;
                    any(elements.iter().map(|e| self.is(value, e)))
                }
                None => is_text(value, text),
            },
            Expression::Number(number) => match value {
                Value::Number(n) => Some(*n == u64::from(*number)),
                _ => None,
            },
            Expression::List(list) => match value {
                // A key and what a map has for it, or words of which one is enough.
                Value::Several(_) => None,
                _ => any(list.iter().map(|e| self.is(value, e))),
            },
            Expression::Named(NamedExpression::Set(items)) => any(items.iter().map(|item| {
                let (SetItem::Element(e)
                | SetItem::Mapping(e, _)
                | SetItem::MappingStatement(e, _)) = item;
                self.is(value, e)
            })),
            Expression::Named(NamedExpression::Elem(elem)) => self.is(value, &elem.val),
            Expression::Named(NamedExpression::Concat(parts)) => match value {
                Value::Several(values) if values.len() == parts.len() => {
                    all(values.iter().zip(parts).map(|(v, p)| self.is(v, p)))
                }
                _ => None,
            },
            Expression::Named(NamedExpression::Prefix(prefix)) => {
                let (Value::Address(address), Expression::String(network)) =
                    (value, prefix.addr.as_ref())
                else {
                    return None;
                };
                let network: IpAddr = network.parse().ok()?;
                let length = u8::try_from(prefix.len).ok()?;
                Some(ipnet::IpNet::new(network, length).ok()?.contains(address))
            }
            Expression::Range(range) => match (value, &range.range) {
                (Value::Number(n), [Expression::Number(first), Expression::Number(last)]) => {
                    Some((u64::from(*first)..=u64::from(*last)).contains(n))
                }
                (Value::Address(a), [Expression::String(first), Expression::String(last)]) => {
                    let first: IpAddr = first.parse().ok()?;
                    let last: IpAddr = last.parse().ok()?;
                    Some((first..=last).contains(a))
                }
                _ => None,
            },
            _ => None,
        }
    }
}

fn protocol(packet: &Packet) -> &'static str {
    match packet.layer4 {
        Layer4::Tcp { .. } => "tcp",
        Layer4::Icmp6(_) => "ipv6-icmp",
    }
}

fn is_text(value: &Value, text: &str) -> Option<bool> {
    match value {
        Value::Name(name) => {
            let text = if text == "icmpv6" { "ipv6-icmp" } else { text };
            Some(*name == text)
        }
        Value::Interface(name) => Some(match text.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == text,
        }),
        Value::Address(address) => text.parse().ok().map(|a: IpAddr| a == *address),
        // A status or mark by name: none of its bits is set.
        Value::Number(0) => Some(false),
        Value::Number(n) => text.parse().ok().map(|t: u64| t == *n),
        Value::Several(_) | Value::Absent => None,
    }
}

fn any(answers: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut unknown = false;
    for answer in answers {
        match answer {
            Some(true) => return Some(true),
            Some(false) => {}
            None => unknown = true,
        }
    }
    (!unknown).then_some(false)
}

fn all(answers: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    any(answers.map(|a| a.map(|a| !a))).map(|any| !any)
}
