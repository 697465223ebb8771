//! As much DER as certificates need.

/// One element.
#[must_use]
pub fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len();
    let mut der = vec![tag];
    match len {
        0..=0x7f => der.push(u8::try_from(len).unwrap()),
        0x80..=0xff => der.extend([0x81, u8::try_from(len).unwrap()]),
        _ => {
            der.push(0x82);
            der.extend(u16::try_from(len).unwrap().to_be_bytes());
        }
    }
    der.extend_from_slice(content);
    der
}

/// SEQUENCE.
#[must_use]
pub fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    element(0x30, &parts.concat())
}

/// INTEGER of big-endian bytes; a zero is put before a leading one bit.
#[must_use]
pub fn integer(bytes: &[u8]) -> Vec<u8> {
    let stripped: Vec<u8> = bytes
        .iter()
        .copied()
        .skip_while(|byte| *byte == 0)
        .collect();
    let mut content = match stripped.first() {
        None => vec![0],
        Some(0x80..) => vec![0],
        Some(_) => Vec::new(),
    };
    content.extend(stripped);
    element(0x02, &content)
}

/// OBJECT IDENTIFIER of its dotted form.
#[must_use]
pub fn oid(dotted: &str) -> Vec<u8> {
    let arcs: Vec<u32> = dotted.split('.').map(|arc| arc.parse().unwrap()).collect();
    let mut content = vec![u8::try_from(arcs[0] * 40 + arcs[1]).unwrap()];
    for arc in &arcs[2..] {
        let mut septets = vec![u8::try_from(arc & 0x7f).unwrap()];
        let mut rest = arc >> 7;
        while rest > 0 {
            septets.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
            rest >>= 7;
        }
        content.extend(septets.iter().rev());
    }
    element(0x06, &content)
}

/// OCTET STRING.
#[must_use]
pub fn octets(bytes: &[u8]) -> Vec<u8> {
    element(0x04, bytes)
}

/// BIT STRING without unused bits.
#[must_use]
pub fn bits(bytes: &[u8]) -> Vec<u8> {
    element(0x03, &[&[0], bytes].concat())
}

/// IA5String.
#[must_use]
pub fn ia5(text: &str) -> Vec<u8> {
    element(0x16, text.as_bytes())
}

/// UTCTime, as `250131120000Z`.
#[must_use]
pub fn utc_time(text: &str) -> Vec<u8> {
    element(0x17, text.as_bytes())
}

/// A name with AMD's parts and this common name.
#[must_use]
pub fn name(common_name: &str) -> Vec<u8> {
    let part = |oid_text: &str, tag: u8, value: &str| {
        let pair = sequence(&[&oid(oid_text), &element(tag, value.as_bytes())]);
        element(0x31, &pair)
    };
    sequence(&[
        &part("2.5.4.11", 0x0c, "Engineering"),
        &part("2.5.4.6", 0x13, "US"),
        &part("2.5.4.7", 0x0c, "Santa Clara"),
        &part("2.5.4.8", 0x0c, "CA"),
        &part("2.5.4.10", 0x0c, "Advanced Micro Devices"),
        &part("2.5.4.3", 0x0c, common_name),
    ])
}

/// The AlgorithmIdentifier of RSASSA-PSS with one hash for all, by the hash's identifier and with
/// this length of salt.
#[must_use]
pub fn pss(hash: &str, salt: u8) -> Vec<u8> {
    let hash = sequence(&[&oid(hash), &element(0x05, &[])]);
    let mgf = sequence(&[&oid("1.2.840.113549.1.1.8"), &hash]);
    let parameters = sequence(&[
        &element(0xa0, &hash),
        &element(0xa1, &mgf),
        &element(0xa2, &integer(&[salt])),
    ]);
    sequence(&[&oid("1.2.840.113549.1.1.10"), &parameters])
}

/// SHA-384.
pub const SHA384: &str = "2.16.840.1.101.3.4.2.2";
/// SHA-256.
pub const SHA256: &str = "2.16.840.1.101.3.4.2.1";
