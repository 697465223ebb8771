//! Tables over the state machine, and a walk over everything that it can reach.

use std::collections::{HashSet, VecDeque};

use crn_api_types::Step;
use time::{Duration, OffsetDateTime};

use super::*;

const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

fn circumstances(wanted: bool) -> Circumstances {
    Circumstances {
        now: NOW,
        restarts: 0,
        wanted,
        rebooted: false,
    }
}

/// A phase without its step.
fn word(phase: &Phase) -> &'static str {
    let path = phase.path();
    path.split_once('.').map_or(path, |(word, _)| word)
}

fn failure() -> Failure {
    Failure {
        code: FailureCode::Crashed,
        message: "gone".into(),
    }
}

const ALL_AWAITED: [Awaited; 3] = [Awaited::Session, Awaited::Secret, Awaited::Unlock];

fn awaiting(what: Awaited) -> Phase {
    Phase::AwaitingOwner {
        what,
        since: NOW,
        until: None,
    }
}

fn intent(desired: Desired) -> Intent {
    Intent {
        desired,
        restart: false,
        force: false,
    }
}

/// Follows decisions to the end, counting work as done; what a stop waits for exits.
fn settle(mut phase: Phase, intent: Intent) -> (Phase, Vec<&'static str>) {
    let mut path = vec![phase.path()];
    for _ in 0..40 {
        let transition = match decide(&phase, intent, NOW) {
            Decision::Wait | Decision::End => return (phase, path),
            Decision::Go(transition) => transition,
            Decision::Work => match phase {
                Phase::Stopping {
                    stage: StopStage::CleanUp,
                    ..
                } => Transition::Done,
                Phase::Stopping { .. } => Transition::Exited,
                _ => Transition::Done,
            },
        };
        phase = phase
            .apply(
                &transition,
                circumstances(intent.desired == Desired::Running),
            )
            .expect("decide never proposes an illegal transition");
        path.push(phase.path());
    }
    panic!("{path:?} does not settle");
}

#[test]
fn a_created_instance_reaches_running_step_by_step() {
    let (end, path) = settle(
        Phase::Preparing {
            step: PrepareStep::Image,
        },
        intent(Desired::Running),
    );
    assert_eq!(end, Phase::Running);
    assert_eq!(
        path,
        [
            "preparing.image",
            "preparing.root-disk",
            "preparing.volumes",
            "preparing.seed",
            "starting.launch",
            "starting.monitor",
            "running"
        ]
    );
}

#[test]
fn created_stopped_stays_stopped() {
    let (end, _) = settle(
        Phase::Preparing {
            step: PrepareStep::Image,
        },
        intent(Desired::Stopped),
    );
    assert_eq!(
        end,
        Phase::Stopped {
            reason: StopReason::NeverStarted
        }
    );
}

#[test]
fn stop_asks_the_guest_first_and_force_does_not() {
    let (end, path) = settle(Phase::Running, intent(Desired::Stopped));
    assert_eq!(
        end,
        Phase::Stopped {
            reason: StopReason::Requested
        }
    );
    assert_eq!(path[1], "stopping.power-button");
    let (_, path) = settle(
        Phase::Running,
        Intent {
            force: true,
            ..intent(Desired::Stopped)
        },
    );
    assert_eq!(path[1], "stopping.quit");
}

#[test]
fn deletion_from_every_resting_place_ends_without_a_record() {
    for phase in [
        Phase::Running,
        Phase::Starting {
            step: StartStep::Launch,
        },
        Phase::Stopped {
            reason: StopReason::Requested,
        },
        Phase::Failed { failure: failure() },
        Phase::Preparing {
            step: PrepareStep::Volumes,
        },
        Phase::BackingOff {
            attempt: 3,
            until: NOW + Duration::hours(1),
            failure: failure(),
        },
    ] {
        let (end, path) = settle(phase, intent(Desired::Deleted));
        assert_eq!(
            end,
            Phase::Deleting {
                step: DeleteStep::Record
            },
            "{path:?}"
        );
    }
}

#[test]
fn a_guest_that_powers_off_stays_stopped_until_started() {
    let c = circumstances(true);
    let stopping = Phase::Running.apply(&Transition::PoweredOff, c).unwrap();
    let cleaning = stopping.apply(&Transition::Exited, c).unwrap();
    let stopped = cleaning.apply(&Transition::Done, c).unwrap();
    assert_eq!(
        stopped,
        Phase::Stopped {
            reason: StopReason::GuestPoweredOff
        }
    );
    // The task records the guest's own intent as the desired state.
    assert_eq!(
        decide(&stopped, intent(Desired::Stopped), NOW),
        Decision::Wait
    );
    assert_eq!(
        decide(&stopped, intent(Desired::Running), NOW),
        Decision::Go(Transition::Start)
    );
}

