//! What must hold for any input: no panic, bounded work, and many at once equal to one by one.

use proptest::prelude::*;
use sev_attest::measure::{
    CpuSignature, Firmware, FirmwareReadError, KernelHashes, Launch, MeasureError, Mode, Variants,
    Vmm,
};

use crate::support::{AMD_SEV, Image, firmware};

fn modes() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::Snp), Just(Mode::SevEs), Just(Mode::Sev)]
}

fn vmms() -> impl Strategy<Value = Vmm> {
    proptest::sample::select(Vmm::ALL.to_vec())
}

/// The image read page by page, as from a file.
fn read_pages(image: &[u8]) -> Result<Firmware, FirmwareReadError> {
    Firmware::read_pages(image.len(), |offset, bytes| {
        bytes.copy_from_slice(&image[offset..offset + bytes.len()]);
        Ok(())
    })
}

#[test]
fn pages_read_from_a_file_give_the_same_digests() {
    for len in [1, 2, 31, 32, 33, 64, 65, 100, 300] {
        let image = firmware(AMD_SEV, len * 4096);
        let boots = [KernelHashes::new(b"k", None, "x").unwrap()];
        let variants = Variants {
            boots: &boots,
            cpus: &[CpuSignature(7)],
            vcpus: &[1, 2],
        };
        let whole = Firmware::parse(image.clone()).unwrap();
        let paged = read_pages(&image).unwrap();
        let measure = |firmware| Launch::new(firmware, Mode::Snp).measure(&variants).unwrap();
        assert_eq!(measure(&whole), measure(&paged), "{len} pages");
        let sev = Launch::new(&paged, Mode::Sev)
            .measure(&variants)
            .unwrap_err();
        assert!(matches!(sev, MeasureError::PagesOnly { .. }), "{sev:?}");
        let cut = read_pages(&image[1..]);
        assert!(cut.is_err(), "{len} pages less a byte");
    }
    let failing = |offset: usize, _: &mut [u8]| match offset {
        0x20000 => Err(std::io::Error::other("gone")),
        _ => Ok(()),
    };
    assert!(matches!(
        Firmware::read_pages(0x80000, failing),
        Err(FirmwareReadError::Io(_))
    ));
}

/// The image read page by page gives what the image in memory gives: the same digest, or the same
/// error, and so in words.
#[track_caller]
fn both_ways(image: &[u8]) {
    let paged = read_pages(image).map_err(|error| error.to_string());
    let whole = Firmware::parse(image.to_vec()).map_err(|error| error.to_string());
    let measure = |firmware: Firmware| {
        let variants = Variants {
            boots: &[],
            cpus: &[CpuSignature(7)],
            vcpus: &[1, 2],
        };
        let digests = Launch::new(&firmware, Mode::Snp).measure(&variants);
        digests.map_err(|error| error.to_string())
    };
    assert_eq!(paged.map(measure), whole.map(measure));
}

/// Parses and measures whatever it is; only a panic or endless work can fail.
fn take(image: Vec<u8>) {
    if !image.is_empty() && image.len() % 4096 == 0 {
        both_ways(&image);
    }
    let Ok(firmware) = Firmware::parse(image) else {
        return;
    };
    if let Ok(sections) = firmware.sections() {
        let mut ranges: Vec<_> = sections
            .iter()
            .map(|s| (u64::from(s.base), u64::from(s.base) + u64::from(s.len)))
            .collect();
        ranges.push((firmware.gpa(), 1 << 32));
        ranges.sort_unstable();
        assert!(ranges.windows(2).all(|w| w[0].1 <= w[1].0), "{ranges:x?}");
        assert!(
            sections
                .iter()
                .all(|s| s.base % 4096 == 0 && s.len % 4096 == 0 && s.len > 0)
        );
    }
    let boots = [KernelHashes::new(b"", None, "").unwrap()];
    let variants = Variants {
        boots: &boots,
        cpus: &[CpuSignature(0)],
        vcpus: &[1, 3],
    };
    for mode in [Mode::Snp, Mode::SevEs, Mode::Sev] {
        let _ = Launch::new(&firmware, mode).measure(&variants);
    }
}

