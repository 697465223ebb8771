//! Fuzz targets of `sev-attest`.

use sev_attest::measure::{CpuSignature, Firmware, KernelHashes, Launch, Mode, Variants};

/// A firmware image: parsed as a whole and page by page, and measured in every mode.
///
/// # Panics
/// When the two ways of reading accept different images or give different digests.
pub fn ovmf_metadata(data: &[u8]) {
    let whole = Firmware::parse(data.to_vec());
    let paged = Firmware::read_pages(data.len(), |offset, bytes| {
        let end = offset + bytes.len();
        bytes.copy_from_slice(
            data.get(offset..end)
                .ok_or(std::io::ErrorKind::UnexpectedEof)?,
        );
        Ok(())
    });
    let Ok(whole) = whole else { return };
    let boots: Vec<_> = KernelHashes::new(b"kernel", None, "").into_iter().collect();
    for boots in [&boots[..], &[]] {
        let variants = Variants {
            boots,
            cpus: &[CpuSignature(0x0080_0f12)],
            vcpus: &[1, 3],
        };
        for mode in [Mode::Sev, Mode::SevEs] {
            let _ = Launch::new(&whole, mode).measure(&variants);
        }
        let snp = |firmware| Launch::new(firmware, Mode::Snp).measure(&variants);
        let one = snp(&whole);
        if let Ok(paged) = &paged {
            assert_eq!(one, snp(paged), "whole and page by page");
        }
    }
}
