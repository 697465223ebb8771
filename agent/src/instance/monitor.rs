//! The connection to QEMU's monitor: made, lost, made again.

use std::{collections::HashSet, time::Duration};

use crn_api_types::WarningKind;
use qmp::{Qmp, RunState};
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;
use tracing::warn;

use super::{hear::Heard, job::Matched, task::Task};
use crate::{db::DbError, life::Transition, qemu::plan::socket};

/// A monitor that was lost is tried again this often. So long, too, a process may
/// take to be gone whose monitor has gone.
pub(super) const RECONNECT: Duration = Duration::from_secs(2);
/// How long QEMU may take to answer a simple question.
pub(super) const ANSWER: Duration = Duration::from_secs(5);

impl Task {
    /// The monitor, if there is a connection.
    pub(super) fn monitor(&self) -> Option<Qmp> {
        let (qmp, _) = self.vm.as_ref()?.monitor.as_ref()?;
        qmp.closed_reason().is_none().then(|| qmp.clone())
    }

    /// There is a connection. What was told before is not known: it is asked for.
    pub(super) fn connected(&mut self, monitor: (Qmp, qmp::Events)) {
        if let Some(vm) = &mut self.vm {
            vm.monitor = Some(monitor);
        }
        self.jobs.matched = Matched::Due;
        self.ctx.clear_warning(WarningKind::MonitorSilent);
    }

    /// Connects to the monitor again. Without success after a while, nothing is
    /// returned and the caller decides anew: a running guest is not killed because
    /// its monitor is silent.
    pub(super) async fn regain_monitor(&mut self) -> Result<Option<Transition>, DbError> {
        let path = self.ctx.node.paths.run(&self.ctx.id).join(socket::QMP);
        let config = qmp::Config::default();
        let mut connected = std::pin::pin!(Qmp::connect(&path, &config));
        let outcome = loop {
            match self.hear(connected.as_mut()).await {
                Heard::Done(outcome) => break outcome,
                Heard::Exited => return Ok(Some(self.died().await)),
                Heard::Wake => match self.other_way().await? {
                    Some(transition) => return Ok(Some(transition)),
                    None => continue,
                },
                Heard::Event(_) => {}
            }
        };
        match outcome {
            Ok(monitor) => self.connected(monitor),
            Err(e) => {
                let text = format!("the monitor does not answer: {e}");
                self.ctx.warn_rate_limited("monitor", &text);
                self.ctx.set_warning(WarningKind::MonitorSilent, text);
                self.bound_logs();
                self.wait_to_reconnect().await;
            }
        }
        Ok(None)
    }

    async fn wait_to_reconnect(&mut self) {
        let mut sleep = std::pin::pin!(tokio::time::sleep(RECONNECT));
        // QEMU's end and a changed intent are looked at by the caller.
        while let Heard::Event(_) = self.hear(sleep.as_mut()).await {}
    }
}

/// Asks QEMU in which state the machine is. With `resume`, a guest that a disk error
/// paused is let go on: the answer is the state before.
pub(super) async fn ask_state(qmp: Qmp, resume: bool) -> Option<RunState> {
    match timeout(ANSWER, qmp.status()).await {
        Ok(Ok(state)) => {
            if resume
                && state == RunState::IoError
                && let Err(e) = qmp.cont().await
            {
                warn!("cannot resume: {e}");
            }
            Some(state)
        }
        Ok(Err(e)) => {
            tracing::debug!("{e}");
            None
        }
        Err(_) => None,
    }
}

/// What of the answer to `x-query-virtio-status` counts.
#[derive(Debug, Default, Deserialize)]
struct VirtioStatus {
    #[serde(rename = "guest-features", default)]
    features: Features,
}

#[derive(Debug, Default, Deserialize)]
struct Features {
    #[serde(default)]
    transports: Vec<String>,
    #[serde(rename = "dev-features", default)]
    device: Vec<String>,
}

/// Asks QEMU what the guest's network driver has negotiated. No guest waits long for that.
pub(super) async fn ask_offloads(qmp: &Qmp) -> net::Offloads {
    const BACKEND: &str = "/machine/peripheral/net0-dev/virtio-backend";
    const LIMIT: Duration = Duration::from_secs(1);
    let arguments = json!({ "path": BACKEND });
    let question = qmp.execute_as_within("x-query-virtio-status", arguments, LIMIT);
    match question.await {
        Ok(answer) => negotiated(&answer),
        Err(e) => {
            warn!("what the guest's network driver takes is unknown, and it may be slower: {e}");
            net::Offloads::unknown()
        }
    }
}

/// From the answer: lists of texts such as `VIRTIO_NET_F_GUEST_TSO4: Driver can receive TSOv4`.
fn negotiated(answer: &VirtioStatus) -> net::Offloads {
    let features = &answer.features;
    let texts = features.transports.iter().chain(&features.device);
    let names: HashSet<&str> = texts.filter_map(|text| text.split(':').next()).collect();
    net::Offloads::negotiated(|name| names.contains(name))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn features_are_read_from_qemus_words() {
        let answer = json!({
            "name": "virtio-net",
            "guest-features": {
                "transports": ["VIRTIO_F_VERSION_1: Device compliant for v1 spec (legacy)"],
                "dev-features": [
                    "VIRTIO_NET_F_GUEST_CSUM: Driver handling packets with partial checksum supported",
                    "VIRTIO_NET_F_GUEST_TSO6: Driver can receive TSOv6",
                ],
            },
        });
        let on = [
            "VIRTIO_F_VERSION_1",
            "VIRTIO_NET_F_GUEST_CSUM",
            "VIRTIO_NET_F_GUEST_TSO6",
        ];
        let expected = net::Offloads::negotiated(|name| on.contains(&name));
        let read = |answer: Value| serde_json::from_value::<VirtioStatus>(answer);
        assert_eq!(negotiated(&read(answer).unwrap()), expected);
        for nothing in [json!({}), json!({"guest-features": {}})] {
            let none = negotiated(&read(nothing).unwrap());
            assert_eq!(none, net::Offloads::negotiated(|_| false));
        }
        assert!(read(json!({"guest-features": {"dev-features": 1}})).is_err());
    }
}
