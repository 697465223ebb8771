//! IGVM files: made with the crate that reads them, to launch what QEMU launches from a firmware.

use igvm::snp_defs::SevVmsa;
use igvm::{IgvmDirectiveHeader, IgvmFile, IgvmPlatformHeader, IgvmRevision};
use igvm_defs::{
    IGVM_VHS_SUPPORTED_PLATFORM, IgvmPageDataFlags, IgvmPageDataType, IgvmPlatformType,
};
use proptest::prelude::*;
use sev_attest::measure::{
    CpuSignature, Firmware, Igvm, Launch, Mode, SectionKind, Variants, Vmm, vmsa_page,
};
use zerocopy::FromBytes as _;

use crate::support::AMD_SEV;

const MASK: u32 = 1;
const VMSA_GPA: u64 = 0xffff_ffff_f000;

fn page(gpa: u64, data_type: IgvmPageDataType, data: &[u8]) -> IgvmDirectiveHeader {
    IgvmDirectiveHeader::PageData {
        gpa,
        compatibility_mask: MASK,
        flags: IgvmPageDataFlags::new(),
        data_type,
        data: data.to_vec(),
    }
}

fn vcpu(gpa: u64, vp_index: u16) -> IgvmDirectiveHeader {
    let bytes = vmsa_page(Vmm::Qemu, 0xffff_fff0, CpuSignature(0x80_0f12), 1);
    let (vmsa, _) = SevVmsa::read_from_prefix(&bytes).unwrap();
    IgvmDirectiveHeader::SnpVpContext {
        gpa,
        compatibility_mask: MASK,
        vp_index,
        vmsa: Box::new(vmsa),
    }
}

/// The pages of a firmware, as an IGVM file launches them.
fn firmware_pages(firmware: &Firmware) -> Vec<IgvmDirectiveHeader> {
    let image = AMD_SEV.chunks(4096).zip((firmware.gpa()..).step_by(4096));
    image
        .map(|(data, gpa)| page(gpa, IgvmPageDataType::NORMAL, data))
        .collect()
}

fn file(directives: Vec<IgvmDirectiveHeader>) -> Vec<u8> {
    let platform = IgvmPlatformHeader::SupportedPlatform(IGVM_VHS_SUPPORTED_PLATFORM {
        compatibility_mask: MASK,
        highest_vtl: 0,
        platform_type: IgvmPlatformType::SEV_SNP,
        platform_version: 1,
        shared_gpa_boundary: 0,
    });
    let file = IgvmFile::new(IgvmRevision::V1, vec![platform], Vec::new(), directives);
    let mut bytes = Vec::new();
    file.unwrap().serialize(&mut bytes).unwrap();
    bytes
}

/// A firmware without zero pages, which IGVM files can't ask for, launched from both.
#[test]
fn a_file_that_launches_what_qemu_launches() {
    let firmware = Firmware::parse(AMD_SEV.to_vec()).unwrap();
    let mut directives = firmware_pages(&firmware);
    let mut launch = sev_attest::measure::firmware_context(&firmware).unwrap();
    for section in firmware.sections().unwrap() {
        let (kind, page_type) = match section.kind {
            SectionKind::Secrets => (
                IgvmPageDataType::SECRETS,
                sev_attest::measure::PageType::Secrets,
            ),
            SectionKind::Cpuid => (
                IgvmPageDataType::CPUID_DATA,
                sev_attest::measure::PageType::Cpuid,
            ),
            _ => continue,
        };
        directives.push(page(u64::from(section.base), kind, &[]));
        launch.contentless(page_type, u64::from(section.base), 4096);
    }
    directives.push(vcpu(VMSA_GPA, 0));
    let page = vmsa_page(Vmm::Qemu, 0xffff_fff0, CpuSignature(0x80_0f12), 1);
    launch.vmsa(VMSA_GPA, &sev_attest::measure::sha384(&page));
    let measured = Igvm::measure(&file(directives)).unwrap();
    assert_eq!(measured.digest, launch.digest());
    assert!(
        measured.kvm_differs.is_empty(),
        "{:?}",
        measured.kvm_differs
    );
    // And QEMU's own digest has the zero pages that the file has not.
    let variants = Variants {
        boots: &[],
        cpus: &[CpuSignature(0x80_0f12)],
        vcpus: &[1],
    };
    let whole = Launch::new(&firmware, Mode::Snp)
        .measure(&variants)
        .unwrap();
    assert_ne!(whole[0].digest.as_ref(), measured.digest);
}

#[test]
fn what_kvm_does_otherwise_is_told() {
    let firmware = Firmware::parse(AMD_SEV.to_vec()).unwrap();
    let pages = firmware_pages(&firmware);
    for (directives, said) in [
        ([vec![vcpu(VMSA_GPA, 0)], pages.clone()].concat(), "follows"),
        ([pages.clone(), vec![vcpu(0x1000, 0)]].concat(), "elsewhere"),
        (
            [pages.clone(), vec![vcpu(VMSA_GPA, 0), vcpu(VMSA_GPA, 1)]].concat(),
            "several",
        ),
    ] {
        let measured = Igvm::measure(&file(directives)).unwrap();
        let all = measured.kvm_differs.join("; ");
        assert!(all.contains(said), "{said}: {all}");
    }
    // Any byte of a page counts, and the order does.
    let digest = |directives| Igvm::measure(&file(directives)).unwrap().digest;
    let mut changed = pages.clone();
    if let Some(IgvmDirectiveHeader::PageData { data, .. }) = changed.first_mut() {
        data[7] ^= 1;
    }
    assert_ne!(digest(changed), digest(pages));
}

#[test]
fn the_command_takes_igvm_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("guest.igvm");
    let firmware = Firmware::parse(AMD_SEV.to_vec()).unwrap();
    let bytes = file([firmware_pages(&firmware), vec![vcpu(VMSA_GPA, 0)]].concat());
    std::fs::write(&path, &bytes).unwrap();
    let run = |more: &[&str]| {
        std::process::Command::new(env!("CARGO_BIN_EXE_sev-attest"))
            .args(["measure", "--igvm"])
            .arg(&path)
            .args(more)
            .output()
            .unwrap()
    };
    let output = run(&[]);
    assert!(output.status.success(), "{output:?}");
    let digest = Igvm::measure(&bytes).unwrap().digest;
    assert_eq!(
        output.stdout,
        format!("{}\n", hex::encode(digest)).as_bytes()
    );
    assert_eq!(run(&["--vcpus", "2"]).status.code(), Some(2));
    std::fs::write(&path, &bytes[..100]).unwrap();
    assert_eq!(run(&[]).status.code(), Some(2));
}

proptest! {
    /// Whatever is in a file: an answer or an error, and no panic.
    #[test]
    fn bent_files(
        edits in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..6),
        cut in 0usize..4000,
    ) {
        let firmware = Firmware::parse(AMD_SEV.to_vec()).unwrap();
        let mut bytes = file([firmware_pages(&firmware), vec![vcpu(VMSA_GPA, 0)]].concat());
        for (at, value) in edits {
            let at = usize::from(at) % bytes.len();
            bytes[at] = value;
        }
        bytes.truncate(bytes.len() - cut % bytes.len());
        let _ = Igvm::measure(&bytes);
    }
}
