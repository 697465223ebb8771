//! What is said about each digest: text, JSON, a policy file, an ID block.

use std::fmt::Write as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Encoding, MAX_KEY, MeasureArgs, MeasureCommandError, in_file, read};
use crate::measure::{
    CpuSignature, IdBlock, IdKey, LaunchDigest, Measurement, Mode, SignedIdBlock,
};

/// Keys and contents of ID blocks.
pub(super) struct Signer {
    id: IdKey,
    author: Option<IdKey>,
    block: IdBlock,
}

impl Signer {
    pub(super) fn new(args: &MeasureArgs, id: &Path) -> Result<Self, MeasureCommandError> {
        let key = |path: &Path| {
            IdKey::from_bytes(&read(path, MAX_KEY)?).map_err(|source| in_file(path, source))
        };
        let mut block = IdBlock::new([0; 48]);
        block.family_id = args.family_id.unwrap_or(block.family_id);
        block.image_id = args.image_id.unwrap_or(block.image_id);
        block.guest_svn = args.guest_svn.unwrap_or(block.guest_svn);
        block.policy = args.guest_policy.unwrap_or(block.policy);
        Ok(Self {
            id: key(id)?,
            author: args.author_key.as_deref().map(key).transpose()?,
            block,
        })
    }
}

/// One digest with all that is said about it.
pub(super) struct Row {
    digest: LaunchDigest,
    vcpus: Option<(u32, CpuSignature, String)>,
    append: Option<String>,
    signed: Option<SignedIdBlock>,
}

impl Row {
    pub(super) fn new(
        args: &MeasureArgs,
        cpu: Option<&str>,
        signer: Option<&Signer>,
        measurement: Measurement,
    ) -> Result<Self, MeasureCommandError> {
        let Measurement {
            boot,
            vcpus,
            digest,
        } = measurement;
        let signed = match (signer, digest) {
            (Some(Signer { id, author, block }), LaunchDigest::Snp(launch_digest)) => {
                let block = IdBlock {
                    launch_digest,
                    ..block.clone()
                };
                Some(block.sign(id, author.as_ref())?)
            }
            _ => None,
        };
        Ok(Self {
            digest,
            vcpus: vcpus.map(|(signature, count)| {
                let name = cpu.unwrap_or_default().to_owned();
                (count, signature, name)
            }),
            append: args
                .kernel
                .is_some()
                .then(|| args.append.get(boot).cloned().unwrap_or_default()),
            signed,
        })
    }

    /// vCPUs and command line in words; control characters escaped.
    fn words(&self) -> String {
        let vcpus = self
            .vcpus
            .as_ref()
            .map(|(count, _, name)| format!("{count} x {name}"));
        let append = self.append.as_ref().map(|line| format!("{line:?}"));
        vcpus
            .into_iter()
            .chain(append)
            .collect::<Vec<_>>()
            .join("  ")
    }
}

pub(super) fn encode(encoding: Encoding, bytes: &[u8]) -> String {
    match encoding {
        Encoding::Hex => hex::encode(bytes),
        Encoding::Base64 => STANDARD.encode(bytes),
    }
}

/// One digest alone for scripts; several with what they are for.
pub(super) fn text(args: &MeasureArgs, rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        text += &encode(args.output_format, row.digest.as_ref());
        if rows.len() > 1 {
            let _ = write!(text, "  {}", row.words());
        }
        text.push('\n');
        if let Some(signed) = &row.signed {
            let _ = writeln!(text, "{}", qemu_options(signed, args));
            let _ = writeln!(text, "id key digest {}", hex::encode(signed.id_key_digest));
            if let Some(digest) = signed.author_key_digest {
                let _ = writeln!(text, "author key digest {}", hex::encode(digest));
            }
        }
    }
    text
}

/// What to add to `-object sev-snp-guest`.
fn qemu_options(signed: &SignedIdBlock, args: &MeasureArgs) -> String {
    let policy = args.guest_policy.unwrap_or(IdBlock::new([0; 48]).policy);
    let author = if signed.author_key_digest.is_some() {
        "on"
    } else {
        "off"
    };
    format!(
        "policy={policy:#x},author-key-enabled={author},id-block={},id-auth={}",
        signed.block_base64(),
        signed.auth_base64()
    )
}

pub(super) fn json_text(args: &MeasureArgs, mode: Mode, rows: &[Row]) -> String {
    let path = |path: &Path| path.display().to_string();
    let measurements: Vec<Value> = rows
        .iter()
        .map(|row| {
            let mut value = json!({ "digest": encode(args.output_format, row.digest.as_ref()) });
            if let Some((count, signature, name)) = &row.vcpus {
                value["vcpus"] = json!(count);
                value["vcpu_type"] = json!(name);
                value["vcpu_signature"] = json!(signature.to_string());
            }
            if let Some(line) = &row.append {
                value["append"] = json!(line);
            }
            if let Some(signed) = &row.signed {
                value["id_block"] = json!({
                    "block": signed.block_base64(),
                    "auth": signed.auth_base64(),
                    "id_key_digest": hex::encode(signed.id_key_digest),
                    "author_key_digest": signed.author_key_digest.map(hex::encode),
                });
            }
            value
        })
        .collect();
    let value = json!({
        "mode": mode.name(),
        "firmware": path(&args.firmware),
        "kernel": args.kernel.as_deref().map(path),
        "initrd": args.initrd.as_deref().map(path),
        "guest_features": args.guest_features.unwrap_or(mode.default_features()),
        "measurements": measurements,
    });
    format!("{value:#}\n")
}

/// The policy file: what `verify` must find in a report of one of these guests.
pub(super) fn policy(rows: &[Row], signer: Option<&Signer>) -> String {
    let mut text = String::from("# Written by `sev-attest measure`.\nmeasurement = [\n");
    for row in rows {
        let _ = writeln!(text, "  \"{}\", # {}", hex::encode(row.digest), row.words());
    }
    text += "]\n";
    if let Some(Signer { id, author, block }) = signer {
        let _ = writeln!(text, "id_key_digest = [\"{}\"]", hex::encode(id.digest()));
        if let Some(author) = author {
            let _ = writeln!(
                text,
                "author_key_digest = [\"{}\"]",
                hex::encode(author.digest())
            );
        }
        if block.guest_svn > 0 {
            let _ = writeln!(text, "min_guest_svn = {}", block.guest_svn);
        }
        let _ = writeln!(text, "family_id = \"{}\"", hex::encode(block.family_id));
        let _ = writeln!(text, "image_id = \"{}\"", hex::encode(block.image_id));
    }
    text
}