/// Google's images have their metadata megabytes before the end, and a first page can hold it.
#[test]
fn metadata_at_the_very_front() {
    let image = Image {
        len: 2 << 20,
        metadata_offset: 2 << 20,
        ..Image::default()
    };
    both_ways(&image.build());
    let firmware = read_pages(&image.build()).unwrap();
    assert_eq!(firmware.sections().unwrap().len(), 5);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn metadata_anywhere(
        pages in 1usize..100,
        offset in prop_oneof![0u32..0x40_0000, Just(0x2_0000), Just(0x2_0010), 0x1_ff00u32..0x2_0100],
        skew in prop_oneof![4 => Just(0), 1 => -40i32..40],
    ) {
        let image = Image {
            len: pages * 4096,
            metadata_offset: offset,
            size_skew: skew,
            ..Image::default()
        };
        both_ways(&image.build());
    }
}

proptest! {
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
        take(bytes);
    }

    #[test]
    fn damaged_suffix(
        changes in proptest::collection::vec((2700usize..4096, any::<u8>()), 1..6),
        cut in 0usize..64,
    ) {
        let mut image = AMD_SEV.to_vec();
        for (at, byte) in changes {
            image[at] = byte;
        }
        image.drain(..cut * 8);
        take(image);
    }

    #[test]
    fn any_sections(
        sections in proptest::collection::vec(
            (any::<u32>(), any::<u32>(), prop_oneof![0u32..6, Just(16)], 0u8..4), 0..8),
        count in proptest::option::of(0u32..20),
    ) {
        let sections = sections.into_iter().map(|(base, len, kind, shape)| match shape {
            0 => (base, len, kind),
            1 => (base & !0xfff, len & 0xf_f000, kind),
            _ => (base & !0xfff, 0x1000, kind),
        }).collect();
        take(Image { sections, count, ..Image::default() }.build());
    }

    #[test]
    fn many_at_once_equal_one_by_one(
        mode in modes(),
        vmm in vmms(),
        features: u64,
        cpus in proptest::collection::vec(any::<u32>().prop_map(CpuSignature), 1..3),
        vcpus in proptest::collection::vec(1u32..20, 1..4),
        lines in proptest::collection::vec("[ -~]{0,20}", 0..3),
    ) {
        let firmware = Firmware::parse(firmware(AMD_SEV, 0x4000)).unwrap();
        let boots: Vec<_> =
            lines.iter().map(|l| KernelHashes::new(b"k", Some(b"i"), l).unwrap()).collect();
        let launch = Launch::new(&firmware, mode).vmm(vmm).features(features);
        let all = launch.measure(&Variants { boots: &boots, cpus: &cpus, vcpus: &vcpus }).unwrap();
        for got in &all {
            let boots = boots.get(got.boot).map(std::slice::from_ref).unwrap_or_default();
            let (cpu, count) = got.vcpus.unwrap_or((cpus[0], 1));
            let one = Variants { boots, cpus: &[cpu], vcpus: &[count] };
            prop_assert_eq!(launch.measure(&one).unwrap()[0].digest, got.digest);
        }
        let distinct = vcpus.iter().collect::<std::collections::BTreeSet<_>>().len();
        let each = if mode == Mode::Sev { 1 } else { distinct * cpus.len() };
        prop_assert_eq!(all.len(), each * lines.len().max(1));
    }

    #[test]
    fn each_byte_of_the_firmware_is_measured(at in 0usize..0x3000, flip in 1u8..) {
        let good = firmware(AMD_SEV, 0x4000);
        let mut changed = good.clone();
        changed[at] ^= flip;
        let variants = Variants { boots: &[], cpus: &[CpuSignature(0)], vcpus: &[1] };
        let digest = |image| {
            let firmware = Firmware::parse(image).unwrap();
            Launch::new(&firmware, Mode::Snp).measure(&variants).unwrap()[0].digest
        };
        prop_assert_ne!(digest(good), digest(changed));
    }
}
