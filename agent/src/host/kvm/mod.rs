//! What KVM on this host really is: a small 64-bit guest is run and timed.
//!
//! Neither the existence of `/dev/kvm` nor a guest that reaches its `hlt` says
//! that KVM is usable: there are hosts where KVM emulates every instruction,
//! correctly and a thousand times too slowly. So the probe measures.
//!
//! Invariants: the probe ends within [`TIME_LIMIT`] whatever the kernel does (a
//! guest that does not end is cut off by a signal; a thread that the kernel does
//! not give back is left behind and reported), and a result other than the
//! computed one is never called working.

mod guest;
mod machine;

use std::{
    ffi::CString,
    io,
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use kvm_ioctls::Kvm as KvmDevice;
use serde::{Deserialize, Serialize};
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use machine::{Fault, Machine};

/// The device.
pub const DEVICE: &str = "/dev/kvm";

/// From this speed on, in million instructions a second, instructions are taken
/// to run on the processor. The probe's loop is one chain of dependent operations,
/// about eight cycles for eleven instructions: a 2 GHz processor makes more than
/// 2,000 MIPS of it, and still some hundreds when nine others want the same core.
/// KVM that emulates makes 1 to 10.
pub const HARDWARE_MIPS: f64 = 200.0;

/// The probe's end, whatever happens.
pub const TIME_LIMIT: Duration = Duration::from_millis(1200);

/// When a guest that is still running is cut off.
const CUT_AFTER: Duration = Duration::from_millis(900);
/// A round this long is exact enough.
const LONG_ENOUGH: Duration = Duration::from_millis(20);
/// What rounds are sized for.
const ROUND_TARGET: Duration = Duration::from_millis(60);
/// No further round once this much is spent.
const BUDGET: Duration = Duration::from_millis(200);
/// Turns of the first round: 22,000 instructions, 11 ms at 2 MIPS.
const FIRST_TURNS: u64 = 2_000;

/// What KVM is on this host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Kvm {
    /// There is no device, or nothing behind it.
    Missing {
        /// Why, in words.
        why: String,
    },
    /// The device exists and this process may not open it.
    NoAccess,
    /// It opens, and the guest did not run, did not end or computed something else.
    Broken {
        /// What went wrong.
        what: String,
    },
    /// The guest ran correctly, below [`HARDWARE_MIPS`]: instructions are emulated.
    Emulated {
        /// Million instructions a second.
        mips: f64,
    },
    /// The guest ran at a processor's speed.
    Hardware {
        /// Million instructions a second.
        mips: f64,
    },
}

impl Kvm {
    /// The verdict over a guest that ran correctly at this speed.
    #[must_use]
    pub fn of_speed(mips: f64) -> Self {
        if mips >= HARDWARE_MIPS {
            Self::Hardware { mips }
        } else {
            Self::Emulated { mips }
        }
    }
}

/// Judges the KVM device at `device` (normally [`DEVICE`]). Blocks for up to
/// [`TIME_LIMIT`]; about 0.1 s on a healthy host.
#[must_use]
pub fn probe(device: &Path) -> Kvm {
    probe_with(device, guest::program(), TIME_LIMIT, CUT_AFTER)
}

fn probe_with(device: &Path, program: &'static [u8], limit: Duration, cut_after: Duration) -> Kvm {
    let started = Instant::now();
    let cut = Arc::new(AtomicBool::new(false));
    // Without the handler the kick would end the agent, so no handler, no run.
    if let Err(e) = register_signal_handler(kick_signal(), ignore) {
        return Kvm::Broken {
            what: format!("no signal can be had for the watchdog: {e}"),
        };
    }
    let (send, receive) = mpsc::sync_channel(1);
    let thread = {
        let (device, cut) = (device.to_owned(), Arc::clone(&cut));
        std::thread::Builder::new()
            .name("kvm-probe".into())
            .spawn(move || {
                let _ = send.send(measure(&device, program, &cut));
            })
    };
    let thread = match thread {
        Ok(thread) => thread,
        Err(e) => {
            return Kvm::Broken {
                what: format!("the probe's thread cannot start: {e}"),
            };
        }
    };
    let mut wait = cut_after;
    loop {
        match receive.recv_timeout(wait) {
            Ok(verdict) => return verdict,
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Kvm::Broken {
                    what: "the probe itself failed".into(),
                };
            }
            Err(mpsc::RecvTimeoutError::Timeout) if started.elapsed() >= limit => {
                // Should the kernel ever give it back, it ends.
                cut.store(true, Ordering::SeqCst);
                return Kvm::Broken {
                    what: format!("hung: the kernel did not give the vCPU back in {limit:?}"),
                };
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                // Again and again: a signal that comes just before KVM_RUN does not stop it.
                cut.store(true, Ordering::SeqCst);
                let _ = thread.kill(kick_signal());
                wait = Duration::from_millis(5);
            }
        }
    }
}