#[test]
fn a_restart_that_is_not_wanted_any_more_ends_stopped() {
    let cleaning = Phase::Stopping {
        stage: StopStage::CleanUp,
        then: Then::Restart,
    };
    for (wanted, expected) in [(true, "starting"), (false, "stopped")] {
        let next = cleaning.apply(&Transition::Done, circumstances(wanted));
        assert_eq!(word(&next.unwrap()), expected);
    }
}

#[test]
fn a_dead_qemu_comes_back_after_a_growing_pause() {
    let mut c = circumstances(true);
    let mut pauses = vec![];
    for restarts in 0..12 {
        c.restarts = restarts;
        let down = Phase::Running
            .apply(&Transition::Died { failure: failure() }, c)
            .unwrap();
        let Phase::BackingOff { attempt, until, .. } = down.apply(&Transition::Done, c).unwrap()
        else {
            panic!("not backing off")
        };
        assert_eq!(attempt, restarts + 1);
        pauses.push((until - NOW).whole_seconds());
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
}

#[test]
fn a_pause_ends_though_the_clock_went_back() {
    let table = [
        (Duration::ZERO, true),
        (Duration::seconds(-1), true),
        (Duration::seconds(3), false),
        (Duration::seconds(4), false),
        // Attempt 3 pauses for 4 s: nobody meant a day.
        (Duration::days(1), true),
    ];
    for (left, due) in table {
        let phase = Phase::BackingOff {
            attempt: 3,
            until: NOW + left,
            failure: failure(),
        };
        let decision = decide(&phase, intent(Desired::Running), NOW);
        assert_eq!(decision == Decision::Go(Transition::Start), due, "{left}");
    }
}

#[test]
fn an_agent_that_comes_back_takes_up_every_phase() {
    let c = circumstances(true);
    assert_eq!(
        Phase::Running.apply(&Transition::Found, c).unwrap(),
        Phase::Running
    );
    let launch = Phase::Starting {
        step: StartStep::Launch,
    };
    let monitor = Phase::Starting {
        step: StartStep::Monitor,
    };
    assert_eq!(launch.apply(&Transition::Found, c).unwrap(), monitor);
    assert_eq!(monitor.apply(&Transition::Absent, c).unwrap(), launch);
    // The host rebooted: no back-off, nothing crashed.
    let gone = Phase::Running
        .apply(
            &Transition::Absent,
            Circumstances {
                rebooted: true,
                ..c
            },
        )
        .unwrap();
    assert_eq!(
        gone,
        Phase::Stopping {
            stage: StopStage::CleanUp,
            then: Then::Restart
        }
    );
    // QEMU died meanwhile: back-off.
    let gone = Phase::Running.apply(&Transition::Absent, c).unwrap();
    assert!(matches!(
        gone,
        Phase::Stopping {
            then: Then::BackOff { .. },
            ..
        }
    ));
}

#[test]
fn force_hurries_a_stop_under_way() {
    let phase = Phase::Stopping {
        stage: StopStage::PowerButton,
        then: Then::Stay {
            reason: StopReason::Requested,
        },
    };
    let forced = Intent {
        force: true,
        ..intent(Desired::Stopped)
    };
    assert_eq!(
        decide(&phase, forced, NOW),
        Decision::Go(Transition::Escalate)
    );
}

#[test]
fn illegal_transitions_are_refused_by_name() {
    let e = Phase::Running
        .apply(&Transition::Start, circumstances(true))
        .unwrap_err();
    assert_eq!(
        e.to_string(),
        "an instance in phase running has no transition start"
    );
}

#[test]
fn an_instance_that_awaits_its_owner_rests_and_can_be_had_back_at_any_time() {
    let c = circumstances(true);
    let running = intent(Desired::Running);
    for what in ALL_AWAITED {
        let start = Phase::Starting {
            step: match what.has_qemu() {
                true => StartStep::Monitor,
                false => StartStep::Launch,
            },
        };
        let until = NOW + Duration::hours(2);
        let asked = Transition::AwaitOwner {
            what,
            until: Some(until),
        };
        let waits = start.apply(&asked, c).unwrap();
        assert_eq!(
            waits,
            Phase::AwaitingOwner {
                what,
                since: NOW,
                until: Some(until)
            }
        );
        // It rests, however long the owner takes.
        assert_eq!(decide(&waits, running, NOW), Decision::Wait);
        let ages = NOW + Duration::days(9999);
        assert_eq!(decide(&awaiting(what), running, ages), Decision::Wait);
        // The owner comes.
        let next = waits.apply(&Transition::OwnerCame, c).unwrap();
        assert_eq!(next == Phase::Running, what.has_qemu());
        // The owner does not: it is stopped, not destroyed, and stays so.
        assert_eq!(
            decide(&waits, running, until),
            Decision::Go(Transition::Expire)
        );
        let expired = waits.apply(&Transition::Expire, c).unwrap();
        assert!(Settled::by(&Transition::Expire, &expired).guest_off);
        let (end, _) = settle(expired, intent(Desired::Stopped));
        assert_eq!(
            end,
            Phase::Stopped {
                reason: StopReason::OwnerDidNotCome
            }
        );
        // Stopped without asking a guest that cannot hear yet.
        let (end, path) = settle(waits.clone(), intent(Desired::Stopped));
        assert_eq!(word(&end), "stopped");
        assert!(!path.contains(&"stopping.power-button"), "{path:?}");
        let (end, _) = settle(waits.clone(), intent(Desired::Deleted));
        assert_eq!(end.path(), "deleting.record");
        // A restart begins it anew.
        let again = Intent {
            restart: true,
            ..running
        };
        let Decision::Go(restart) = decide(&waits, again, NOW) else {
            panic!("not restarted")
        };
        let mut next = waits.apply(&restart, c).unwrap();
        for transition in [Transition::Exited, Transition::Done] {
            if word(&next) == "stopping" {
                next = next.apply(&transition, c).unwrap();
            }
        }
        assert_eq!(next.path(), "starting.launch");
    }
}

#[test]
fn one_that_awaits_its_owner_outlives_the_agent_and_its_qemu() {
    let c = circumstances(true);
    let crash = Transition::Died { failure: failure() };
    for what in ALL_AWAITED.into_iter().filter(|what| what.has_qemu()) {
        let waits = awaiting(what);
        assert_eq!(waits.apply(&Transition::Found, c).unwrap(), waits);
        let rebooted = Circumstances {
            rebooted: true,
            ..c
        };
        for (transition, c) in [
            (Transition::Absent, rebooted),
            (Transition::Absent, c),
            (crash.clone(), c),
        ] {
            // Cleaned up, launched again, and it waits again.
            let mut phase = waits.apply(&transition, c).unwrap();
            assert_eq!(phase.path(), "stopping.clean-up");
            phase = phase.apply(&Transition::Done, c).unwrap();
            if word(&phase) == "backing-off" {
                phase = phase.apply(&Transition::Start, c).unwrap();
            }
            phase = phase.apply(&Transition::Done, c).unwrap();
            let asked = Transition::AwaitOwner { what, until: None };
            assert_eq!(phase.apply(&asked, c).unwrap(), waits);
        }
    }
    // It never waits with a QEMU for what is needed before there is one, or the other
    // way round.
    let step = StartStep::Monitor;
    let session = Transition::AwaitOwner {
        what: Awaited::Session,
        until: None,
    };
    assert!(Phase::Starting { step }.apply(&session, c).is_err());
}

/// Every phase reachable by any transition survives a round trip through the
/// database's JSON, has a path that the fault points know, and is never a trap:
/// a deletion can end it.
#[test]
fn everything_reachable_round_trips_and_can_be_deleted() {
    let transitions = transitions();
    let mut seen = HashSet::new();
    let mut queue = VecDeque::from([Phase::Preparing {
        step: PrepareStep::Image,
    }]);
    while let Some(phase) = queue.pop_front() {
        let json = serde_json::to_string(&phase).unwrap();
        if !seen.insert(json.clone()) {
            continue;
        }
        assert_eq!(serde_json::from_str::<Phase>(&json).unwrap(), phase);
        assert!(Step::ALL.iter().any(|s| s.as_str() == phase.path()));
        let (end, _) = settle(phase.clone(), intent(Desired::Deleted));
        assert_eq!(
            end,
            Phase::Deleting {
                step: DeleteStep::Record
            }
        );
        for wanted in [true, false] {
            for transition in &transitions {
                if let Ok(next) = phase.apply(transition, circumstances(wanted)) {
                    queue.push_back(next);
                }
            }
        }
    }
    let paths: HashSet<_> = seen
        .iter()
        .map(|json| serde_json::from_str::<Phase>(json).unwrap().path())
        .collect();
    assert_eq!(
        paths.len(),
        Step::ALL.len(),
        "every named phase is reachable"
    );
}

/// docs/lifecycle.md draws each way from phase to phase, and no other.
#[test]
fn the_diagram_is_the_code() {
    let reason = StopReason::Requested;
    let mut phases = vec![
        Phase::Running,
        Phase::Stopped { reason },
        Phase::Failed { failure: failure() },
        Phase::BackingOff {
            attempt: 1,
            until: NOW,
            failure: failure(),
        },
    ];
    use {DeleteStep as D, PrepareStep as P, StartStep as S, StopStage as T};
    phases.extend(ALL_AWAITED.map(awaiting));
    phases
        .extend([P::Image, P::RootDisk, P::Volumes, P::Seed].map(|step| Phase::Preparing { step }));
    phases.extend([S::Launch, S::Monitor].map(|step| Phase::Starting { step }));
    phases.extend([D::CleanUp, D::Disks, D::Record].map(|step| Phase::Deleting { step }));
    for then in [
        Then::Stay { reason },
        Then::Restart,
        Then::BackOff { failure: failure() },
    ] {
        let stages = [T::PowerButton, T::Quit, T::Kill, T::CleanUp];
        phases.extend(stages.map(|stage| Phase::Stopping {
            stage,
            then: then.clone(),
        }));
    }
    let mut coded = std::collections::BTreeSet::new();
    for phase in &phases {
        for transition in transitions() {
            for wanted in [true, false] {
                if let Ok(next) = phase.apply(&transition, circumstances(wanted)) {
                    coded.insert(format!(
                        "{} {} {}",
                        word(phase),
                        transition.word(),
                        word(&next)
                    ));
                }
            }
        }
    }
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/lifecycle.md");
    let docs = std::fs::read_to_string(docs)
        .unwrap()
        .replace("backing_off", "backing-off")
        .replace("awaiting_owner", "awaiting-owner");
    let mut drawn = std::collections::BTreeSet::new();
    for line in docs.lines().filter(|l| !l.contains("[*]")) {
        let Some((from, rest)) = line.split_once(" --> ") else {
            continue;
        };
        let (to, labels) = rest.split_once(" : ").unwrap();
        for label in labels.split(", ") {
            drawn.insert(format!("{} {label} {to}", from.trim()));
        }
    }
    assert_eq!(drawn, coded);
}

#[test]
fn a_phase_says_whether_there_may_be_a_qemu_and_a_part_of_the_network() {
    let stopping = |stage| Phase::Stopping {
        stage,
        then: Then::Restart,
    };
    let reason = StopReason::Requested;
    use {DeleteStep as D, PrepareStep as P, StartStep as S, StopStage as T};
    let table = [
        (Phase::Preparing { step: P::Image }, false, false),
        (Phase::Preparing { step: P::Seed }, false, false),
        (Phase::Starting { step: S::Launch }, true, true),
        (Phase::Starting { step: S::Monitor }, true, true),
        (Phase::Running, true, true),
        (awaiting(Awaited::Session), false, false),
        (awaiting(Awaited::Secret), true, true),
        (awaiting(Awaited::Unlock), true, true),
        (stopping(T::PowerButton), true, true),
        (stopping(T::Quit), true, true),
        (stopping(T::Kill), true, true),
        (stopping(T::CleanUp), true, false),
        (Phase::Stopped { reason }, false, false),
        (Phase::Failed { failure: failure() }, false, false),
        (
            Phase::BackingOff {
                attempt: 1,
                until: NOW,
                failure: failure(),
            },
            false,
            false,
        ),
        (Phase::Deleting { step: D::CleanUp }, false, false),
        (Phase::Deleting { step: D::Disks }, false, false),
    ];
    for (phase, qemu, network) in table {
        let path = phase.path();
        assert_eq!(phase.may_have_qemu(), qemu, "{path}");
        assert_eq!(phase.has_guest_net(), network, "{path}");
    }
}

fn transitions() -> Vec<Transition> {
    vec![
        Transition::Done,
        Transition::Prepare,
        Transition::Start,
        Transition::Stop { force: false },
        Transition::Stop { force: true },
        Transition::Restart { force: false },
        Transition::Delete,
        Transition::Escalate,
        Transition::Exited,
        Transition::AwaitOwner {
            what: Awaited::Session,
            until: None,
        },
        Transition::AwaitOwner {
            what: Awaited::Secret,
            until: Some(NOW + Duration::hours(1)),
        },
        Transition::AwaitOwner {
            what: Awaited::Unlock,
            until: None,
        },
        Transition::OwnerCame,
        Transition::Expire,
        Transition::Died { failure: failure() },
        Transition::PoweredOff,
        Transition::Failed { failure: failure() },
        Transition::Found,
        Transition::Absent,
    ]
}
