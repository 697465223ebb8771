//! A packet's way through a chain.

use nftables::{
    expr::{Expression, NamedExpression, SetItem, Verdict},
    stmt::{Statement, VerdictMap},
};

use super::{
    packet::{Layer4, Packet},
    tables::{BaseChain, Part, Tables},
    value::Place,
};

/// The kernel's own limit of jumps is 16.
const DEEPEST: usize = 16;

/// What becomes of the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Passes,
    Dropped { by_rule: bool },
}

/// What a chain or a rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Accept,
    Drop,
    /// Back to the chain that jumped here.
    Return,
    /// Nothing: the next rule.
    Nothing,
}

/// A verdict of a rule.
enum End<'a> {
    Accept,
    Drop,
    Return,
    Jump(&'a str),
    Goto(&'a str),
}

/// How sure it is that the rule's conditions hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sure {
    Yes,
    /// An extension of iptables that mostly goes with such packets: right for an accept.
    Likely,
    /// Something that a listing does not tell.
    No,
}

pub(super) fn follow(tables: &Tables, chain: &BaseChain, packet: &Packet) -> Outcome {
    let place = Place {
        tables,
        table: &chain.table,
        hook: &chain.hook,
        packet,
    };
    match walk(&place, &chain.name, 0) {
        Said::Accept => Outcome::Passes,
        Said::Drop => Outcome::Dropped { by_rule: true },
        Said::Return | Said::Nothing if chain.drops_by_policy => {
            Outcome::Dropped { by_rule: false }
        }
        Said::Return | Said::Nothing => Outcome::Passes,
    }
}

fn walk(place: &Place<'_>, chain: &str, depth: usize) -> Said {
    if depth > DEEPEST {
        return Said::Nothing;
    }
    for rule in place.tables.rules(place.table, chain) {
        match step(place, rule, depth) {
            Said::Nothing => {}
            // What is below a goto is not come back to.
            said => return said,
        }
    }
    Said::Nothing
}

fn step(place: &Place<'_>, rule: &[Part], depth: usize) -> Said {
    let mut sure = Sure::Yes;
    let mut names_tap = false;
    for part in rule {
        match part {
            Part::Extension { target: true, name } => match name.as_str() {
                "REJECT" | "DROP" if sure == Sure::Yes => return Said::Drop,
                _ => {}
            },
            Part::Extension { name, .. } => match extension(name, place.packet) {
                Some(true) => {}
                Some(false) => return Said::Nothing,
                None if likely(name, place.packet) && sure != Sure::No => sure = Sure::Likely,
                None => sure = Sure::No,
            },
            Part::Unknown => sure = Sure::No,
            Part::Known(statement) => match statement.as_ref() {
                Statement::Match(wanted) => match place.holds(wanted) {
                    Some(true) => names_tap |= of_tap(&wanted.right, &place.packet.tap),
                    Some(false) => return Said::Nothing,
                    None => sure = Sure::No,
                },
                // Above its rate a limit mostly does not hold, below it does.
                Statement::Limit(limit) if limit.inv == Some(true) => return Said::Nothing,
                Statement::Quota(_) | Statement::Meter(_) | Statement::CTCount(_) => {
                    sure = Sure::No;
                }
                Statement::VerdictMap(map) => match in_map(place, map) {
                    Some(Some(end)) => return carry_out(place, end, sure, names_tap, depth),
                    Some(None) => return Said::Nothing,
                    None => sure = Sure::No,
                },
                other => {
                    if let Some(end) = end(other) {
                        return carry_out(place, end, sure, names_tap, depth);
                    }
                }
            },
        }
    }
    Said::Nothing
}

/// A drop counts when it is sure, an accept also when the operator wrote it for the taps.
fn carry_out(place: &Place<'_>, end: End<'_>, sure: Sure, names_tap: bool, depth: usize) -> Said {
    let accepted = sure != Sure::No || names_tap;
    match end {
        End::Accept if accepted => Said::Accept,
        End::Drop if sure == Sure::Yes => Said::Drop,
        End::Return if accepted => Said::Return,
        End::Accept | End::Drop | End::Return => Said::Nothing,
        End::Jump(chain) => match walk(place, chain, depth + 1) {
            Said::Accept if accepted => Said::Accept,
            Said::Drop if sure == Sure::Yes => Said::Drop,
            _ => Said::Nothing,
        },
        End::Goto(chain) => match walk(place, chain, depth + 1) {
            Said::Accept if accepted => Said::Accept,
            Said::Drop if sure == Sure::Yes => Said::Drop,
            // At its end the chain that has the goto is left as well.
            _ if sure == Sure::Yes => Said::Return,
            _ => Said::Nothing,
        },
    }
}