/// The kinds of VM that KVM makes (`KVM_CAP_VM_TYPES`, 235), as bits; `None` when
/// KVM cannot be asked.
#[must_use]
pub fn vm_types(device: &Path) -> Option<u32> {
    const KVM_CAP_VM_TYPES: u64 = 235;
    let kvm = open(device).ok()?;
    u32::try_from(kvm.check_extension_raw(KVM_CAP_VM_TYPES)).ok()
}

fn kick_signal() -> i32 {
    SIGRTMIN() + 3
}

/// Only there to make `KVM_RUN` return with `EINTR`.
extern "C" fn ignore<Info, Context>(_: i32, _: *mut Info, _: *mut Context) {}

fn measure(device: &Path, program: &'static [u8], cut: &AtomicBool) -> Kvm {
    let kvm = match open(device) {
        Ok(kvm) => kvm,
        Err(verdict) => return verdict,
    };
    match speed(&kvm, program, cut) {
        Ok(mips) => Kvm::of_speed(mips),
        Err(fault) => Kvm::Broken {
            what: fault.to_string(),
        },
    }
}

fn open(device: &Path) -> Result<KvmDevice, Kvm> {
    let missing = |why: String| Kvm::Missing { why };
    let path = CString::new(device.as_os_str().as_bytes())
        .map_err(|_| missing("the device's path has a NUL byte".into()))?;
    let kvm = KvmDevice::new_with_path(&path).map_err(|e| {
        let e = io::Error::from_raw_os_error(e.errno());
        match (e.kind(), e.raw_os_error()) {
            (io::ErrorKind::PermissionDenied, _) => Kvm::NoAccess,
            (io::ErrorKind::NotFound, _) => missing(format!("{} does not exist", device.display())),
            // ENODEV, ENXIO: a device node without a driver behind it.
            (_, Some(19 | 6)) => {
                missing(format!("nothing answers behind {} ({e})", device.display()))
            }
            _ => Kvm::Broken {
                what: format!("opening {}: {e}", device.display()),
            },
        }
    })?;
    match kvm.get_api_version() {
        12 => Ok(kvm),
        n if n < 0 => Err(Kvm::Broken {
            what: format!("{} is not a KVM device", device.display()),
        }),
        n => Err(Kvm::Broken {
            what: format!("KVM speaks API version {n}, not 12"),
        }),
    }
}

/// Runs rounds of growing length and gives the speed of the longest, in MIPS.
fn speed(kvm: &KvmDevice, program: &'static [u8], cut: &AtomicBool) -> Result<f64, Fault> {
    let mut machine = Machine::new(kvm, program)?;
    let started = Instant::now();
    let mut turns = FIRST_TURNS;
    // The first run also pays for the vCPU's first entry; it is not counted.
    machine.run(16, cut)?;
    loop {
        let took = machine.run(turns, cut)?;
        if took >= LONG_ENOUGH || started.elapsed() >= BUDGET {
            return Ok(mips(turns, took));
        }
        turns = next_turns(turns, took);
    }
}

fn mips(turns: u64, took: Duration) -> f64 {
    let instructions = turns.saturating_mul(guest::INSTRUCTIONS_PER_TURN);
    instructions as f64 / took.as_secs_f64().max(1e-9) / 1e6
}

