//! The field's own crate of SEV types as a peer: the same real reports, every field compared, and
//! its JSON read back.

use serde_json::json;
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser as _;

use sev_attest::formats::read_report;
use sev_attest::report::Report;

use crate::support::{REAL, data};

fn reports() -> Vec<(&'static str, Report)> {
    let read = |name| (name, read_report(&data(name)).unwrap().report);
    let mut all: Vec<_> = REAL.iter().map(|(name, _)| read(*name)).collect();
    // Its chip id is zero, which `sev` cannot read in version 2 alone.
    all.push(read("coco-milan-vlek-report.bin"));
    all
}

#[test]
fn every_field_is_the_same() {
    for (name, ours) in reports() {
        let theirs = AttestationReport::from_bytes(ours.as_bytes()).unwrap();
        let product = ours.product();
        assert_eq!(theirs.version, ours.version.number(), "{name}");
        assert_eq!(theirs.guest_svn, ours.guest_svn, "{name}");
        assert_eq!(u64::from(theirs.policy), ours.policy.0, "{name}");
        assert_eq!(theirs.family_id, ours.family_id, "{name}");
        assert_eq!(theirs.image_id, ours.image_id, "{name}");
        assert_eq!(theirs.vmpl, ours.vmpl, "{name}");
        assert_eq!(theirs.sig_algo, ours.signature_algorithm, "{name}");
        assert_eq!(u64::from(theirs.plat_info), ours.platform_info.0, "{name}");
        assert_eq!(u32::from(theirs.key_info), ours.key_info.0, "{name}");
        assert_eq!(theirs.report_data, ours.report_data, "{name}");
        assert_eq!(theirs.measurement, ours.measurement, "{name}");
        assert_eq!(theirs.host_data, ours.host_data, "{name}");
        assert_eq!(theirs.id_key_digest, ours.id_key_digest, "{name}");
        assert_eq!(theirs.author_key_digest, ours.author_key_digest, "{name}");
        assert_eq!(theirs.report_id, ours.report_id, "{name}");
        assert_eq!(theirs.report_id_ma, ours.report_id_ma, "{name}");
        assert_eq!(theirs.chip_id, ours.chip_id.0, "{name}");
        let cpuid = [theirs.cpuid_fam_id, theirs.cpuid_mod_id, theirs.cpuid_step];
        let ours_cpuid = ours.cpuid.map(|c| [c.family, c.model, c.stepping]);
        assert_eq!(
            cpuid,
            ours_cpuid.map_or([None; 3], |c| c.map(Some)),
            "{name}"
        );
        // Reports of version 2 do not say their layout; real ones of it are Milan's.
        let product = product.unwrap_or(sev_attest::product::Product::Milan);
        for (theirs, ours) in [
            (theirs.current_tcb, ours.current_tcb),
            (theirs.reported_tcb, ours.reported_tcb),
            (theirs.committed_tcb, ours.committed_tcb),
            (theirs.launch_tcb, ours.launch_tcb),
        ] {
            let ours = ours.decode(product);
            assert_eq!(theirs.fmc, ours.fmc, "{name}");
            let theirs = [theirs.bootloader, theirs.tee, theirs.snp, theirs.microcode];
            let ours = [ours.boot_loader, ours.tee, ours.snp, ours.microcode];
            assert_eq!(theirs, ours, "{name}");
        }
        for (theirs, ours) in [
            (theirs.current, ours.current_version),
            (theirs.committed, ours.committed_version),
        ] {
            let theirs = [theirs.major, theirs.minor, theirs.build];
            assert_eq!(theirs, [ours.major, ours.minor, ours.build], "{name}");
        }
        assert_eq!(theirs.launch_mit_vector, ours.launch_mitigations, "{name}");
        assert_eq!(
            theirs.current_mit_vector, ours.current_mitigations,
            "{name}"
        );
        let signature = ours.signature.fixed().unwrap();
        let (r, s) = signature.split_at(48);
        for (theirs, ours) in [(theirs.signature.r(), r), (theirs.signature.s(), s)] {
            let mut big_endian: Vec<u8> = theirs[..48].to_vec();
            big_endian.reverse();
            assert_eq!(big_endian, ours, "{name}");
        }
    }
}

/// Its JSON is what trustee and others hand around; the bytes come back as they were signed.
#[test]
fn its_json_is_read_back() {
    for (name, ours) in reports() {
        let theirs = AttestationReport::from_bytes(ours.as_bytes()).unwrap();
        let text = json!({ "attestation_report": theirs }).to_string();
        let back = read_report(text.as_bytes()).unwrap().report;
        assert_eq!(back, ours, "{name}");
    }
}
