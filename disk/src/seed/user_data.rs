//! The user's own cloud-init data: what is accepted, and checked as far as it can be.

use std::str::FromStr;

use super::{
    archive, encoding,
    error::{SeedError, excerpt},
    limits::MAX_USER_DATA,
    mime, shape,
    yaml::{self, Node},
};

/// The user's cloud-init data, checked.
///
/// Accepted, alone or as parts of a MIME message or of a `#cloud-config-archive`:
/// `#cloud-config`, scripts (`#!`), `#cloud-boothook` and Jinja templates
/// (`## template: jinja`) of one of them; all of it in gzip or base64 too.
///
/// Refused, with the reason:
/// - `#include` and `#include-once`: when the address does not answer, cloud-init drops all user
///   data, the agent's too, and nobody can log in.
/// - `#part-handler`: code that can take the place of cloud-init's own handling.
/// - `#cloud-config-jsonp` and binary data: not needed, and each another way past the checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserData {
    parts: Vec<UserPart>,
}

/// One part: as it goes into the seed, and the cloud-config in it, if it is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UserPart {
    /// From 1, as the user counts them.
    pub(super) number: usize,
    pub(super) mime: mime::Part,
    pub(super) config: Option<Node>,
}

impl UserPart {
    pub(super) fn is_template(&self) -> bool {
        self.mime.content_type == Kind::Template.content_type()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    CloudConfig,
    Script,
    PerBoot,
    PerInstance,
    PerOnce,
    Boothook,
    Template,
    Archive,
}

impl Kind {
    /// The content types of `cloudinit/handlers/__init__.py`.
    fn content_type(self) -> &'static str {
        match self {
            Self::CloudConfig => "text/cloud-config",
            Self::Script => "text/x-shellscript",
            Self::PerBoot => "text/x-shellscript-per-boot",
            Self::PerInstance => "text/x-shellscript-per-instance",
            Self::PerOnce => "text/x-shellscript-per-once",
            Self::Boothook => "text/cloud-boothook",
            Self::Template => "text/jinja2",
            Self::Archive => "text/cloud-config-archive",
        }
    }

    /// The type of a part. cloud-init believes the declared type except for plain text and
    /// scripts, where the first line decides (`cloudinit/user_data.py`).
    fn declared(content_type: &str, body: &str) -> Result<Self, String> {
        Ok(match content_type {
            "text/plain" | "text/x-not-multipart" | "text/x-shellscript" => Self::sniff(body)?,
            "text/cloud-config" => Self::CloudConfig,
            "text/x-shellscript-per-boot" => Self::PerBoot,
            "text/x-shellscript-per-instance" => Self::PerInstance,
            "text/x-shellscript-per-once" => Self::PerOnce,
            "text/cloud-boothook" => Self::Boothook,
            "text/jinja2" => Self::Template,
            "text/cloud-config-archive" => Self::Archive,
            "text/x-include-url" | "text/x-include-once-url" => return Err(INCLUDE.to_owned()),
            "text/part-handler" => return Err(PART_HANDLER.to_owned()),
            other => {
                return Err(format!(
                    "parts of type {:?} are not supported",
                    excerpt(other)
                ));
            }
        })
    }

    fn sniff(text: &str) -> Result<Self, String> {
        const BEGINNINGS: &[(&str, Result<Kind, &str>)] = &[
            ("## template: jinja", Ok(Kind::Template)),
            ("#cloud-config-archive", Ok(Kind::Archive)),
            (
                "#cloud-config-jsonp",
                Err("#cloud-config-jsonp is not supported; write YAML"),
            ),
            ("#cloud-config", Ok(Kind::CloudConfig)),
            ("#cloud-boothook", Ok(Kind::Boothook)),
            ("#include", Err(INCLUDE)),
            ("#part-handler", Err(PART_HANDLER)),
            ("#!", Ok(Kind::Script)),
        ];
        // cloud-init compares without regard to case.
        let beginning: String = text
            .trim_start()
            .chars()
            .take(32)
            .map(|c| c.to_ascii_lowercase())
            .collect();
        match BEGINNINGS
            .iter()
            .find(|(prefix, _)| beginning.starts_with(prefix))
        {
            Some((_, Ok(kind))) => Ok(*kind),
            Some((_, Err(reason))) => Err((*reason).to_owned()),
            None => Err("it must begin with #cloud-config, #!, #cloud-boothook, \
                         #cloud-config-archive, ## template: jinja, or the headers of a MIME \
                         message"
                .to_owned()),
        }
    }
}

