//! Which accelerator QEMU gets, and why. Pure.

use crate::{config::AccelSetting, host::kvm::Kvm, qemu::plan::Accelerator};

/// A decision with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accel {
    /// What QEMU is started with.
    pub accelerator: Accelerator,
    /// Why, for log and doctor: one sentence without its stop.
    pub reason: String,
    /// Whether the operator should look at it: guests will be slow, or will not start.
    pub warning: bool,
}

/// Decides. `Auto` takes KVM only where it was measured at a processor's speed;
/// a configured accelerator is always taken.
#[must_use]
pub fn choose(requested: AccelSetting, kvm: &Kvm) -> Accel {
    let found = in_words(kvm);
    let works = matches!(kvm, Kvm::Hardware { .. });
    match (requested, works) {
        (AccelSetting::Tcg, true) => Accel {
            accelerator: Accelerator::Tcg,
            reason: format!("TCG as configured, although {found}"),
            warning: true,
        },
        (AccelSetting::Tcg, false) => Accel {
            accelerator: Accelerator::Tcg,
            reason: format!("TCG as configured; {found}"),
            warning: false,
        },
        (AccelSetting::Kvm, true) => Accel {
            accelerator: Accelerator::Kvm,
            reason: format!("KVM as configured; {found}"),
            warning: false,
        },
        (AccelSetting::Kvm, false) => Accel {
            accelerator: Accelerator::Kvm,
            reason: format!("KVM as configured, although {found}"),
            warning: true,
        },
        (AccelSetting::Auto, true) => Accel {
            accelerator: Accelerator::Kvm,
            reason: format!("KVM, because {found}"),
            warning: false,
        },
        (AccelSetting::Auto, false) => Accel {
            accelerator: Accelerator::Tcg,
            reason: format!("TCG, because {found}"),
            warning: true,
        },
    }
}

/// The probe's verdict as part of a sentence.
#[must_use]
pub fn in_words(kvm: &Kvm) -> String {
    match kvm {
        Kvm::Missing { why } => format!("KVM is missing: {why}"),
        Kvm::NoAccess => "/dev/kvm may not be opened by this user".into(),
        Kvm::Broken { what } => format!("KVM is present but broken: {what}"),
        Kvm::Emulated { mips } => {
            format!(
                "KVM is present but emulates every instruction ({} MIPS)",
                figure(*mips)
            )
        }
        Kvm::Hardware { mips } => format!("KVM runs on the processor ({} MIPS)", figure(*mips)),
    }
}

fn figure(mips: f64) -> String {
    if mips < 10.0 {
        format!("{mips:.1}")
    } else {
        format!("{mips:.0}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use AccelSetting as S;
    use Accelerator as A;

    #[test]
    fn the_decision_is_a_table() {
        let missing = Kvm::Missing {
            why: "/dev/kvm does not exist".into(),
        };
        let broken = Kvm::Broken {
            what: "hung".into(),
        };
        let (slow, fast) = (Kvm::Emulated { mips: 1.96 }, Kvm::Hardware { mips: 2871.4 });
        let table = [
            (
                S::Auto,
                &missing,
                A::Tcg,
                true,
                "TCG, because KVM is missing: /dev/kvm does not exist",
            ),
            (
                S::Auto,
                &Kvm::NoAccess,
                A::Tcg,
                true,
                "TCG, because /dev/kvm may not be opened by this user",
            ),
            (
                S::Auto,
                &broken,
                A::Tcg,
                true,
                "TCG, because KVM is present but broken: hung",
            ),
            (
                S::Auto,
                &slow,
                A::Tcg,
                true,
                "TCG, because KVM is present but emulates every instruction (2.0 MIPS)",
            ),
            (
                S::Auto,
                &fast,
                A::Kvm,
                false,
                "KVM, because KVM runs on the processor (2871 MIPS)",
            ),
            (
                S::Kvm,
                &slow,
                A::Kvm,
                true,
                "KVM as configured, although KVM is present but emulates every instruction (2.0 MIPS)",
            ),
            (
                S::Kvm,
                &fast,
                A::Kvm,
                false,
                "KVM as configured; KVM runs on the processor (2871 MIPS)",
            ),
            (
                S::Tcg,
                &fast,
                A::Tcg,
                true,
                "TCG as configured, although KVM runs on the processor (2871 MIPS)",
            ),
            (
                S::Tcg,
                &broken,
                A::Tcg,
                false,
                "TCG as configured; KVM is present but broken: hung",
            ),
        ];
        for (requested, kvm, accelerator, warning, reason) in table {
            let expected = Accel {
                accelerator,
                reason: reason.into(),
                warning,
            };
            assert_eq!(choose(requested, kvm), expected, "{requested:?} {kvm:?}");
        }
    }
}
