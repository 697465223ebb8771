//! The machine: chipset, accelerator, processor, memory, and what belongs to no other part.

use serde_json::json;

use super::{
    accelerator::{Accelerator, CPU_OF_KVM, CPU_OF_TCG},
    arguments::{Builder, FdSource},
    boot,
    launch::Launch,
    protection::{self, Open, Protection, Sev, Snp},
};

pub(super) fn machine(b: &mut Builder, l: &Launch) {
    b.arg("-name", format!("guest={},debug-threads=on", l.marker));
    b.arg("-uuid", &l.uuid);
    b.flag("-nodefaults");
    b.flag("-no-user-config");
    b.arg("-display", "none");
    b.arg(
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    );
    // A guest that reboots reboots; one that powers off leaves QEMU in the state
    // `shutdown`, so that an agent that was not there can still tell it from a crash.
    // What follows a panic is the guest's own to say: it may reboot, or save its memory.
    b.arg(
        "-action",
        format!(
            "reboot={},shutdown=pause,panic=none,watchdog=reset",
            l.protection.reboot()
        ),
    );
    b.arg("-msg", "timestamp=on");
    b.arg("-rtc", "base=utc");
    b.arg("-global", "ICH9-LPC.disable_s3=1");
    b.arg("-global", "ICH9-LPC.disable_s4=1");
    let more = match &l.protection {
        Protection::None(open) => boot::boot(b, &open.boot).to_owned(),
        Protection::Sev(sev) => {
            boot::measured(b, Some(&sev.firmware), sev.kernel.as_ref());
            protection::object(b, &l.protection)
        }
        Protection::Snp(snp) => {
            boot::measured(b, Some(&snp.firmware), snp.kernel.as_ref());
            protection::object(b, &l.protection)
        }
    };
    b.arg(
        "-machine",
        format!(
            "{},usb=off,vmport=off,smm=off,hpet=off,graphics=off,dump-guest-core=off,\
             memory-backend=ram{more}",
            l.machine
        ),
    );
    match &l.protection {
        Protection::None(open) => processor(b, open),
        Protection::Sev(Sev { cpu, .. }) | Protection::Snp(Snp { cpu, .. }) => {
            kvm(b);
            b.arg("-cpu", format!("{}{NOT_NESTED}", cpu.name()));
        }
    }
    b.arg(
        "-smp",
        format!("cpus={0},sockets=1,cores={0},threads=1", l.vcpus),
    );
    b.arg("-m", format!("size={}M", l.memory_mib));
    // Not merged with other guests' pages (a side channel), not in core dumps. Private
    // memory is none of it: QEMU has a guest_memfd made beside it. And no memory file, whose
    // length the limit on the length of files would count.
    b.json(
        "-object",
        &json!({"qom-type": "memory-backend-ram", "id": "ram", "size": l.memory_mib << 20,
                "merge": false, "dump": false}),
    );
    // By which the guest's kernel tells that it panicked. Of ISA: no place on the PCI bus
    // is another one for it.
    b.json("-device", &json!({"driver": "pvpanic"}));
    b.arg("-boot", "menu=off,strict=on");
}

/// A guest cannot run guests.
const NOT_NESTED: &str = ",vmx=off,svm=off";

fn kvm(b: &mut Builder) {
    let device = b.file(FdSource::ReadWrite("/dev/kvm".into()));
    b.arg("-accel", format!("kvm,device={device}"));
}

/// Accelerator and CPU model of a guest that its host can look into.
fn processor(b: &mut Builder, open: &Open) {
    match open.accel {
        Accelerator::Kvm => {
            kvm(b);
            let nested = if open.nested { "" } else { NOT_NESTED };
            b.arg("-cpu", format!("{}{nested}", open.cpu));
        }
        Accelerator::Tcg => {
            b.arg("-accel", "tcg,thread=multi");
            // What was made with KVM runs without it too, if need be.
            let cpu = match open.cpu.as_str() {
                CPU_OF_KVM => CPU_OF_TCG,
                other => other,
            };
            b.arg("-cpu", cpu);
        }
    }
}

/// Behind all others, which keep their places on the PCI bus.
pub(super) fn watchdog(b: &mut Builder, l: &Launch) {
    if l.watchdog {
        b.json("-device", &json!({"driver": "i6300esb", "id": "watchdog"}));
    }
}