const INCLUDE: &str = "#include is not supported: if the address does not answer, the guest \
                       ignores all user data and cannot be logged into; paste the content instead";
const PART_HANDLER: &str = "#part-handler is not supported: it replaces cloud-init's own handling";

impl UserData {
    /// Parses user data as it came from the user.
    ///
    /// # Errors
    /// [`SeedError::UserData`]: too large, not UTF-8, of a kind that is not supported, or a
    /// cloud-config that the guest could not load.
    pub fn parse(bytes: &[u8]) -> Result<Self, SeedError> {
        let refuse = |reason: String| SeedError::UserData { part: None, reason };
        if bytes.len() > MAX_USER_DATA {
            return Err(refuse(format!(
                "{} bytes, at most {MAX_USER_DATA} are possible",
                bytes.len()
            )));
        }
        let bytes = encoding::unwrap(bytes, MAX_USER_DATA).map_err(refuse)?;
        let text =
            std::str::from_utf8(&bytes).map_err(|_| refuse("it is not UTF-8 text".to_owned()))?;
        // An editor's byte order mark would hide the first line from cloud-init.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_start();
        if text.is_empty() {
            return Err(refuse("it is empty".to_owned()));
        }
        let message = mime::is_message(text);
        let found = if message {
            mime::decode(text).map_err(refuse)?
        } else {
            vec![mime::Part {
                content_type: "text/plain".to_owned(),
                filename: None,
                merge_type: None,
                body: text.to_owned(),
            }]
        };
        let mut parts = Vec::new();
        let mut number = 0;
        for mime in found {
            for mime in unpacked(mime).map_err(refuse)? {
                number += 1;
                let part = message.then_some(number);
                let refuse = |reason| SeedError::UserData { part, reason };
                parts.extend(part_of(number, mime).map_err(refuse)?);
            }
        }
        if number == 0 {
            return Err(refuse("it has no parts".to_owned()));
        }
        if number > mime::MAX_PARTS {
            return Err(refuse(format!(
                "it has more than {} parts",
                mime::MAX_PARTS
            )));
        }
        Ok(Self { parts })
    }

    pub(super) fn parts(&self) -> &[UserPart] {
        &self.parts
    }
}

impl FromStr for UserData {
    type Err = SeedError;

    fn from_str(text: &str) -> Result<Self, SeedError> {
        Self::parse(text.as_bytes())
    }
}

/// A part, or what is in it if it is an archive.
fn unpacked(part: mime::Part) -> Result<Vec<mime::Part>, String> {
    match Kind::declared(&part.content_type, &part.body) {
        Ok(Kind::Archive) => archive::parts(&part.body),
        _ => Ok(vec![part]),
    }
}

