//! One thing that was looked at.

use std::borrow::Cow;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// As it must be.
    Ok,
    /// Not as it must be.
    Failed,
    /// Not looked at; the finding says why.
    NotChecked,
}

impl Status {
    /// Name in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::NotChecked => "not_checked",
        }
    }
}

/// One thing that was looked at, or that was not.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// Stable name, as `leaf.signature`.
    pub id: Cow<'static, str>,
    /// The same in words.
    pub what: Cow<'static, str>,
    /// What it should be; empty where nothing was expected.
    pub expected: Cow<'static, str>,
    /// What it is; empty where it was not looked at.
    pub found: Cow<'static, str>,
    /// How it came out.
    pub status: Status,
    /// Why it failed or was not checked, where that is not plain from the rest.
    pub reason: Option<Cow<'static, str>>,
    /// A finding that was not checked and had to be: it leaves the verdict open.
    pub required: bool,
}

impl Finding {
    pub(super) fn new(
        id: impl Into<Cow<'static, str>>,
        what: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            id: id.into(),
            what: what.into(),
            expected: Cow::Borrowed(""),
            found: Cow::Borrowed(""),
            status: Status::NotChecked,
            reason: None,
            required: false,
        }
    }

    pub(super) fn expected(mut self, expected: impl Into<Cow<'static, str>>) -> Self {
        self.expected = expected.into();
        self
    }

    pub(super) fn ok(mut self, found: impl Into<Cow<'static, str>>) -> Self {
        self.found = found.into();
        self.status = Status::Ok;
        self
    }

    /// Not as it must be. The reason is that of the check until [`Self::because`] says a finer
    /// one.
    pub(super) fn failed(mut self, found: impl Into<Cow<'static, str>>) -> Self {
        self.found = found.into();
        self.status = Status::Failed;
        if self.reason.is_none() {
            self.reason = Some(Cow::Borrowed(why_failed(&self.id)));
        }
        self
    }

    pub(super) fn because(mut self, reason: impl Into<Cow<'static, str>>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Not checked, and nobody asked for it.
    pub(super) fn skipped(mut self, reason: impl Into<Cow<'static, str>>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Not checked, though it had to be.
    pub(super) fn required(mut self, reason: impl Into<Cow<'static, str>>) -> Self {
        self.reason = Some(reason.into());
        self.required = true;
        self
    }

    pub(super) fn found(mut self, found: impl Into<Cow<'static, str>>) -> Self {
        self.found = found.into();
        self
    }
}

/// What it means that a check failed, by its name.
fn why_failed(id: &str) -> &'static str {
    match id {
        "report.signature" => "the certificate's key did not sign these bytes",
        "ark.signature" | "ask.signature" | "leaf.signature" => {
            "the key above it did not sign these bytes"
        }
        "report.version" => "the layout of this version is not known",
        "report.format" => "no security processor writes such a report",
        "chain.names" => "these certificates do not belong together",
        "leaf.kind" => "the report says that another kind of key signed it",
        "leaf.product" => "the certificate is of another product than the report",
        "measurement" => "another guest was launched, or this one in another way",
        "report_data" => "the report was not made for what was asked",
        "host_data" => "the host launched the guest with other host data",
        "vmpl" => "software of another privilege level asked for the report",
        "chip_id" | "leaf.hwid" => "it is another chip",
        "leaf.csp_id" => "it is another provider",
        "policy.unknown_bits" | "platform.unknown_bits" => {
            "bits that this program does not know; newer firmware may set them"
        }
        _ if id.starts_with("advisories.") => "the report shows that it is not fixed",
        _ if id.starts_with("floor.") => "older than the floor of this silicon",
        _ if id.starts_with("leaf.tcb.") => "the certificate is for other firmware",
        _ if id.starts_with("tcb.") || id.starts_with("firmware.") => {
            "older than what was asked for"
        }
        _ if id.starts_with("policy.") => "the guest was launched with another guest policy",
        _ if id.starts_with("platform.") => "the platform is set up in another way",
        _ if id.starts_with("mitigations.") => "a mitigation that was asked for is not on",
        _ => "not what was expected",
    }
}
