//! Properties of the QCOW2 header parser.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use disk::testing::qcow2::{
    Backing, Extension, Header, MAX_VIRTUAL_SIZE, V2_LENGTH, V3_LENGTH, V3_MIN_LENGTH,
};
use proptest::{collection::vec, option, prelude::*};

prop_compose! {
    fn backing(v3: bool)(
        name in "[^\0]{1,200}",
        format in option::of(prop_oneof!["qcow2", "raw"].prop_filter("v3", move |_| v3)),
    ) -> Backing {
        Backing { name, format }
    }
}

prop_compose! {
    fn extensions()(
        kinds in proptest::collection::btree_set(1_u32..0x1000_0000, 0..6),
        data in vec(vec(any::<u8>(), 0..40), 6),
    ) -> Vec<Extension> {
        kinds.into_iter().zip(data).map(|(kind, data)| Extension { kind, data }).collect()
    }
}

/// Headers that the format allows, whatever their tables are.
fn header() -> impl Strategy<Value = Header> {
    let numbers = (
        14_u32..=21,
        1..=MAX_VIRTUAL_SIZE / 512,
        0_u32..=2,
        any::<u32>(),
        any::<u64>(),
        any::<u64>(),
        any::<u32>(),
        any::<u32>(),
        any::<u64>(),
    );
    let version3 = (
        0_u64..8,
        any::<bool>(),
        any::<bool>(),
        any::<u64>(),
        any::<u64>(),
        0_u32..=6,
        prop_oneof![Just(V3_LENGTH), Just(V3_LENGTH + 40), Just(V3_MIN_LENGTH)],
    );
    (
        numbers,
        option::of(version3),
        option::of(backing(true)),
        extensions(),
    )
        .prop_map(|(n, v3, backing, extensions)| {
            let mut header = Header {
                version: 2,
                cluster_bits: n.0,
                size: n.1 * 512,
                crypt_method: n.2,
                l1_size: n.3,
                l1_table_offset: n.4,
                refcount_table_offset: n.5,
                refcount_table_clusters: n.6,
                nb_snapshots: n.7,
                snapshots_offset: n.8,
                incompatible_features: 0,
                compatible_features: 0,
                autoclear_features: 0,
                refcount_order: 4,
                header_length: V2_LENGTH,
                compression_type: 0,
                backing,
                extensions,
            };
            if let Some((features, zstd, extended, compatible, autoclear, order, length)) = v3 {
                let zstd = zstd && length > V3_MIN_LENGTH;
                header.version = 3;
                header.incompatible_features =
                    features | u64::from(zstd) << 3 | u64::from(extended) << 4;
                header.compatible_features = compatible;
                header.autoclear_features = autoclear;
                header.refcount_order = order;
                header.header_length = length;
                header.compression_type = u8::from(zstd);
            }
            header
        })
}

proptest! {
    #[test]
    fn what_is_written_is_read(header in header()) {
        let mut bytes = header.encode().unwrap();
        // The rest of the first cluster does not matter.
        bytes.resize(1 << header.cluster_bits, 0xaa);
        prop_assert_eq!(Header::parse(&bytes).unwrap(), header.clone());
        let _ = header.refuse_foreign();
    }

    #[test]
    fn what_is_read_is_written(header in header(), at in 0_usize..400, value: u8) {
        let mut bytes = header.encode().unwrap();
        bytes.resize(1 << header.cluster_bits, 0);
        bytes[at] = value;
        if let Ok(read) = Header::parse(&bytes) {
            let mut again = read.encode().unwrap();
            again.resize(1 << read.cluster_bits, 0);
            prop_assert_eq!(Header::parse(&again).unwrap(), read);
        }
    }

    #[test]
    fn cut_off_anywhere_it_is_an_answer(header in header(), keep in 0.0..1.0) {
        let bytes = header.encode().unwrap();
        let keep = (bytes.len() as f64 * keep) as usize;
        if let Ok(read) = Header::parse(&bytes[..keep]) {
            // Only padding was lost, or extensions that start beyond the end.
            prop_assert_eq!(read.size, header.size);
        }
    }

    #[test]
    fn any_bytes_are_an_answer(mut bytes in vec(any::<u8>(), 0..4096), magic: bool, bits in 9_u8..22) {
        if magic && bytes.len() > 24 {
            bytes[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
            bytes[20..24].copy_from_slice(&[0, 0, 0, bits]);
        }
        let _ = Header::parse(&bytes);
    }
}
