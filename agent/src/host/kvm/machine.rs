//! One VM with one vCPU and 2 MiB of memory that runs the probe's program.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryMmap};

use super::guest;

/// Why the guest did not do what it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// A KVM request failed.
    #[error("KVM refuses to {what}: {source}")]
    Request {
        what: &'static str,
        source: kvm_ioctls::Error,
    },
    /// The guest's memory cannot be had or reached.
    #[error("the guest's memory: {0}")]
    Memory(String),
    /// The guest left by something else than `hlt`.
    #[error("the guest stopped by {0} instead of hlt")]
    Exit(String),
    /// The watchdog struck.
    #[error("the guest did not end in time")]
    Cut,
    /// It computed something else.
    #[error("the guest computed {found:x?} instead of {expected:x?}")]
    WrongResult {
        found: (u64, u64),
        expected: (u64, u64),
    },
}

impl From<GuestMemoryError> for Fault {
    fn from(e: GuestMemoryError) -> Self {
        Self::Memory(e.to_string())
    }
}

fn refused(what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Fault {
    move |source| Fault::Request { what, source }
}

/// The VM. Fields are dropped in this order: the memory last.
pub(super) struct Machine {
    vcpu: VcpuFd,
    _vm: VmFd,
    memory: GuestMemoryMmap,
}

impl Machine {
    /// Makes the VM and loads the program.
    pub(super) fn new(kvm: &Kvm, program: &[u8]) -> Result<Self, Fault> {
        let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), guest::MEMORY)])
            .map_err(|e| Fault::Memory(e.to_string()))?;
        guest::load(&memory, program)?;
        let address = memory.get_host_address(GuestAddress(0))?;
        let vm = kvm.create_vm().map_err(refused("create a VM"))?;
        // Intel without unrestricted guests needs a place for a task state segment; other
        // processors ignore or refuse it.
        let _ = vm.set_tss_address(0xFFFB_D000);
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: guest::MEMORY as u64,
            userspace_addr: address as u64,
        };
        #[allow(
            unsafe_code,
            reason = "the region is exactly the mapping of `memory`, which this struct keeps \
                      until vCPU and VM are closed, and which is reached by volatile access only"
        )]
        // SAFETY: see the reason above.
        unsafe { vm.set_user_memory_region(region) }.map_err(refused("take guest memory"))?;
        let vcpu = vm.create_vcpu(0).map_err(refused("create a vCPU"))?;
        let cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(refused("list processor features"))?;
        vcpu.set_cpuid2(&cpuid)
            .map_err(refused("set processor features"))?;
        let mut sregs = vcpu.get_sregs().map_err(refused("read system registers"))?;
        guest::enter_long_mode(&mut sregs);
        vcpu.set_sregs(&sregs).map_err(refused("enter long mode"))?;
        Ok(Self {
            vcpu,
            _vm: vm,
            memory,
        })
    }

    /// Runs the program for that many turns and checks its result; gives the time
    /// from the first entry to `hlt`.
    pub(super) fn run(&mut self, turns: u64, cut: &AtomicBool) -> Result<Duration, Fault> {
        self.vcpu
            .set_regs(&guest::registers(turns))
            .map_err(refused("set registers"))?;
        let started = Instant::now();
        loop {
            if cut.load(Ordering::SeqCst) {
                return Err(Fault::Cut);
            }
            match self.vcpu.run() {
                Ok(VcpuExit::Hlt) => break,
                Ok(VcpuExit::Intr) => {}
                Ok(exit) => return Err(Fault::Exit(format!("{exit:?}"))),
                // EINTR, EAGAIN: a signal, perhaps the watchdog's.
                Err(e) if matches!(e.errno(), 4 | 11) => {}
                Err(e) => return Err(refused("run the vCPU")(e)),
            }
        }
        let took = started.elapsed();
        let (found, expected) = (self.result()?, guest::expected(turns));
        if found == expected {
            Ok(took)
        } else {
            Err(Fault::WrongResult { found, expected })
        }
    }

    /// What lies at the result's place.
    pub(super) fn result(&self) -> Result<(u64, u64), Fault> {
        Ok(guest::result(&self.memory)?)
    }
}