/// Checks one part; an empty cloud-config is none.
fn part_of(number: usize, mut mime: mime::Part) -> Result<Option<UserPart>, String> {
    let kind = Kind::declared(&mime.content_type, &mime.body)?;
    mime.content_type = kind.content_type().to_owned();
    if mime.body.contains('\0') {
        return Err("it has a NUL byte".to_owned());
    }
    let config = match kind {
        Kind::CloudConfig => {
            let Some(config) = yaml::parse(&mime.body)? else {
                return Ok(None);
            };
            shape::check(&config)?;
            Some(config)
        }
        Kind::Template => {
            let rest = mime
                .body
                .trim_start()
                .split_once('\n')
                .map_or("", |(_, rest)| rest);
            match Kind::sniff(rest) {
                Ok(Kind::CloudConfig | Kind::Script | Kind::Boothook) => None,
                Err(reason) if rest.trim_start().starts_with('#') => return Err(reason),
                _ => {
                    return Err(
                        "a template must have #cloud-config, #! or #cloud-boothook in its \
                         second line"
                            .to_owned(),
                    );
                }
            }
        }
        Kind::Archive => return Err("an archive within an archive".to_owned()),
        _ => None,
    };
    Ok(Some(UserPart {
        number,
        mime,
        config,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_kinds_are_taken() {
        for (text, content_type) in [
            ("#cloud-config\npackages: [nginx]\n", "text/cloud-config"),
            ("\u{feff}\n#cloud-config\r\na: 1\r\n", "text/cloud-config"),
            ("#!/bin/sh\necho hi\n", "text/x-shellscript"),
            ("#cloud-boothook\n#!/bin/sh\n", "text/cloud-boothook"),
            (
                "## template: jinja\n#cloud-config\na: {{ v1.region }}\n",
                "text/jinja2",
            ),
            (
                "Content-Type: text/x-shellscript\nMIME-Version: 1.0\n\n#!/bin/sh\n",
                "text/x-shellscript",
            ),
        ] {
            let data: UserData = text.parse().unwrap();
            assert_eq!(data.parts.len(), 1, "{text:?}");
            assert_eq!(data.parts[0].mime.content_type, content_type, "{text:?}");
        }
        assert_eq!(
            "#cloud-config\n# nothing\n"
                .parse::<UserData>()
                .unwrap()
                .parts,
            []
        );
    }

    #[test]
    fn hostile_data_is_refused() {
        let message = |parts: &str| {
            format!(
                "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"b\"\n\n{parts}--b--\n"
            )
        };
        let many = "--b\nContent-Type: text/cloud-config\n\na: 1\n".repeat(100);
        for (text, because) in [
            (String::new(), "empty"),
            (" \n\t\n".to_owned(), "empty"),
            ("hello".to_owned(), "must begin with"),
            ("hostname: x\n#cloud-config\n".to_owned(), "must begin with"),
            (
                format!("#cloud-config\na: {}", "x".repeat(MAX_USER_DATA)),
                "at most",
            ),
            (
                "#include http://192.0.2.1/x\n".to_owned(),
                "does not answer",
            ),
            (
                "#Include-Once\nhttp://192.0.2.1/x\n".to_owned(),
                "does not answer",
            ),
            ("#part-handler\nimport os\n".to_owned(), "replaces"),
            (
                "#cloud-config-archive\n- {content: hello, type: text/x}\n".to_owned(),
                "not supported",
            ),
            ("#cloud-config-archive\na: 1\n".to_owned(), "list"),
            (
                "#cloud-config-archive\n- {launch-index: 1}\n".to_owned(),
                "content",
            ),
            ("#cloud-config-jsonp\n[]".to_owned(), "YAML"),
            (
                "## template: jinja\n{% include '/etc/shadow' %}".to_owned(),
                "second line",
            ),
            (
                "## template: jinja\n#include http://x".to_owned(),
                "does not answer",
            ),
            ("#cloud-config\n- a\n".to_owned(), "mapping"),
            ("#cloud-config\na: [\n".to_owned(), "YAML"),
            ("#cloud-config\na: \0\n".to_owned(), "NUL"),
            ("#!/bin/sh\n\0".to_owned(), "NUL"),
            ("#cloud-config\nmounts:\n".to_owned(), "`mounts`"),
            ("#cloud-config\nmounts: [[]]\n".to_owned(), "`mounts`"),
            ("#cloud-config\nmounts: [/dev/vdb]\n".to_owned(), "`mounts`"),
            ("#cloud-config\nfs_setup: x\n".to_owned(), "`fs_setup`"),
            (
                "#cloud-config\nssh_authorized_keys: ssh-rsa\n".to_owned(),
                "`ssh_authorized_keys`",
            ),
            (
                "#cloud-config\nmount_default_fields: []\n".to_owned(),
                "`mount_default_fields`",
            ),
            (
                "#cloud-config\ndevice_aliases: []\n".to_owned(),
                "`device_aliases`",
            ),
            (
                message("--b\nContent-Type: text/x-include-url\n\nhttp://x\n"),
                "does not answer",
            ),
            (
                message("--b\nContent-Type: text/x-shellscript\n\n#include x\n"),
                "does not answer",
            ),
            (
                message("--b\nContent-Type: application/gzip\n\nx\n"),
                "damaged",
            ),
            (
                message("--b\nContent-Type: text/cloud-config; charset=utf-16\n\na: 1\n"),
                "charset",
            ),
            (
                message("--b\nContent-Type: text/part-handler\n\nx\n"),
                "replaces",
            ),
            (
                message("--b\nContent-Type: text/cloud-config\nMerge-Type: $(x)\n\na: 1\n"),
                "Merge-Type",
            ),
            (message(&many), "more than 32"),
            (message(""), "no parts"),
        ] {
            let error = match text.parse::<UserData>() {
                Ok(data) => panic!("{text:?} was taken: {data:?}"),
                Err(error) => error.to_string(),
            };
            assert!(error.contains(because), "{text:?}: {error}");
        }
        assert!(
            UserData::parse(b"#!/bin/sh\n\xff")
                .unwrap_err()
                .to_string()
                .contains("UTF-8")
        );
    }
}
