//! What QEMU says of SEV on its host: `query-sev-capabilities`, asked of the program that
//! will run. It compares these numbers at each launch with those that it is given, and the
//! processor's own answer can differ from them.

use std::{path::Path, time::Duration};

use serde::Deserialize;

use super::{
    run::{RunError, converse},
    sev::DEVICE,
};
use crate::qemu::plan::SevHost;

/// What the answer may take. QEMU starts in about 100 ms.
const LIMIT: Duration = Duration::from_secs(5);

/// A machine that is none: KVM alone is set up.
const ARGUMENTS: [&str; 10] = [
    "-machine",
    "none",
    "-accel",
    "kvm",
    "-nodefaults",
    "-no-user-config",
    "-display",
    "none",
    "-qmp",
    "stdio",
];

const QUESTIONS: &str = r#"{"execute": "qmp_capabilities"}
{"execute": "query-sev-capabilities", "id": "sev"}
{"execute": "quit"}
"#;

/// Why nothing is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CapabilitiesError {
    /// QEMU cannot be asked.
    #[error(transparent)]
    Run(#[from] RunError),
    /// It says why there is none.
    #[error("QEMU: {0}")]
    Refused(String),
    /// It says something else.
    #[error("QEMU's answer cannot be read: {0:?}")]
    Unreadable(String),
}

#[derive(Deserialize)]
struct Capabilities {
    cbitpos: u32,
    #[serde(rename = "reduced-phys-bits")]
    reduced_phys_bits: u32,
}

#[derive(Deserialize)]
struct Refusal {
    desc: String,
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "return")]
    answer: Option<Capabilities>,
    error: Option<Refusal>,
}

/// Asks QEMU.
///
/// # Errors
/// When it cannot be asked, or its host has no SEV.
pub async fn ask(binary: &Path) -> Result<SevHost, CapabilitiesError> {
    let said = converse(binary, &ARGUMENTS, QUESTIONS, LIMIT).await?;
    let errors = said.errors.lines().next().unwrap_or_default();
    match parse(&said.output) {
        // Without KVM it ends before it speaks.
        Err(CapabilitiesError::Unreadable(said)) if said.is_empty() && !errors.is_empty() => {
            Err(CapabilitiesError::Refused(errors.to_owned()))
        }
        other => other,
    }
}

/// What the lines of the monitor say.
fn parse(output: &str) -> Result<SevHost, CapabilitiesError> {
    let marked = |line: &&str| line.contains(r#""id": "sev""#);
    let line = output.lines().find(marked).unwrap_or_default();
    match serde_json::from_str(line) {
        Ok(Line {
            answer: Some(answer),
            ..
        }) => Ok(SevHost {
            device: DEVICE.into(),
            cbitpos: answer.cbitpos,
            reduced_phys_bits: answer.reduced_phys_bits,
        }),
        Ok(Line {
            error: Some(refusal),
            ..
        }) => Err(CapabilitiesError::Refused(refusal.desc)),
        _ => Err(CapabilitiesError::Unreadable(
            line.chars().take(200).collect(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": ""}, "capabilities": ["oob"]}}
{"return": {}}"#;

    #[test]
    fn answers_and_refusals() {
        let with = |line: &str| parse(&format!("{GREETING}\n{line}\n{{\"return\": {{}}}}\n"));
        let answer = r#"{"return": {"pdh": "AA==", "cpu0-id": "AA==", "cert-chain": "AA==", "cbitpos": 51, "reduced-phys-bits": 1}, "id": "sev"}"#;
        let host = with(answer).unwrap();
        assert_eq!((host.cbitpos, host.reduced_phys_bits), (51, 1));
        assert_eq!(host.device, Path::new("/dev/sev"));
        let refusal = r#"{"id": "sev", "error": {"class": "GenericError", "desc": "SEV is not enabled in KVM"}}"#;
        assert_eq!(
            with(refusal),
            Err(CapabilitiesError::Refused(
                "SEV is not enabled in KVM".into()
            ))
        );
        for line in ["", r#"{"id": "sev", "return": {}}"#, r#"{"id": "sev"#] {
            assert!(
                matches!(with(line), Err(CapabilitiesError::Unreadable(_))),
                "{line}"
            );
        }
    }
}
