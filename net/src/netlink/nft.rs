//! The firewall's sets through netlink: changes of elements in one transaction, and what the sets
//! hold.

use std::{collections::BTreeSet, io};

use netlink_packet_core::{
    DefaultNla, NLM_F_CREATE, NetlinkHeader, NetlinkMessage, NlaBuffer, NlasIterator,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterProtoFamily,
    nftables::{
        DataAttribute, GenMessage, ListAttribute, NfTablesMessage, SetElementAttribute,
        SetElementList, SetElementMessage,
    },
    none::ControlMessage,
};
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::{Answer, Netlink, malformed};
use crate::elements::{Family, Key, Set};

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
/// Elements of one message, whose attributes may have 64 KiB together.
const ELEMENTS: usize = 400;
/// `NFT_MSG_NEWSETELEM` and `NFT_MSG_NEWGEN`.
const NEW_ELEMENTS: u16 = SUBSYSTEM << 8 | 12;
pub(crate) const NEW_GENERATION: u16 = SUBSYSTEM << 8 | 15;
/// Length of the header behind netlink's own.
const HEADER: usize = 4;

/// `NFTA_DATA_VALUE`.
const DATA_VALUE: u16 = 1;
/// Length of an attribute's header.
const NLA_HEADER: usize = 4;

/// A connection to nftables.
#[derive(Debug)]
pub(crate) struct Nft(Netlink);

impl Nft {
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self(Netlink::open(NETLINK_NETFILTER)?))
    }

    pub(crate) fn port(&self) -> u32 {
        self.0.port()
    }

    /// Removes and adds elements of a table's sets in one transaction: all of it, or nothing.
    /// Elements that are there already may be added, and those that are not may be removed.
    ///
    /// `NotFound` when there is no such table or set.
    pub(crate) fn change(
        &mut self,
        table: &str,
        remove: &BTreeSet<Key>,
        add: &BTreeSet<Key>,
    ) -> io::Result<()> {
        match self.transaction(table, remove, add) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && !remove.is_empty() => {
                // Kernels before 6.3 cannot remove what may not be there: then it takes a look.
                let held = self.elements(table)?;
                self.transaction(table, &(remove & &held), add)
            }
            result => result,
        }
    }

    fn transaction(
        &mut self,
        table: &str,
        remove: &BTreeSet<Key>,
        add: &BTreeSet<Key>,
    ) -> io::Result<()> {
        if remove.is_empty() && add.is_empty() {
            return Ok(());
        }
        let mut messages = vec![control(ControlMessage::BatchBegin)];
        // Ranges that are removed may overlap those that are added.
        for (keys, delete) in [(remove, true), (add, false)] {
            for set in Set::ALL {
                let of_set: Vec<_> = keys.iter().filter(|k| k.set == set).collect();
                messages.extend(
                    of_set
                        .chunks(ELEMENTS)
                        .map(|k| elements(table, set, k, delete)),
                );
            }
        }
        messages.push(control(ControlMessage::BatchEnd));
        let first = self.0.send(&mut messages)?;
        let failed = self
            .0
            .acknowledgements(first)?
            .into_iter()
            .find_map(|(_, e)| e);
        failed.map_or(Ok(()), Err)
    }

    /// What the sets of a table hold. `NotFound` when there is no such table or set.
    pub(crate) fn elements(&mut self, table: &str) -> io::Result<BTreeSet<Key>> {
        let mut all = BTreeSet::new();
        for set in Set::ALL {
            let get = NfTablesMessage::GetSetElement(list(table, set, Vec::new()));
            let request = message(header(set), get);
            self.0
                .dump(request, |answer| parse_elements(set, &answer, &mut all))?;
        }
        Ok(all)
    }

    /// The number of transactions so far, of all tables.
    pub(crate) fn generation(&mut self) -> io::Result<u32> {
        let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0);
        let get = NfTablesMessage::GetGen(GenMessage {
            attributes: Vec::new(),
        });
        let mut messages = [message(header, get)];
        self.0.send(&mut messages)?;
        let mut buffer = Vec::with_capacity(4096);
        self.0.socket.recv(&mut buffer, 0)?;
        let mut generation = None;
        super::each(&buffer, |m| {
            if m.message_type() == NEW_GENERATION {
                generation = attribute(m.payload(), 1).and_then(|v| v.try_into().ok());
            }
            Ok(true)
        })?;
        generation
            .map(u32::from_be_bytes)
            .ok_or_else(|| malformed("no generation in it"))
    }
}

