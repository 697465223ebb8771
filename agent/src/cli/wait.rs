//! Waiting until an instance is where it was sent.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    exit::{Failure, Status},
    out::{Meter, Out},
};
use crate::{
    client::{Client, ClientError, segment},
    life::Desired,
    ops::{ErrorCode, InstanceView},
};

/// How often the agent is asked.
const POLL: Duration = Duration::from_millis(150);
/// A start that failed so often in a row is taken for a failure.
const PATIENCE: u32 = 3;

/// Where an instance is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Goal {
    /// Its SSH server answers, in another run than the one that began then.
    Ready {
        /// When the run began that does not count.
        not: Option<String>,
    },
    /// Prepared or stopped.
    Stopped,
    /// No longer there.
    Gone,
}

/// What a look at an instance says.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Done,
    Waiting,
    Hopeless(String),
}

fn judge(goal: &Goal, view: &InstanceView) -> Verdict {
    let because = |text: &str| match &view.failure {
        Some(failure) => Verdict::Hopeless(format!("{text}: {}", failure.message)),
        None => Verdict::Hopeless(text.to_owned()),
    };
    match (goal, view.phase.as_str()) {
        (Goal::Ready { not }, "running") if view.ready && view.started_at != *not => Verdict::Done,
        (Goal::Stopped, "stopped") => Verdict::Done,
        (Goal::Gone, _) => Verdict::Waiting,
        (_, "failed") => because("it could not be prepared"),
        (Goal::Ready { .. }, "backing-off") if view.restarts >= PATIENCE => {
            because("it does not stay up")
        }
        (Goal::Ready { .. }, "stopped") if view.desired == Desired::Stopped => {
            because("it was stopped")
        }
        (_, "deleting") => because("it is being deleted"),
        _ => Verdict::Waiting,
    }
}

fn describe(view: &InstanceView) -> String {
    let what = match view.step.as_str() {
        "preparing.image" => "fetching the image",
        "preparing.root-disk" => "creating the root disk",
        "preparing.volumes" => "creating volumes",
        "preparing.seed" => "writing the cloud-init seed",
        "starting.launch" => "starting QEMU",
        "starting.monitor" => "waiting for QEMU",
        "running" if view.ready => "running",
        "running" => "booting, waiting for SSH",
        "stopping.power-button" => "asking the guest to shut down",
        "stopping.quit" => "asking QEMU to quit",
        "stopping.kill" => "killing QEMU",
        "stopping.clean-up" => "cleaning up",
        "deleting.clean-up" | "deleting.disks" | "deleting.record" => "deleting",
        "backing-off" => "QEMU died, waiting for the next start",
        other => other,
    };
    match &view.failure {
        Some(failure) => format!("{}: {what} ({})", view.name, failure.message),
        None if view.paused => format!("{}: paused, a disk failed", view.name),
        None => format!("{}: {what}", view.name),
    }
}

/// Waits, and shows the phases on the way. None when it is gone, as it should be.
pub(super) async fn wait(
    client: &Client,
    out: Out,
    first: InstanceView,
    goal: Goal,
    limit: Duration,
) -> Result<Option<InstanceView>, Failure> {
    let path = format!("/v1/instances/{}", segment(&first.id));
    let end = Instant::now() + limit;
    let mut meter = Meter::new(out);
    let mut view = first;
    loop {
        meter.show(&describe(&view), view.progress);
        match judge(&goal, &view) {
            Verdict::Done => return Ok(Some(view)),
            Verdict::Hopeless(why) => {
                let message = format!("instance {}: {why}", view.name);
                let hint = format!("crn-agent instance show {}", view.name);
                return Err(Failure::new(Status::Failed, message).or_try(hint));
            }
            Verdict::Waiting => {}
        }
        if Instant::now() >= end {
            let (what, seconds) = (describe(&view), limit.as_secs());
            let message = format!("not done after {seconds} s ({what}); it goes on");
            let hint = format!("crn-agent instance logs {}", view.name);
            return Err(Failure::new(Status::Timeout, message).or_try(hint));
        }
        tokio::time::sleep(POLL).await;
        view = match client.get(&path).await {
            Ok(view) => view,
            Err(ClientError::Refused {
                code: ErrorCode::NotFound,
                ..
            }) if goal == Goal::Gone => {
                return Ok(None);
            }
            Err(e) => return Err(e.into()),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::life::{Failure as Told, FailureCode};

    #[test]
    fn what_a_look_says() {
        let ready = Goal::Ready { not: None };
        let again = Goal::Ready {
            not: Some("then".into()),
        };
        type Change = fn(&mut InstanceView);
        let table: [(&Goal, &str, Change, &str); 13] = [
            (&ready, "running", |v| v.ready = true, "done"),
            (&ready, "running", |_| {}, "wait"),
            (&again, "running", |v| v.ready = true, "wait"),
            (
                &again,
                "running",
                |v| (v.ready, v.started_at) = (true, Some("now".into())),
                "done",
            ),
            (&ready, "preparing", |_| {}, "wait"),
            (&ready, "failed", |_| {}, "hopeless"),
            (&ready, "backing-off", |v| v.restarts = 1, "wait"),
            (&ready, "backing-off", |v| v.restarts = 3, "hopeless"),
            (
                &ready,
                "stopped",
                |v| v.desired = Desired::Stopped,
                "hopeless",
            ),
            (&ready, "stopped", |_| {}, "wait"),
            (&Goal::Stopped, "stopped", |_| {}, "done"),
            (&Goal::Stopped, "deleting", |_| {}, "hopeless"),
            (&Goal::Gone, "deleting", |_| {}, "wait"),
        ];
        for (goal, phase, change, expected) in table {
            let mut view = super::super::samples::instance();
            (view.phase, view.ready, view.desired) = (phase.into(), false, Desired::Running);
            view.started_at = Some("then".into());
            change(&mut view);
            let got = match judge(goal, &view) {
                Verdict::Done => "done",
                Verdict::Waiting => "wait",
                Verdict::Hopeless(_) => "hopeless",
            };
            assert_eq!(got, expected, "{goal:?} {phase}");
        }
    }

    #[test]
    fn the_reason_is_told() {
        let mut view = super::super::samples::instance();
        view.phase = "failed".into();
        view.failure = Some(Told {
            code: FailureCode::Image,
            message: "no such host".into(),
        });
        let Verdict::Hopeless(why) = judge(&Goal::Stopped, &view) else {
            panic!("not hopeless")
        };
        assert!(why.contains("no such host"), "{why}");
    }
}
