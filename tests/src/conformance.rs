//! The verifier behind the command-line contract of tinfoil's conformance suite: JSON in, JSON out,
//! and an exit status that is the verdict. Their runner can drive it; ours is in
//! `tests/conformance.rs`.

use serde_json::{Value, json};
use sev_attest::appraise::{Appraisal, appraise};
use sev_attest::cert::Certificate;
use sev_attest::chain::Chain;
use sev_attest::formats::{self, FormatError};
use sev_attest::hex_bytes::HexBytes;
use sev_attest::policy::Policy;
use sev_attest::report::{Report, ReportError};
use sev_attest::time::UnixTime;

/// The one stage that this verifier has.
pub const STAGE: &str = "verify-attestation-sev";
/// The name that the suite gives a launch digest.
const MEASUREMENT: &str = "https://tinfoil.sh/predicate/sev-snp-guest/v2";

/// How a run ends.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Genuine and as expected; the output.
    Accepted(Value),
    /// Not; one of the suite's codes.
    Rejected(&'static str),
    /// Another stage than [`STAGE`].
    Unsupported,
    /// The input is not as the contract has it.
    Malformed(String),
}

impl Answer {
    /// Exit status of the contract.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Accepted(_) => 0,
            Self::Rejected(_) => 10,
            Self::Unsupported => 20,
            Self::Malformed(_) => 30,
        }
    }

    /// What is written to standard output.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Self::Accepted(outputs) => {
                json!({"stage": STAGE, "accepted": true, "outputs": outputs})
            }
            Self::Rejected(code) => {
                json!({"stage": STAGE, "accepted": false, "rejection": {"code": code}})
            }
            Self::Unsupported => json!({"error": "another stage"}),
            Self::Malformed(why) => json!({"error": why}),
        }
    }
}

/// What this verifier can do, in the suite's words.
#[must_use]
pub fn capabilities() -> Value {
    json!({"attestation_sev": {
        "supported": true,
        "injected_collateral_supported": true,
        "extended_checks_supported": true,
        "amd_root_ca_injection_supported": true,
        "verification_time_override": "supported",
        "public_api_hooks_supported": false,
    }})
}

/// Runs a stage on its input.
#[must_use]
pub fn run(stage: &str, input: &[u8]) -> Answer {
    if stage != STAGE {
        return Answer::Unsupported;
    }
    let input: Value = match serde_json::from_slice(input) {
        Ok(input) => input,
        Err(error) => return Answer::Malformed(error.to_string()),
    };
    judge(&input).unwrap_or_else(|answer| answer)
}

fn judge(input: &Value) -> Result<Answer, Answer> {
    let malformed = |why: &str| Answer::Malformed(why.to_owned());
    if input["schema_version"] != "1" {
        return Err(malformed("schema_version"));
    }
    let text = |key: &str| input[key].as_str().ok_or_else(|| malformed(key));
    let report = text("attestation_doc_b64")?;
    let vcek = text("vcek_der_b64")?;
    let policy = policy(input).map_err(Answer::Malformed)?;
    let at = match &input["expiration_check_date_unix"] {
        Value::Null => UnixTime::now(),
        time => UnixTime(
            time.as_u64()
                .ok_or_else(|| malformed("expiration_check_date_unix"))?,
        ),
    };
    let report = formats::read_report(report.as_bytes())
        .map_err(|error| Answer::Rejected(unreadable(&error)))?
        .report;
    let leaf = certificate(vcek).ok_or(Answer::Rejected("VCEK_CHAIN_INVALID"))?;
    let chain = match (&input["amd_root_ca_pem"], &input["ask_pem"]) {
        (Value::Null, Value::Null) => Chain::under_amd(leaf),
        (Value::String(ark), Value::String(ask)) => {
            let ark = certificate(ark).ok_or(Answer::Rejected("ARK_UNTRUSTED"))?;
            let ask = certificate(ask).ok_or(Answer::Rejected("ASK_INVALID"))?;
            Some(Chain::new(ark, ask, leaf))
        }
        _ => return Err(malformed("amd_root_ca_pem and ask_pem go together")),
    };
    let appraisal = appraise(&report, chain.as_ref(), &policy, at);
    if appraisal.is_genuine() {
        return Ok(Answer::Accepted(json!({"measurement": {
            "type": MEASUREMENT,
            "registers": [hex::encode(report.measurement)],
        }})));
    }
    Err(Answer::Rejected(code(&report, &appraisal)))
}

/// The first certificate of a text.
fn certificate(text: &str) -> Option<Certificate> {
    let bundle = formats::read_certificates(text.as_bytes()).ok()?;
    bundle.certificates.into_iter().next()
}

