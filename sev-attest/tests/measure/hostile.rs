//! Firmware that lies: each case is refused for its own reason, before anything is hashed.

use sev_attest::measure::{
    CpuSignature, Firmware, KernelHashes, Launch, MeasureError, Mode, Variants,
};

use crate::support::{
    HASH_TABLE, Image, METADATA, METADATA_OFFSET, OVMF_X64, RESET_BLOCK, firmware,
};

fn measure(image: Vec<u8>, mode: Mode, boots: &[KernelHashes]) -> Result<(), MeasureError> {
    let firmware = Firmware::parse(image)?;
    let cpus = [CpuSignature::of_type("EPYC-v4")?];
    let variants = Variants {
        boots,
        cpus: &cpus,
        vcpus: &[2],
    };
    Launch::new(&firmware, mode).measure(&variants).map(drop)
}

fn boot() -> Vec<KernelHashes> {
    vec![KernelHashes::new(b"kernel", None, "").unwrap()]
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

/// Name, change to a good image, variant of the error expected for an SNP guest with a kernel.
type Case = (&'static str, fn(&mut Image), &'static str);

const CASES: &[Case] = &[
    ("no footer GUID", |i| i.footer.0[3] ^= 1, "NoFooterTable"),
    (
        "table shorter than its own header",
        |i| i.table_skew = -84,
        "FooterTableLength",
    ),
    (
        "table longer than the image",
        |i| i.table_skew = 0x4000,
        "FooterTableLength",
    ),
    (
        "table cuts an entry",
        |i| i.table_skew = -2,
        "FooterEntryLength",
    ),
    (
        "table reaches into code",
        |i| i.table_skew = 7,
        "FooterTableRest",
    ),
    (
        "bytes before the first entry",
        |i| i.junk = 17,
        "FooterTableRest",
    ),
    (
        "entry shorter than its header",
        |i| i.entries[2].2 = -5,
        "FooterEntryLength",
    ),
    (
        "entry of length zero",
        |i| i.entries[2].2 = -22,
        "FooterEntryLength",
    ),
    (
        "entry longer than the table",
        |i| i.entries[2].2 = 0x1000,
        "FooterEntryLength",
    ),
    (
        "entry twice",
        |i| i.entries.push(i.entries[0].clone()),
        "DuplicateEntry",
    ),
    (
        "reset block of 2 bytes",
        |i| i.entry(RESET_BLOCK).1.truncate(2),
        "EntryData",
    ),
    (
        "reset block of 8 bytes",
        |i| i.entry(RESET_BLOCK).1.extend([0; 4]),
        "EntryData",
    ),
    (
        "hash table entry without length",
        |i| i.entry(HASH_TABLE).1.truncate(4),
        "EntryData",
    ),
    (
        "metadata offset of no bytes",
        |i| i.entry(METADATA).1.clear(),
        "EntryData",
    ),
    (
        "metadata before the image",
        |i| i.entry(METADATA).1 = words(&[0x4001]),
        "MetadataOffset",
    ),
    (
        "metadata offset of 4 GiB",
        |i| i.entry(METADATA).1 = words(&[!0]),
        "MetadataOffset",
    ),
    (
        "metadata at the very end",
        |i| i.entry(METADATA).1 = words(&[15]),
        "MetadataOffset",
    ),
    (
        "metadata offset zero",
        |i| i.entry(METADATA).1 = words(&[0]),
        "MetadataOffset",
    ),
    (
        "metadata elsewhere",
        |i| i.entry(METADATA).1 = words(&[METADATA_OFFSET + 1]),
        "MetadataSig",
    ),
    (
        "metadata signature",
        |i| i.signature = *b"ASEW",
        "MetadataSignature",
    ),
    ("metadata version 0", |i| i.version = 0, "MetadataVersion"),
    ("metadata version 2", |i| i.version = 2, "MetadataVersion"),
    (
        "metadata size too small",
        |i| i.size_skew = -12,
        "MetadataLength",
    ),
    (
        "metadata size too large",
        |i| i.size_skew = 12,
        "MetadataLength",
    ),
    (
        "metadata size of header only",
        |i| i.size_skew = -60,
        "MetadataLength",
    ),
    (
        "more sections than bytes",
        |i| i.count = Some(6),
        "MetadataLength",
    ),
    (
        "sections times 12 overflows",
        |i| i.count = Some(0x1555_5555),
        "MetadataLength",
    ),
    (
        "four billion sections",
        |i| i.count = Some(!0),
        "MetadataLength",
    ),
    (
        "too many sections",
        |i| i.sections = sections(129),
        "MetadataLength",
    ),
    ("section type 0", |i| i.sections[0].2 = 0, "SectionType"),
    ("section type 5", |i| i.sections[0].2 = 5, "SectionType"),
    (
        "section type with high bits",
        |i| i.sections[0].2 = 0x1_0001,
        "SectionType",
    ),
    ("empty section", |i| i.sections[0].1 = 0, "SectionRange"),
    (
        "address within a page",
        |i| i.sections[0].0 += 0x800,
        "SectionRange",
    ),
    (
        "length of half a page",
        |i| i.sections[0].1 = 0x800,
        "SectionRange",
    ),
    (
        "section past 4 GiB",
        |i| i.sections[0] = (0xffff_f000, 0x2000, 1),
        "SectionRange",
    ),
    (
        "section of 4 GiB",
        |i| i.sections[0] = (0, 0xffff_f000, 1),
        "SectionOverlap",
    ),
    (
        "section inside the firmware",
        |i| i.sections[0] = (!0xfff, 0x1000, 1),
        "SectionOverlap",
    ),
    (
        "section up to the firmware's first page",
        |i| i.sections[0] = (0xffff_b000, 0x2000, 1),
        "SectionOverlap",
    ),
    (
        "sections overlap",
        |i| i.sections[0].1 = 0xe000,
        "SectionOverlap",
    ),
    (
        "same section twice",
        |i| i.sections.push((0x800000, 0x9000, 1)),
        "SectionOverlap",
    ),
    (
        "secrets of two pages",
        |i| i.sections[1].1 = 0x2000,
        "SectionNotOnePage",
    ),
    (
        "CPUID of two pages",
        |i| i.sections[2] = (0x900000, 0x2000, 3),
        "SectionNotOnePage",
    ),
    (
        "kernel hashes of two pages",
        |i| i.sections[4].1 = 0x2000,
        "SectionNotOnePage",
    ),
    (
        "secrets twice",
        |i| i.sections.push((0x900000, 0x1000, 2)),
        "SectionRepeated",
    ),
    (
        "CPUID twice",
        |i| i.sections.push((0x900000, 0x1000, 3)),
        "SectionRepeated",
    ),
    (
        "kernel hashes twice",
        |i| i.sections.push((0x900000, 0x1000, 16)),
        "SectionRepeated",
    ),
    (
        "gigabytes of zero pages",
        |i| i.sections[0] = (0x1000_0000, 0x4000_0000, 1),
        "SectionsTooL",
    ),
    (
        "no metadata entry",
        |i| drop(i.entries.remove(2)),
        "NoMetadata",
    ),
    (
        "no reset block",
        |i| drop(i.entries.remove(0)),
        "NoResetBlock",
    ),
    (
        "reset vector zero",
        |i| i.entry(RESET_BLOCK).1 = words(&[0]),
        "NoResetBlock",
    ),
    (
        "no hash table entry",
        |i| drop(i.entries.remove(1)),
        "NoKernelHashes",
    ),
    (
        "hash table at zero",
        |i| i.entry(HASH_TABLE).1 = words(&[0, 0x400]),
        "NoKernelHashes",
    ),
    (
        "no kernel-hashes section",
        |i| i.sections.truncate(4),
        "NoKernelHashes",
    ),
    (
        "hash table too short",
        |i| i.entry(HASH_TABLE).1 = words(&[0x810c00, 175]),
        "HashTableRange",
    ),
    (
        "hash table past its page",
        |i| i.entry(HASH_TABLE).1 = words(&[0x810f51, 176]),
        "HashTable",
    ),
    (
        "hash table of 4 GiB",
        |i| i.entry(HASH_TABLE).1 = words(&[0x810000, !0]),
        "HashTableRange",
    ),
    (
        "hash table below its section",
        |i| i.entry(HASH_TABLE).1 = words(&[0x80fc00, 176]),
        "HashTab",
    ),
    (
        "hash table in another section",
        |i| i.entry(HASH_TABLE).1 = words(&[0x800c00, 176]),
        "HashTa",
    ),
    ("not whole pages", |i| i.len = 0x4001, "FirmwareNotPaged"),
];

fn sections(count: u32) -> Vec<(u32, u32, u32)> {
    (0..count)
        .map(|i| (0x80_0000 + i * 0x1000, 0x1000, 1))
        .collect()
}

#[test]
fn each_lie_has_its_error() {
    measure(Image::default().build(), Mode::Snp, &boot()).expect("the unchanged image is good");
    for (name, change, expected) in CASES {
        let mut image = Image::default();
        change(&mut image);
        let error = measure(image.build(), Mode::Snp, &boot()).expect_err(name);
        let variant = format!("{error:?}");
        assert!(
            variant.starts_with(expected),
            "{name}: expected {expected}, got {variant}"
        );
        let text = error.to_string();
        assert!(text.len() > 20 && !text.contains('\n'), "{name}: {text}");
    }
}

#[test]
fn sizes_are_bounded() {
    for len in [0, sev_attest::measure::MAX_FIRMWARE + 1] {
        let error = Firmware::parse(vec![0; len]).unwrap_err();
        assert!(
            matches!(error, MeasureError::FirmwareSize { .. }),
            "{error:?}"
        );
    }
    for len in 1..200 {
        let error = measure(vec![0; len], Mode::SevEs, &[]).unwrap_err();
        assert_eq!(error, MeasureError::NoFooterTable, "{len}");
    }
}

#[test]
fn every_truncation_of_a_real_suffix_is_refused() {
    for end in 0..OVMF_X64.len() {
        assert!(
            measure(OVMF_X64[..end].to_vec(), Mode::Snp, &[]).is_err(),
            "first {end} bytes"
        );
    }
    // The table and metadata lie in the last 0x580 bytes; a shorter tail cuts them.
    for start in OVMF_X64.len() - 0x540..OVMF_X64.len() {
        assert!(
            measure(OVMF_X64[start..].to_vec(), Mode::Snp, &[]).is_err(),
            "from byte {start}"
        );
    }
}

#[test]
fn a_kernel_without_a_place_for_its_hashes_is_an_error() {
    let image = firmware(OVMF_X64, 1 << 16);
    for mode in [Mode::Snp, Mode::SevEs, Mode::Sev] {
        measure(image.clone(), mode, &[]).unwrap();
        let error = measure(image.clone(), mode, &boot()).unwrap_err();
        assert!(
            matches!(error, MeasureError::NoKernelHashes { .. }),
            "{mode}: {error:?}"
        );
        assert!(error.to_string().contains("AmdSev build"), "{error}");
    }
}

#[test]
fn plain_sev_measures_any_image() {
    measure(vec![7; 5000], Mode::Sev, &[]).unwrap();
    assert_eq!(
        measure(vec![7; 5000], Mode::Snp, &[]),
        Err(MeasureError::NoFooterTable)
    );
}

#[test]
fn vcpus_are_needed_and_bounded() {
    let firmware = Firmware::parse(Image::default().build()).unwrap();
    let cpus = [CpuSignature(1)];
    for mode in [Mode::Snp, Mode::SevEs] {
        for (cpus, vcpus) in [
            (&cpus[..], &[][..]),
            (&[], &[1]),
            (&cpus, &[0]),
            (&cpus, &[1, 4097]),
        ] {
            let variants = Variants {
                boots: &[],
                cpus,
                vcpus,
            };
            assert!(
                Launch::new(&firmware, mode).measure(&variants).is_err(),
                "{mode} {vcpus:?}"
            );
        }
    }
}
