//! The limits of one instance's cgroup, as files and values. Pure.
//!
//! Source: the kernel's Documentation/admin-guide/cgroup-v2.rst.

use serde::Serialize;

use crate::qemu::plan::Accelerator;

/// The period of `cpu.max`, microseconds: the kernel's own default.
const CPU_PERIOD: u64 = 100_000;
/// What iothreads and QEMU's main loop may use beside the vCPUs, microseconds of a period.
const CPU_OVERHEAD: u64 = 25_000;
/// QEMU's own memory beside the guest's, MiB.
const MEMORY_OVERHEAD_MIB: u64 = 256;
/// TCG's buffer for translated code is up to 1 GiB (`-accel tcg,tb-size=`), MiB.
const TCG_BUFFER_MIB: u64 = 1024;
/// Threads beside the vCPUs: iothreads, QEMU's worker pool (64 at most), helpers.
const THREADS_OVERHEAD: u64 = 128;
/// `cpu.weight` and `io.weight`: 100 is one share, 10,000 the most.
const WEIGHT_PER_VCPU: u64 = 100;
const WEIGHT_MAX: u64 = 10_000;

/// One file and what is written to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// The controller that the file belongs to: `memory`.
    pub controller: &'static str,
    /// The file: `memory.max`.
    pub file: &'static str,
    /// The value.
    pub value: String,
    /// A host that lacks it limits the guest less than promised. What is not
    /// required is set where it exists, and passed over where not.
    pub required: bool,
}

/// The limits of one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CgroupPlan {
    /// In the order in which they are written.
    pub settings: Vec<Setting>,
}

impl CgroupPlan {
    /// The limits of a guest with so many virtual CPUs and so much memory:
    ///
    /// - `cpu.max`: its CPUs and a quarter of one for device emulation; `cpu.weight` by its CPUs;
    /// - `memory.max`: its memory, 1/64 of it for page tables and bookkeeping, 256 MiB for
    ///   QEMU, and 1 GiB for translated code under TCG; no swap, so that no guest
    ///   memory comes to lie on a disk;
    /// - `io.weight` by its CPUs, where the kernel has I/O cost control;
    /// - `pids.max`: its CPUs and 128 threads;
    /// - no pages of the host's huge page pool, which are not its.
    #[must_use]
    pub fn new(vcpus: u32, memory_mib: u64, accel: Accelerator) -> Self {
        let vcpus = u64::from(vcpus);
        let weight = vcpus
            .saturating_mul(WEIGHT_PER_VCPU)
            .clamp(1, WEIGHT_MAX)
            .to_string();
        let quota = vcpus
            .saturating_mul(CPU_PERIOD)
            .saturating_add(CPU_OVERHEAD);
        let code = match accel {
            Accelerator::Kvm => 0,
            Accelerator::Tcg => TCG_BUFFER_MIB,
        };
        let memory = memory_mib
            .saturating_add(memory_mib / 64)
            .saturating_add(MEMORY_OVERHEAD_MIB)
            .saturating_add(code)
            .saturating_mul(1 << 20);
        let set = |controller, file, value, required| Setting {
            controller,
            file,
            value,
            required,
        };
        Self {
            settings: vec![
                set("cpu", "cpu.max", format!("{quota} {CPU_PERIOD}"), true),
                set("cpu", "cpu.weight", weight.clone(), true),
                set("memory", "memory.max", memory.to_string(), true),
                // Missing where the kernel has no swap.
                set("memory", "memory.swap.max", "0".into(), false),
                // Missing unless the kernel has iocost or the disks use BFQ.
                set("io", "io.weight", format!("default {weight}"), false),
                set(
                    "pids",
                    "pids.max",
                    (vcpus.saturating_add(THREADS_OVERHEAD)).to_string(),
                    true,
                ),
                set("hugetlb", "hugetlb.2MB.max", "0".into(), false),
                set("hugetlb", "hugetlb.1GB.max", "0".into(), false),
            ],
        }
    }

    /// The controllers that the plan wants, each once, in order.
    #[must_use]
    pub fn controllers(&self) -> Vec<&'static str> {
        let mut all: Vec<_> = self.settings.iter().map(|s| s.controller).collect();
        all.dedup();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_follow_from_size_and_accelerator() {
        let text = |plan: &CgroupPlan| {
            plan.settings
                .iter()
                .map(|s| format!("{}={}", s.file, s.value))
                .collect::<Vec<_>>()
                .join("; ")
        };
        assert_eq!(
            text(&CgroupPlan::new(2, 2048, Accelerator::Kvm)),
            "cpu.max=225000 100000; cpu.weight=200; memory.max=2449473536; memory.swap.max=0; \
             io.weight=default 200; pids.max=130; hugetlb.2MB.max=0; hugetlb.1GB.max=0"
        );
        let tcg = CgroupPlan::new(2, 2048, Accelerator::Tcg);
        assert!(text(&tcg).contains(&format!("memory.max={}", (2048u64 + 32 + 256 + 1024) << 20)));
        let large = text(&CgroupPlan::new(256, 1 << 20, Accelerator::Kvm));
        assert!(large.contains("cpu.weight=10000;"), "{large}");
        assert!(large.contains("pids.max=384;"), "{large}");
        // Nonsense does not overflow.
        let _ = CgroupPlan::new(u32::MAX, u64::MAX, Accelerator::Tcg);
        assert_eq!(
            tcg.controllers(),
            ["cpu", "memory", "io", "pids", "hugetlb"]
        );
    }
}
