use super::{super::confinement, *};
use crate::qemu::confine::{Confinement, Lock, Refused};

#[test]
fn what_the_host_refuses_is_named() {
    let of = |locks: &[Lock]| {
        let refused = locks.iter().map(|&lock| Refused {
            lock,
            why: "Operation not permitted".into(),
        });
        confinement::confinement(&Confinement {
            refused: refused.collect(),
        })
    };
    assert_eq!(of(&[]).status, Good);
    for (locks, remedy) in [
        (&[Lock::Landlock][..], "lsm="),
        (&[Lock::PrivateRoot], "outside of a container"),
        (
            &[Lock::Landlock, Lock::PidNamespace],
            "outside of a container",
        ),
    ] {
        let check = of(locks);
        assert_eq!(check.status, Degraded);
        assert!(check.remedy.as_ref().unwrap().contains(remedy), "{check:?}");
        for lock in locks {
            assert!(check.found.contains(lock.word()), "{check:?}");
        }
    }
}
