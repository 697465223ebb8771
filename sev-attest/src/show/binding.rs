//! What came with a report, in words. Nothing of it is verified here.

use serde_json::Value;

use super::{Entry, Section};
use crate::formats::Binding;

/// What came with a report and has to be bound by its report data.
#[must_use]
pub fn binding(binding: &Binding) -> Vec<Section> {
    vec![match binding {
        // No file has it.
        Binding::Channel(_) => return Vec::new(),
        Binding::RuntimeClaims(claims) => {
            let (value, words) = match claims.to_json() {
                Some(json) => {
                    let words = json.to_string();
                    (json, words)
                }
                None => (Value::Null, "not JSON".to_owned()),
            };
            let user_data = match claims.user_data() {
                Some(data) => Entry::hex("user_data", "user data", &data),
                None => Entry::new("user_data", "user data", Value::Null, "none"),
            };
            Section {
                key: "runtime_claims",
                title: "Azure's runtime claims (report data has to be their hash)".to_owned(),
                entries: vec![
                    Entry::hex("report_data", "their hash", &claims.report_data()),
                    user_data,
                    Entry::new("claims", "claims", value, words),
                ],
            }
        }
        Binding::CertificateKey(key) => Section {
            key: "certificate",
            title: "Certificate that the report is in (report data has to bind its key)".to_owned(),
            entries: vec![
                Entry::text("subject", "subject", key.subject.clone()),
                Entry::text("extension", "extension", key.extension.clone()),
            ],
        },
    }]
}