fn end<'a>(statement: &'a Statement<'_>) -> Option<End<'a>> {
    Some(match statement {
        Statement::Accept(_) => End::Accept,
        Statement::Drop(_) | Statement::Reject(_) => End::Drop,
        Statement::Return(_) => End::Return,
        Statement::Jump(to) => End::Jump(&to.target),
        Statement::Goto(to) => End::Goto(&to.target),
        _ => return None,
    })
}

fn end_of_verdict<'a>(verdict: &'a Verdict<'_>) -> Option<End<'a>> {
    Some(match verdict {
        Verdict::Accept => End::Accept,
        Verdict::Drop => End::Drop,
        Verdict::Return => End::Return,
        Verdict::Jump(to) => End::Jump(&to.target),
        Verdict::Goto(to) => End::Goto(&to.target),
        Verdict::Continue => return None,
    })
}

/// What a verdict map has for the packet: `Some(None)` when nothing, `None` when it cannot be told.
fn in_map<'a>(place: &Place<'a>, map: &'a VerdictMap<'_>) -> Option<Option<End<'a>>> {
    let value = place.value(&map.key)?;
    let verdict = |wanted: &Expression<'_>, then: &'a Expression<'a>| match place.is(&value, wanted)
    {
        Some(true) => match then {
            Expression::Verdict(verdict) => Some(end_of_verdict(verdict)),
            _ => None,
        },
        Some(false) => Some(None),
        None => None,
    };
    match &map.data {
        Expression::Named(NamedExpression::Set(items)) => {
            for item in items {
                let found = match item {
                    SetItem::Mapping(wanted, then) => verdict(wanted, then)?,
                    SetItem::MappingStatement(wanted, statement) => {
                        match place.is(&value, wanted)? {
                            true => Some(end(statement)?),
                            false => None,
                        }
                    }
                    SetItem::Element(Expression::List(pair)) => match pair.as_slice() {
                        [wanted, then] => verdict(wanted, then)?,
                        _ => return None,
                    },
                    SetItem::Element(_) => return None,
                };
                if found.is_some() {
                    return Some(found);
                }
            }
            Some(None)
        }
        Expression::String(name) => {
            let elements = place.tables.set(place.table, name.strip_prefix('@')?)?;
            for element in elements {
                let Expression::List(pair) = element else {
                    return None;
                };
                let [wanted, then] = pair.as_slice() else {
                    return None;
                };
                if let Some(found) = verdict(wanted, then)? {
                    return Some(Some(found));
                }
            }
            Some(None)
        }
        _ => None,
    }
}

/// What a match of iptables, of which only the name is listed, says of the packet.
fn extension(name: &str, packet: &Packet) -> Option<bool> {
    match name {
        "comment" => Some(true),
        // The states are not listed. Such a rule mostly accepts what is established, or drops
        // what is invalid.
        "conntrack" | "state" if !packet.established => Some(false),
        // Bridged packets, and those of local sockets.
        "physdev" | "owner" => Some(false),
        _ => None,
    }
}

fn likely(name: &str, packet: &Packet) -> bool {
    match name {
        "conntrack" | "state" => packet.established,
        "icmp6" | "hl" => matches!(packet.layer4, Layer4::Icmp6(_)),
        "limit" => true,
        _ => false,
    }
}

/// Whether a match names the guest's tap, alone or by a pattern.
fn of_tap(wanted: &Expression<'_>, tap: &str) -> bool {
    match wanted {
        Expression::String(text) => match text.strip_suffix('*') {
            Some(beginning) => !beginning.is_empty() && tap.starts_with(beginning),
            None => text == tap,
        },
        _ => false,
    }
}