fn message(header: NetfilterHeader, inner: NfTablesMessage) -> NetlinkMessage<NetfilterMessage> {
    NetlinkMessage::new(
        NetlinkHeader::default(),
        NetfilterMessage::new(header, inner).into(),
    )
}

fn control(inner: ControlMessage) -> NetlinkMessage<NetfilterMessage> {
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, SUBSYSTEM);
    NetlinkMessage::new(
        NetlinkHeader::default(),
        NetfilterMessage::new(header, inner).into(),
    )
}

fn elements(
    table: &str,
    set: Set,
    keys: &[&Key],
    delete: bool,
) -> NetlinkMessage<NetfilterMessage> {
    let element = |key: &&Key| {
        let start = DataAttribute::Value(key.start.clone());
        let mut attributes = vec![SetElementAttribute::Key(start)];
        if let Some(end) = &key.end {
            let end = DefaultNla::new(DATA_VALUE, end.clone());
            attributes.push(SetElementAttribute::KeyEnd(vec![end]));
        }
        ListAttribute::Element(attributes)
    };
    let list = list(table, set, keys.iter().map(element).collect());
    if delete {
        return message(header(set), NfTablesMessage::DeleteSetElement(list));
    }
    let mut message = message(header(set), NfTablesMessage::NewSetElement(list));
    message.header.flags = NLM_F_CREATE;
    message
}

fn header(set: Set) -> NetfilterHeader {
    let family = match set.family() {
        Family::Inet => NetfilterProtoFamily::Inet,
        Family::Arp => NetfilterProtoFamily::ARP,
    };
    NetfilterHeader::new(family, 0, 0)
}

/// Elements of a set; without any, the whole set.
fn list(
    table: &str,
    set: Set,
    elements: Vec<ListAttribute<SetElementAttribute>>,
) -> SetElementMessage {
    let mut attributes = vec![
        SetElementList::Table(table.to_owned()),
        SetElementList::Set(set.name().to_owned()),
    ];
    if !elements.is_empty() {
        attributes.push(SetElementList::Elements(elements));
    }
    SetElementMessage { attributes }
}

/// The value of an attribute of an nfnetlink message.
pub(crate) fn attribute(payload: &[u8], kind: u16) -> Option<&[u8]> {
    nested(payload.get(HEADER..)?, kind)
}

fn nested(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    NlasIterator::new(attributes)
        .map_while(Result::ok)
        .find(|nla: &NlaBuffer<&[u8]>| nla.kind() == kind)
        .and_then(|nla| {
            let length = nla.length().into();
            nla.into_inner().get(NLA_HEADER..length)
        })
}

/// Elements as the kernel lists them. Only keys count; whatever else comes with them is skipped.
fn parse_elements(set: Set, answer: &Answer<'_>, into: &mut BTreeSet<Key>) -> io::Result<()> {
    const LIST_ELEMENTS: u16 = 3;
    const KEY: u16 = 1;
    const KEY_END: u16 = 10;
    if answer.kind != NEW_ELEMENTS {
        return Ok(());
    }
    let Some(list) = attribute(answer.payload, LIST_ELEMENTS) else {
        return Ok(());
    };
    for element in NlasIterator::new(list) {
        let element = element.map_err(malformed)?;
        let key = |kind| nested(element.value(), kind).and_then(|k| nested(k, DATA_VALUE));
        let start = key(KEY)
            .ok_or_else(|| malformed("an element has no key"))?
            .to_vec();
        into.insert(Key {
            set,
            start,
            end: key(KEY_END).map(<[u8]>::to_vec),
        });
    }
    Ok(())
}
