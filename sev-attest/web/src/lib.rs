//! The verifier as the page calls it: one request of JSON in, one answer of JSON out.
//!
//! The module imports nothing: it has no network, no clock and no random numbers. The page gives it
//! files and the time.

mod abi;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use sev_attest::appraise::{self, appraise_evidence};
use sev_attest::assemble;
use sev_attest::formats::{self, Bundle, Evidence, FormatError, Input};
use sev_attest::hex_bytes::HexBytes;
use sev_attest::policy::Policy;
use sev_attest::show;
use sev_attest::time::UnixTime;

/// What the page asks.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    /// The files that were dropped: one report; certificates, revocation lists, a policy.
    files: Vec<File>,
    /// Expected launch digest in hex; empty for none.
    #[serde(default)]
    measurement: String,
    /// Expected report data in hex, or a nonce, with zeros after it; empty for none.
    #[serde(default)]
    report_data: String,
    /// Expected host data in hex; empty for none.
    #[serde(default)]
    host_data: String,
    /// Let any guest do.
    #[serde(default)]
    any_guest: bool,
    /// Let a report of any time do.
    #[serde(default)]
    any_time: bool,
    /// Accept a root that is not AMD's.
    #[serde(default)]
    allow_foreign_root: bool,
    /// The time to judge validity at, in seconds since 1970.
    at: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    /// Base64.
    data: String,
}

/// Answers a request: `{"files": [{"name", "kind"}], "error": …}`, and where there was a report to
/// judge, `"appraisal"` as `sev-attest verify --json` writes it, `"report"` as `sev-attest show
/// --json` does, and `"summary"`, the screenful that `sev-attest verify` prints.
#[must_use]
pub fn answer(request: &str) -> String {
    let mut kinds = Vec::new();
    let answer = match serde_json::from_str(request) {
        Ok(request) => judge(&request, &mut kinds),
        Err(error) => Err(format!("request: {error}")),
    };
    let answer = match answer {
        Ok(Judged {
            appraisal,
            report,
            summary,
        }) => json!({
            "files": kinds,
            "error": null,
            "appraisal": appraisal,
            "report": report,
            "summary": summary,
        }),
        Err(error) => json!({
            "files": kinds,
            "error": error,
            "appraisal": null,
            "report": null,
            "summary": null,
        }),
    };
    answer.to_string()
}

/// What is said of a report.
struct Judged {
    appraisal: Value,
    report: Value,
    summary: String,
}

fn judge(request: &Request, kinds: &mut Vec<Value>) -> Result<Judged, String> {
    let mut report: Option<Result<Evidence, FormatError>> = None;
    let mut bundle = Bundle::default();
    let mut policy = None;
    for File { name, data } in &request.files {
        let bytes = STANDARD
            .decode(data)
            .map_err(|_| format!("{name}: not base64"))?;
        let mut is = |kind: &str| kinds.push(json!({"name": name, "kind": kind}));
        match formats::read(&bytes) {
            Ok(Input::Certificates(more)) => {
                is("certificates");
                bundle.extend(more);
            }
            result @ (Ok(Input::Report(_)) | Err(FormatError::Report(_))) => {
                is("report");
                let evidence = result.map(|input| match input {
                    Input::Report(evidence) => Some(*evidence),
                    Input::Certificates(_) => None,
                });
                if report.is_some() {
                    return Err(format!("{name}: a second report; drop one at a time"));
                }
                report = evidence.transpose();
            }
            Err(_) if name.ends_with(".toml") => {
                is("policy");
                let text = String::from_utf8(bytes).map_err(|_| format!("{name}: not text"))?;
                let read = Policy::from_toml(&text).map_err(|error| format!("{name}: {error}"))?;
                if policy.replace(read).is_some() {
                    return Err(format!("{name}: a second policy; drop one at a time"));
                }
            }
            Err(error) => return Err(format!("{name}: {error}")),
        }
    }
    let report = report.ok_or("drop a report")?;
    let mut policy = policy.unwrap_or_default();
    expect(&mut policy, request)?;
    let at = UnixTime(request.at);
    let mut notes = Vec::new();
    let (appraisal, fields) = match report {
        Ok(evidence) => {
            notes.clone_from(&evidence.notes);
            let chain = assemble::chain_beside(
                &evidence.report,
                &evidence.bundle,
                &bundle,
                policy.require_crl,
                at,
            );
            let product = chain.as_ref().and_then(|chain| chain.product());
            let fields = show::to_json(&show::report(&evidence.report, product));
            (
                appraise_evidence(&evidence, chain.as_ref(), &policy, at),
                fields,
            )
        }
        Err(FormatError::Report(error)) => (
            appraise::unreadable(error, &policy, at).ok_or_else(|| error.to_string())?,
            Value::Null,
        ),
        Err(error) => return Err(error.to_string()),
    };
    let summary = appraisal.summary();
    let mut appraisal = appraisal.to_json();
    // there are no sources of certificates here that could fail
    appraisal["notes"] = json!(notes);
    Ok(Judged {
        appraisal,
        report: fields,
        summary,
    })
}

/// Adds what stands in the page's fields to the policy.
fn expect(policy: &mut Policy, request: &Request) -> Result<(), String> {
    let digits = |text: &str| {
        let text: String = text.split_whitespace().collect();
        text.trim_start_matches("0x").to_ascii_lowercase()
    };
    let measurement = digits(&request.measurement);
    if !measurement.is_empty() {
        let parsed = measurement.parse();
        policy.measurement = vec![parsed.map_err(|error| format!("measurement: {error}"))?];
    }
    let host_data = digits(&request.host_data);
    if !host_data.is_empty() {
        let parsed = host_data.parse();
        policy.host_data = vec![parsed.map_err(|error| format!("host data: {error}"))?];
    }
    let report_data = digits(&request.report_data);
    if !report_data.is_empty() {
        let bytes = hex::decode(&report_data).map_err(|error| format!("report data: {error}"))?;
        if !(8..=64).contains(&bytes.len()) {
            let len = bytes.len();
            return Err(format!("report data: 8 to 64 bytes are a nonce, not {len}"));
        }
        let mut data = [0; 64];
        data[..bytes.len()].copy_from_slice(&bytes);
        policy.report_data = Some(HexBytes(data));
    }
    policy.any_guest |= request.any_guest;
    policy.any_time |= request.any_time;
    policy.allow_foreign_root |= request.allow_foreign_root;
    Ok(())
}
