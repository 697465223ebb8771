//! Waiting until an instance is where it was sent.

use std::time::Duration;

use crn_api_types::{Desired, ErrorCode, InstanceView, Phase, Step, WarningKind};
use tokio::time::Instant;

use super::{
    exit::{Failure, Status},
    out::{Meter, Out},
};
use crate::client::{Client, ClientError, segment};

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
    Failed(String),
}

fn judge(goal: &Goal, view: &InstanceView) -> Verdict {
    let because = |text: &str| match &view.failure {
        Some(failure) => Verdict::Failed(format!("{text}: {}", failure.message)),
        None => Verdict::Failed(text.to_owned()),
    };
    match (goal, view.phase) {
        (Goal::Ready { not }, Phase::Running) if view.ready && view.started_at != *not => {
            Verdict::Done
        }
        (Goal::Stopped, Phase::Stopped) => Verdict::Done,
        (Goal::Gone, _) => Verdict::Waiting,
        (_, Phase::Failed) => because("it could not be prepared"),
        (Goal::Ready { .. }, Phase::BackingOff) if view.restarts >= PATIENCE => {
            because("it does not stay up")
        }
        (Goal::Ready { .. }, Phase::Stopped) if view.desired == Desired::Stopped => {
            because("it was stopped")
        }
        (_, Phase::Deleting) => because("it is being deleted"),
        _ => Verdict::Waiting,
    }
}

fn describe(view: &InstanceView) -> String {
    let what = match view.step {
        Step::PreparingImage => "fetching the image",
        Step::PreparingRootDisk => "creating the root disk",
        Step::PreparingVolumes => "creating volumes",
        Step::PreparingSeed => "writing the cloud-init seed",
        Step::StartingLaunch => "starting QEMU",
        Step::StartingMonitor => "waiting for QEMU",
        Step::Running if view.ready => "running",
        Step::Running => "booting, waiting for SSH",
        Step::AwaitingOwner => "waiting for its owner",
        Step::StoppingPowerButton => "asking the guest to shut down",
        Step::StoppingQuit => "asking QEMU to quit",
        Step::StoppingKill => "killing QEMU",
        Step::StoppingCleanUp => "cleaning up",
        Step::DeletingCleanUp | Step::DeletingDisks | Step::DeletingRecord => "deleting",
        Step::BackingOff => "QEMU died, waiting for the next start",
        Step::Stopped => "stopped",
        Step::Failed => "failed",
    };
    match &view.failure {
        Some(failure) => format!("{}: {what} ({})", view.name, failure.message),
        None if view.paused => format!("{}: paused, a disk failed", view.name),
        None => match view
            .warnings
            .iter()
            .find(|w| w.kind == WarningKind::ImageUnavailable)
        {
            Some(warning) => format!("{}: {what} ({})", view.name, warning.message),
            None => format!("{}: {what}", view.name),
        },
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
            Verdict::Failed(why) => {
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
            Err(ClientError::Refused(detail))
                if goal == Goal::Gone && detail.code == ErrorCode::NotFound =>
            {
                return Ok(None);
            }
            Err(e) => return Err(e.into()),
        };
    }
}

#[cfg(test)]
mod tests {
    use crn_api_types::{Failure as Told, FailureCode};

    use super::*;

    #[test]
    fn what_a_look_says() {
        let ready = Goal::Ready { not: None };
        let again = Goal::Ready {
            not: Some("then".into()),
        };
        type Change = fn(&mut InstanceView);
        let table: [(&Goal, Phase, Change, &str); 13] = [
            (&ready, Phase::Running, |v| v.ready = true, "done"),
            (&ready, Phase::Running, |_| {}, "wait"),
            (&again, Phase::Running, |v| v.ready = true, "wait"),
            (
                &again,
                Phase::Running,
                |v| (v.ready, v.started_at) = (true, Some("now".into())),
                "done",
            ),
            (&ready, Phase::Preparing, |_| {}, "wait"),
            (&ready, Phase::Failed, |_| {}, "failed"),
            (&ready, Phase::BackingOff, |v| v.restarts = 1, "wait"),
            (&ready, Phase::BackingOff, |v| v.restarts = 3, "failed"),
            (
                &ready,
                Phase::Stopped,
                |v| v.desired = Desired::Stopped,
                "failed",
            ),
            (&ready, Phase::Stopped, |_| {}, "wait"),
            (&Goal::Stopped, Phase::Stopped, |_| {}, "done"),
            (&Goal::Stopped, Phase::Deleting, |_| {}, "failed"),
            (&Goal::Gone, Phase::Deleting, |_| {}, "wait"),
        ];
        for (goal, phase, change, expected) in table {
            let mut view = super::super::samples::instance();
            (view.phase, view.ready, view.desired) = (phase, false, Desired::Running);
            view.started_at = Some("then".into());
            change(&mut view);
            let got = match judge(goal, &view) {
                Verdict::Done => "done",
                Verdict::Waiting => "wait",
                Verdict::Failed(_) => "failed",
            };
            assert_eq!(got, expected, "{goal:?} {phase}");
        }
    }

    #[test]
    fn the_reason_is_told() {
        let mut view = super::super::samples::instance();
        view.phase = Phase::Failed;
        view.failure = Some(Told {
            code: FailureCode::Image,
            message: "no such host".into(),
        });
        let Verdict::Failed(why) = judge(&Goal::Stopped, &view) else {
            panic!("not failed")
        };
        assert!(why.contains("no such host"), "{why}");
    }
}