/// Turns of the round after one that was too short.
fn next_turns(turns: u64, took: Duration) -> u64 {
    let factor = ROUND_TARGET.as_nanos() / took.as_nanos().max(1);
    turns.saturating_mul(u64::try_from(factor.clamp(2, 64)).unwrap_or(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_follows_the_speed() {
        for (mips, hardware) in [
            (0.1, false),
            (2.0, false),
            (199.9, false),
            (200.0, true),
            (3000.0, true),
        ] {
            let expected = if hardware {
                Kvm::Hardware { mips }
            } else {
                Kvm::Emulated { mips }
            };
            assert_eq!(Kvm::of_speed(mips), expected);
        }
    }

    #[test]
    fn rounds_grow_towards_the_target_and_never_shrink() {
        let ms = Duration::from_millis;
        for (turns, took, next) in [
            (2_000, ms(11), 10_000),
            (2_000, ms(19), 6_000),
            (2_000, ms(59), 4_000),
            (2_000, Duration::from_micros(7), 128_000),
            (2_000, Duration::ZERO, 128_000),
            (u64::MAX, ms(1), u64::MAX),
        ] {
            assert_eq!(next_turns(turns, took), next, "{turns} turns in {took:?}");
        }
        assert!((mips(1_000_000, Duration::from_secs(1)) - 11.0).abs() < 1e-9);
    }

    #[test]
    fn what_is_no_kvm_device_is_said_so() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, b"x").unwrap();
        match probe(&dir.path().join("none")) {
            Kvm::Missing { why } => assert!(why.contains("does not exist"), "{why}"),
            other => panic!("{other:?}"),
        }
        for wrong in [file.as_path(), dir.path(), Path::new("/dev/null")] {
            match probe(wrong) {
                Kvm::Broken { .. } => {}
                other => panic!("{}: {other:?}", wrong.display()),
            }
        }
    }

    /// Whatever this host's KVM is, verdict and figures must agree.
    #[test]
    fn this_host_is_judged_consistently() {
        let started = Instant::now();
        let verdict = probe(Path::new(DEVICE));
        assert!(started.elapsed() < TIME_LIMIT + Duration::from_millis(300));
        match verdict {
            Kvm::Hardware { mips } => assert!(mips >= HARDWARE_MIPS),
            Kvm::Emulated { mips } => assert!(mips > 0.0 && mips < HARDWARE_MIPS),
            Kvm::Missing { why } => assert!(!Path::new(DEVICE).exists(), "{why}"),
            Kvm::NoAccess => assert!(!rustix::process::geteuid().is_root()),
            Kvm::Broken { what } => panic!("{what}"),
        }
    }

    /// Where there is a KVM, the same program must give the same result as Rust
    /// for more than one length, and an endless one must be cut off.
    #[test]
    fn real_rounds_compute_and_endless_guests_are_cut() {
        let kvm = match open(Path::new(DEVICE)) {
            Ok(kvm) => kvm,
            Err(why) => skip::skip!("kvm", "{why:?}"),
        };
        let cut = AtomicBool::new(false);
        let mut machine = Machine::new(&kvm, guest::program()).unwrap();
        for turns in [1, 2, 1000] {
            assert!(machine.run(turns, &cut).unwrap() > Duration::ZERO);
            assert_eq!(machine.result().unwrap(), guest::expected(turns));
        }
        let verdict = probe_with(
            Path::new(DEVICE),
            guest::ENDLESS,
            Duration::from_secs(5),
            Duration::from_millis(100),
        );
        match verdict {
            Kvm::Broken { what } => assert!(what.contains("did not end"), "{what}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_probe_that_does_not_come_back_is_called_hung() {
        if let Err(why) = open(Path::new(DEVICE)) {
            skip::skip!("kvm", "{why:?}");
        }
        let limit = Duration::from_millis(30);
        match probe_with(Path::new(DEVICE), guest::ENDLESS, limit, limit) {
            Kvm::Broken { what } => assert!(what.contains("hung"), "{what}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_wrong_result_is_not_called_working() {
        let kvm = match open(Path::new(DEVICE)) {
            Ok(kvm) => kvm,
            Err(why) => skip::skip!("kvm", "{why:?}"),
        };
        // hlt at once: the result's place stays zero.
        let mut machine = Machine::new(&kvm, &[0xF4]).unwrap();
        match machine.run(10, &AtomicBool::new(false)) {
            Err(Fault::WrongResult { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}
