//! The command line as a table of snapshots, and its rules.

mod protected;

use std::path::Path;

use crn_api_types::Firmware;

use super::*;

fn open() -> Open {
    Open {
        accel: Accelerator::Tcg,
        cpu: CPU_OF_TCG.into(),
        nested: false,
        boot: Boot::Bios,
        seed: Some("/state/instances/ab/seed.iso".into()),
    }
}

fn uefi() -> Boot {
    let (code, vars) = (Path::new("/fw/CODE.fd"), Path::new("/state/vars.fd"));
    Boot::new(Firmware::Uefi, code, vars)
}

pub(crate) fn example() -> Launch {
    Launch {
        binary: "/usr/bin/qemu-system-x86_64".into(),
        marker: format!("crn:00c0ffee:{}", "ab".repeat(32)),
        uuid: "abababab-abab-abab-abab-abababababab".into(),
        vcpus: 2,
        memory_mib: 2048,
        machine: "pc-q35-10.0".into(),
        protection: Protection::None(open()),
        root: "/state/instances/ab/root.qcow2".into(),
        base: ("/state/images/sha256/cd.img".into(), DiskFormat::Qcow2),
        watchdog: false,
        volumes: vec![],
        mac: "02:ab:ab:ab:ab:ab".into(),
        mtu: 1400,
        run_dir: "/run/vm/abababababababab".into(),
        console_log: Some("/state/instances/ab/console.log".into()),
        uid: 2_100_007,
        isolate_network: true,
        cgroup_procs: None,
        largest_file: None,
        confinement: Confinement::default(),
    }
}

fn rendered(plan: &LaunchPlan) -> String {
    let mut out = plan.binary.display().to_string();
    for arg in &plan.args {
        out.push_str(if arg.starts_with('-') { "\n" } else { " " });
        out.push_str(arg);
    }
    for fd in &plan.fds {
        out.push_str(&format!("\nfd {} = {:?}", fd.number, fd.source));
    }
    for placed in &plan.placed {
        out.push_str(&format!(
            "\n{} = {:?}",
            placed.path.display(),
            placed.content
        ));
    }
    for device in &plan.devices {
        out.push_str(&format!("\ndevice {}", device.display()));
    }
    out
}

#[test]
fn bios_guest_with_tcg() {
    insta::assert_snapshot!(rendered(&plan(&example())));
}

#[test]
fn uefi_guest_with_kvm_volumes_and_no_seed() {
    let launch = Launch {
        machine: "pc-q35-9.2".into(),
        protection: Protection::None(Open {
            accel: Accelerator::Kvm,
            cpu: CPU_OF_KVM.into(),
            boot: uefi(),
            seed: None,
            ..open()
        }),
        base: ("/state/images/sha256/ef.img".into(), DiskFormat::Raw),
        watchdog: true,
        volumes: vec![VolumeDisk {
            id: "00112233445566aa".into(),
            path: "/state/volumes/00112233445566aa.qcow2".into(),
        }],
        ..example()
    };
    insta::assert_snapshot!(rendered(&plan(&launch)));
}

#[test]
fn qemu_is_told_to_open_nothing_by_itself() {
    let mut launch = example();
    launch.volumes.push(VolumeDisk {
        id: "1".into(),
        path: "/state/volumes/1.qcow2".into(),
    });
    launch.protection = Protection::None(Open {
        boot: uefi(),
        ..open()
    });
    let plan = plan(&launch);
    for arg in &plan.args {
        assert!(
            !arg.contains("/state") && !arg.contains("/fw") && !arg.contains("/run"),
            "{arg}"
        );
    }
}

#[test]
fn descriptors_are_numbered_without_gaps_and_all_are_used() {
    let plan = plan(&example());
    let text = plan.args.join(" ");
    for (i, fd) in plan.fds.iter().enumerate() {
        assert_eq!(fd.number, FIRST_FD + i32::try_from(i).unwrap());
        assert!(text.contains(&format!("fd={}", fd.number)), "{fd:?}");
    }
    assert_eq!(
        plan.fds
            .iter()
            .filter(|f| f.source == FdSource::Tap)
            .count(),
        1
    );
}

#[test]
fn more_volumes_than_slots_are_not_planned() {
    let mut launch = example();
    for i in 0..40 {
        launch.volumes.push(VolumeDisk {
            id: format!("{i:016x}"),
            path: "/v".into(),
        });
    }
    let text = plan(&launch).args.join(" ");
    assert!(text.contains("\"bus\":\"slot15\"") && !text.contains("\"bus\":\"slot16\""));
}

#[test]
fn a_cpu_model_fits_its_accelerator() {
    let cpu = |accel, model: &str, nested| {
        let launch = Launch {
            protection: Protection::None(Open {
                accel,
                cpu: model.into(),
                nested,
                ..open()
            }),
            ..example()
        };
        let args = plan(&launch).args;
        let at = args.iter().position(|a| a == "-cpu").unwrap();
        args[at + 1].clone()
    };
    use Accelerator::{Kvm, Tcg};
    for (accel, model, nested, expected) in [
        (Kvm, "host", false, "host,vmx=off,svm=off"),
        (Kvm, "host", true, "host"),
        (Kvm, "max", false, "max,vmx=off,svm=off"),
        (Kvm, "EPYC-v4", false, "EPYC-v4,vmx=off,svm=off"),
        (Tcg, "max", false, "max"),
        (Tcg, "max", true, "max"),
        (Tcg, "host", false, "max"),
        (Tcg, "EPYC-v4", false, "EPYC-v4"),
    ] {
        assert_eq!(cpu(accel, model, nested), expected, "{accel:?} {model}");
    }
}
