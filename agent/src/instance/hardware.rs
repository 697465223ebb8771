//! What a guest's machine is made of: decided at its first start, and kept.

use crn_api_types::FailureCode;
use qmp::Qmp;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;
use tracing::{Instrument, debug, info, warn};

use super::{
    context::{Context, StepError, failure},
    monitor::ANSWER,
    rate_limit::peer_text,
    task::Task,
};
use crate::{
    db::{Hardware, InstanceRow},
    qemu::plan::{CPU_OF_KVM, CPU_OF_TCG},
};

impl Context {
    /// What the instance is started with: what is on record, else what the installed
    /// QEMU calls `q35` now, which is on record from here on.
    pub(super) async fn hardware(&self, row: &InstanceRow) -> Result<Hardware, StepError> {
        let binary = self.node.config.qemu.binary.display();
        let failed = |message: String| failure(FailureCode::Launch, message);
        let types = self.node.qemu.machine_types().await;
        let types = types.map_err(|e| failed(format!("QEMU's machine types: {e}")))?;
        let hardware = match &row.hardware {
            Some(recorded) => recorded.clone(),
            None => {
                let machine = types.q35().map(str::to_owned);
                let machine = machine.ok_or_else(|| {
                    failed(format!("{binary} has no machine type q35 with a version"))
                })?;
                let cpu = self.node.accel.cpu().to_owned();
                let new = Hardware { machine, cpu };
                self.node.db.record_hardware(&self.id, new).await?
            }
        };
        if types.knows(&hardware.machine) {
            return Ok(hardware);
        }
        let machine = &hardware.machine;
        let message = format!(
            "{binary} does not know the machine type {machine} that this guest was made with, \
             and another would be other hardware to it: install a QEMU that has {machine} \
             ('{binary} -machine help' lists them), or name one as qemu.binary"
        );
        Err(failed(message).into())
    }
}

impl Task {
    /// Has the hardware of a guest recorded that an older agent started: what its QEMU
    /// says that it is. Beside everything else; it is tried again when the task looks
    /// next.
    pub(super) fn learn_hardware(&self, qmp: Qmp) {
        let ctx = self.ctx.clone();
        let work = async move {
            let hardware = match timeout(ANSWER, of_running(&qmp)).await {
                Ok(Ok(Some(hardware))) => hardware,
                Ok(Ok(None)) => {
                    let text = "QEMU tells of hardware that no agent has given it";
                    return ctx.warn_rate_limited("hardware", text);
                }
                Ok(Err(e)) => return debug!("hardware: {}", peer_text(&e.to_string())),
                Err(_) => return debug!("hardware: no answer"),
            };
            let (machine, cpu) = (hardware.machine.clone(), hardware.cpu.clone());
            match ctx.node.db.record_hardware(&ctx.id, hardware).await {
                Ok(_) => info!(machine, cpu, "its hardware is on record from now on"),
                Err(e) => warn!("{e}"),
            }
        };
        tokio::spawn(work.in_current_span());
    }
}

/// Asks a QEMU what it is; `None` when it is what no agent has started.
async fn of_running(qmp: &Qmp) -> Result<Option<Hardware>, qmp::Error> {
    #[derive(Deserialize)]
    struct Cpu {
        #[serde(rename = "qom-path")]
        path: String,
    }
    let machine = kind_of(qmp, "/machine").await?;
    let cpus: Vec<Cpu> = qmp.execute_as("query-cpus-fast", Value::Null).await?;
    let Some(first) = cpus.first() else {
        return Ok(None);
    };
    let cpu = kind_of(qmp, &first.path).await?;
    Ok(parse(&machine, &cpu))
}

async fn kind_of(qmp: &Qmp, path: &str) -> Result<String, qmp::Error> {
    let arguments = json!({ "path": path, "property": "type" });
    qmp.execute_as("qom-get", arguments).await
}

/// From the names of QEMU's types. They come back to a command line: a QEMU that its
/// guest took over chooses nothing but a version. Pure.
fn parse(machine: &str, cpu: &str) -> Option<Hardware> {
    let machine = machine.strip_suffix("-machine")?;
    let version = machine.strip_prefix("pc-q35-")?;
    let plain = |b: u8| b.is_ascii_digit() || b == b'.';
    if !(1..=16).contains(&version.len()) || !version.bytes().all(plain) {
        return None;
    }
    let cpu = cpu.strip_suffix("-x86_64-cpu")?;
    [CPU_OF_KVM, CPU_OF_TCG].contains(&cpu).then(|| Hardware {
        machine: machine.to_owned(),
        cpu: cpu.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_qemu_says_is_no_option_of_the_next_one() {
        let found = parse("pc-q35-9.2-machine", "host-x86_64-cpu").unwrap();
        assert_eq!((&*found.machine, &*found.cpu), ("pc-q35-9.2", "host"));
        assert!(parse("pc-q35-10.0.1-machine", "max-x86_64-cpu").is_some());
        for (machine, cpu) in [
            ("pc-q35-9.2", "max-x86_64-cpu"),
            ("pc-q35--machine", "max-x86_64-cpu"),
            ("pc-q35-9.2,dump-guest-core=on-machine", "max-x86_64-cpu"),
            ("pc-i440fx-9.2-machine", "max-x86_64-cpu"),
            ("pc-q35-1234567890.123456-machine", "max-x86_64-cpu"),
            ("pc-q35-9.2-machine", "max,vmx=on-x86_64-cpu"),
            ("pc-q35-9.2-machine", "qemu64-x86_64-cpu"),
            ("pc-q35-9.2-machine", ""),
            ("", ""),
        ] {
            assert_eq!(parse(machine, cpu), None, "{machine} {cpu}");
        }
    }
}