fn policy(input: &Value) -> Result<Policy, String> {
    let pins = &input["policy"];
    let mut policy = Policy::default();
    // The suite judges authenticity first; a case pins what it wants.
    (policy.any_guest, policy.any_time) = (true, true);
    policy.allow_foreign_root = !input["amd_root_ca_pem"].is_null();
    policy.measurement.extend(pin(pins, "measurement")?);
    policy.host_data.extend(pin(pins, "host_data")?);
    policy.report_data = pin(pins, "report_data")?;
    policy.id_key_digest.extend(pin(pins, "id_key_digest")?);
    policy
        .author_key_digest
        .extend(pin(pins, "author_key_digest")?);
    let least = |key: &str| match &pins[key] {
        Value::Null => Ok(None),
        number => {
            let number = number.as_u64().and_then(|n| u8::try_from(n).ok());
            number.map(Some).ok_or_else(|| key.to_owned())
        }
    };
    let tcb = &mut policy.tcb.reported;
    tcb.boot_loader = least("min_tcb_bl_spl")?;
    tcb.tee = least("min_tcb_tee_spl")?;
    tcb.snp = least("min_tcb_snp_spl")?;
    tcb.microcode = least("min_tcb_ucode_spl")?;
    Ok(policy)
}

fn pin<const N: usize>(pins: &Value, name: &str) -> Result<Option<HexBytes<N>>, String> {
    let key = format!("expected_{name}_hex");
    match &pins[&key] {
        Value::Null => Ok(None),
        text => {
            let digits = text.as_str().ok_or_else(|| key.clone())?;
            digits
                .parse()
                .map(Some)
                .map_err(|error| format!("{key}: {error}"))
        }
    }
}

fn unreadable(error: &FormatError) -> &'static str {
    match error {
        FormatError::Report(ReportError::UnknownVersion(_)) => "WRONG_REPORT_VERSION",
        FormatError::Report(ReportError::Length(_)) => "REPORT_TRUNCATED",
        _ => "REPORT_FORMAT_UNSUPPORTED",
    }
}

/// The suite's codes for our checks, in the order in which one of several is told: first whether
/// the certificates are AMD's and of this chip, then the report, then what was expected of it.
const CODES: [(&str, &str); 26] = [
    ("chain.root", "ARK_UNTRUSTED"),
    ("ark.validity", "VCEK_EXPIRED"),
    ("ark.", "ARK_UNTRUSTED"),
    ("ask.validity", "VCEK_EXPIRED"),
    ("ask.", "ASK_INVALID"),
    ("leaf.signature", "VCEK_CHAIN_INVALID"),
    ("leaf.validity", "VCEK_EXPIRED"),
    ("leaf.hwid", "VCEK_HWID_MISMATCH"),
    ("leaf.tcb.", "VCEK_TCB_MISMATCH"),
    ("leaf.", "VCEK_CHAIN_INVALID"),
    ("chain.", "VCEK_CHAIN_INVALID"),
    ("report.signature", "REPORT_SIGNATURE_INVALID"),
    ("report.signing_key", "SIGNER_INFO_INVALID"),
    ("report.version", "WRONG_REPORT_VERSION"),
    ("report.", "REPORT_FORMAT_UNSUPPORTED"),
    ("policy.debug", "GUEST_POLICY_DEBUG_SET"),
    ("policy.migration_agent", "GUEST_POLICY_MIGRATE_MA_SET"),
    ("policy.unknown_bits", "GUEST_POLICY_RESERVED_BIT_SET"),
    ("platform.", "PLATFORM_INFO_INVALID"),
    ("tcb.", "TCB_OUT_OF_DATE"),
    ("firmware.", "TCB_OUT_OF_DATE"),
    ("measurement", "MEASUREMENT_MISMATCH"),
    ("host_data", "HOST_DATA_MISMATCH"),
    ("report_data", "REPORT_DATA_MISMATCH"),
    ("id_key_digest", "ID_KEY_DIGEST_MISMATCH"),
    ("author_key_digest", "AUTHOR_KEY_DIGEST_MISMATCH"),
];

fn code(report: &Report, appraisal: &Appraisal) -> &'static str {
    let failed: Vec<&str> = appraisal.failures().map(|finding| &*finding.id).collect();
    let first = CODES
        .iter()
        .find(|(check, _)| failed.iter().any(|id| id.starts_with(check)));
    match first {
        Some(("report.", _)) if !report.policy.is_well_formed() => "GUEST_POLICY_RESERVED_BIT_SET",
        Some((_, code)) => code,
        None => "QV_RESULT_TERMINAL_UNSPECIFIED",
    }
}
