//! `sev-attest unlock`: sends a secret to a guest that was verified.

use std::io::Write;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use clap::Args;
use zeroize::Zeroizing;

use super::certificates::{self, Found, SourceArgs};
use super::input::{self, CliError};
use super::verify;
use crate::appraise::{self, Appraisal, Outcome};
use crate::channel::MAX_VALUE;
use crate::channel::Secrets;
use crate::channel::ethereum::OwnerKey;
use crate::endpoint::unlock::{Attested, Target, UnlockError, key_of, lacks};
use crate::policy::Policy;
use crate::time::UnixTime;

/// Name of the secret that opens a guest's disk, as Aleph Cloud's guests know it.
pub(super) const DISK_KEY: &str = "luks_passphrase";
/// Exit status where a verified guest did not take the secret.
const NOT_TAKEN: u8 = 5;
/// Exit status where no report could be had.
const UNDECIDED: u8 = 3;
/// Exit status where the policy does not expect enough.
const NOT_ENOUGH: u8 = 4;
/// Longest wait of `--watch` after refusals.
const MAX_WAIT: Duration = Duration::from_secs(300);

/// Send a disk's key to a guest, once it is verified that this guest runs what was asked for
///
/// Asks the guest for a report of this very connection, judges it by the policy as `verify` does, and
/// sends the key over the same connection. The key is never in arguments, messages or files but the
/// one it comes from.
///
/// Exit status: 0 the guest took the secret; 1 the guest is not genuine, or not as expected; 2 wrong
/// usage; 3 no report, or a certificate could not be had: try again; 4 the policy does not expect
/// enough; 5 verified, but the guest did not take the secret.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:\n  \
  sev-attest unlock 192.0.2.1:24001 --policy guest.toml --key-file disk.key --owner-key wallet.key\n  \
  sev-attest unlock [2001:db8::1] --policy guest.toml --key-file disk.key --owner-key wallet.key --watch")]
pub(crate) struct UnlockArgs {
    /// The guest: HOST[:PORT], an IPv6 address, https://HOST:PORT, or unix:PATH of a relay
    /// [default port: 8443]
    target: Target,
    /// What the guest must be: measurement and host data at least
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// File with the disk's key, all bytes of it; - for standard input
    #[arg(long, value_name = "FILE", required_unless_present = "secret")]
    key_file: Option<PathBuf>,
    /// Send the bytes of a file as the secret of this name; may be repeated
    #[arg(long, value_name = "NAME=FILE", value_parser = named)]
    secret: Vec<(String, PathBuf)>,
    /// File with the private key of the owner's account, in hex: the guest takes what it signed
    #[arg(long, value_name = "FILE")]
    owner_key: PathBuf,
    /// Accept version 1 of the channel, which today's guests speak: whoever has a TLS key out of a
    /// guest like this one can stand between unseen
    #[arg(long)]
    allow_v1: bool,
    /// Go on: unlock the guest again whenever it was started anew
    #[arg(long)]
    watch: bool,
    /// How often --watch looks
    #[arg(long, value_name = "SECONDS", default_value_t = 10, requires = "watch")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    /// Write findings and outcome as JSON
    #[arg(long)]
    json: bool,
    /// Write every check, one a line
    #[arg(long)]
    all: bool,
    /// Judge under a root that is not AMD's, for simulations. A secret is sent by test builds alone
    #[arg(long)]
    allow_foreign_root: bool,
    #[command(flatten)]
    sources: SourceArgs,
}

fn named(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("expected NAME=FILE")?;
    Ok((name.to_owned(), path.into()))
}

/// Unlocks, once or for as long as the process lives; answers the exit status.
///
/// # Errors
/// On wrong usage and files that can't be read; no guest was asked then.
pub(crate) fn run(args: &UnlockArgs, out: &mut impl Write) -> Result<u8, CliError> {
    let unlocker = match Unlocker::new(args)? {
        Ok(unlocker) => unlocker,
        Err(lacks) => {
            for lack in lacks {
                super::say(&format!("{}: {lack}", args.policy.display()));
            }
            return Ok(NOT_ENOUGH);
        }
    };
    if !args.watch {
        return Ok(unlocker.once(out)?.status());
    }
    let mut watch = Watch::new(&unlocker, Duration::from_secs(args.interval));
    loop {
        let wait = watch.round(out)?;
        thread::sleep(wait);
    }
}

/// What an attempt came to.
#[derive(Debug)]
enum Done {
    /// The guest with this TLS key took the secrets.
    Unlocked(Vec<u8>),
    /// The verifier does not clear the guest.
    Withheld(Outcome),
    /// No report could be had.
    NoReport(UnlockError),
    /// The guest was cleared and did not take the secrets.
    NotTaken(UnlockError),
}

impl Done {
    fn status(&self) -> u8 {
        match self {
            Self::Unlocked(_) => 0,
            Self::NoReport(_) => UNDECIDED,
            Self::NotTaken(_) => NOT_TAKEN,
            // Genuine under a root that does not count.
            Self::Withheld(Outcome::Genuine) => Outcome::Refused.exit_status(),
            Self::Withheld(outcome) => outcome.exit_status(),
        }
    }
}

/// All that an attempt needs, read once.
struct Unlocker<'a> {
    args: &'a UnlockArgs,
    policy: Policy,
    secrets: Secrets,
    owner: OwnerKey,
}

impl<'a> Unlocker<'a> {
    /// Reads what the arguments name; or what the policy lacks.
    fn new(args: &'a UnlockArgs) -> Result<Result<Self, Vec<&'static str>>, CliError> {
        let mut policy = input::policy(&args.policy)?;
        let lacks = lacks(&policy);
        if !lacks.is_empty() {
            return Ok(Err(lacks));
        }
        policy.allow_foreign_root |= args.allow_foreign_root;
        let mut secrets = Secrets::default();
        let key_file = args.key_file.iter().map(|path| (DISK_KEY, path));
        let named = args.secret.iter().map(|(name, path)| (&**name, path));
        for (name, path) in key_file.chain(named) {
            let value = secret(path, MAX_VALUE)?;
            if value.is_empty() {
                return Err(CliError::Usage(format!("{}: is empty", input::name(path))));
            }
            if value.ends_with(b"\n") {
                let name = input::name(path);
                super::say(&format!("{name}: ends in a line feed, which is sent too"));
            }
            let inserted = secrets.insert(name.to_owned(), value);
            inserted.map_err(|error| CliError::Usage(error.to_string()))?;
        }
        let text = secret(&args.owner_key, 1024)?;
        let owner = std::str::from_utf8(&text)
            .ok()
            .and_then(|text| OwnerKey::from_text(text).ok())
            .ok_or_else(|| {
                let name = input::name(&args.owner_key);
                CliError::Usage(format!("{name}: a private key is 64 hexadecimal digits"))
            })?;
        Ok(Ok(Self {
            args,
            policy,
            secrets,
            owner,
        }))
    }

    /// Asks, judges, sends. A connection that was lost between question and secret, as when a
    /// certificate took long to come, is made once more.
    fn once(&self, out: &mut impl Write) -> Result<Done, CliError> {
        match self.attempt(out)? {
            Done::NotTaken(UnlockError::Io(_)) => self.attempt(out),
            done => Ok(done),
        }
    }

    fn attempt(&self, out: &mut impl Write) -> Result<Done, CliError> {
        let args = self.args;
        let attested = match Attested::ask(&args.target, args.allow_v1) {
            Ok(attested) => attested,
            Err(error) => return self.tell(out, None, Done::NoReport(error)),
        };
        let (at, evidence) = (UnixTime::now(), &attested.evidence);
        let policy = attested.policy(&self.policy);
        let Found { chain, mut notes } = certificates::find(
            &evidence.report,
            &evidence.bundle,
            &args.sources,
            policy.require_crl,
            at,
        )?;
        notes.extend(evidence.notes.iter().cloned());
        for note in notes {
            super::say(&crate::show::plain(&note));
        }
        let appraisal = appraise::appraise_evidence(evidence, chain.as_ref(), &policy, at);
        // What was allowed is said all the same.
        let of_channel = |finding: &&appraise::Finding| {
            finding.id == "channel.binding" && finding.status == appraise::Status::NotChecked
        };
        let allowed = appraisal.findings.iter().find(of_channel);
        if let Some(reason) = allowed.and_then(|finding| finding.reason.as_deref()) {
            super::say(&format!("{}: channel.binding: {reason}", args.target));
        }
        let done = match appraisal.clearance() {
            Err(_) => Done::Withheld(appraisal.outcome),
            Ok(clearance) => {
                let key = attested.spki().to_vec();
                match attested.send(clearance, &self.secrets, &self.owner) {
                    Ok(_) => Done::Unlocked(key),
                    Err(error) => Done::NotTaken(error),
                }
            }
        };
        self.tell(out, Some(&appraisal), done)
    }

    /// Writes what an attempt came to.
    fn tell(
        &self,
        out: &mut impl Write,
        appraisal: Option<&Appraisal>,
        done: Done,
    ) -> Result<Done, CliError> {
        let args = self.args;
        let words = match &done {
            Done::Unlocked(_) => format!("{}: took the secret", args.target),
            Done::Withheld(_) => format!("{}: NO SECRET WAS SENT", args.target),
            Done::NoReport(error) => format!("{}: NO SECRET WAS SENT: {error}", args.target),
            Done::NotTaken(error) => format!("{}: did not take the secret: {error}", args.target),
        };
        let words = crate::show::plain(&words);
        let text = if args.json {
            let mut value = appraisal.map_or_else(|| serde_json::json!({}), Appraisal::to_json);
            value["unlocked"] = matches!(done, Done::Unlocked(_)).into();
            value["message"] = (*words).into();
            format!("{value:#}\n")
        } else {
            let findings = appraisal.map(|appraisal| verify::render(appraisal, args.all));
            format!("{}{words}\n", findings.unwrap_or_default())
        };
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .map_err(CliError::Output)?;
        Ok(done)
    }
}

/// A guest that is unlocked whenever it has a new key: a guest makes one whenever it is started.
struct Watch<'a> {
    unlocker: &'a Unlocker<'a>,
    interval: Duration,
    /// The key of the guest that took the secrets.
    unlocked: Option<Vec<u8>>,
    wait: Duration,
    /// What was said last of a guest that can't be reached.
    said: Option<String>,
}

impl<'a> Watch<'a> {
    fn new(unlocker: &'a Unlocker<'a>, interval: Duration) -> Self {
        Self {
            unlocker,
            interval,
            unlocked: None,
            wait: interval,
            said: None,
        }
    }

    /// Looks once, and unlocks where there is something to; answers how long to wait. After refusals
    /// it is longer each time: whoever answers in the guest's place must not keep us busy.
    fn round(&mut self, out: &mut impl Write) -> Result<Duration, CliError> {
        let target = &self.unlocker.args.target;
        match key_of(target) {
            Err(error) => {
                let words = format!("{target}: {error}");
                if self.said.as_ref() != Some(&words) {
                    super::say(&words);
                }
                self.said = Some(words);
                self.wait = self.interval;
            }
            Ok(key) if self.unlocked.as_ref() == Some(&key) => self.wait = self.interval,
            Ok(_) => {
                self.said = None;
                if let Done::Unlocked(key) = self.unlocker.once(out)? {
                    self.unlocked = Some(key);
                    self.wait = self.interval;
                } else {
                    self.wait = (2 * self.wait).min(MAX_WAIT.max(self.interval));
                }
            }
        }
        Ok(self.wait)
    }
}

/// A file with a secret, and a word where others can read it.
fn secret(path: &Path, max: usize) -> Result<Zeroizing<Vec<u8>>, CliError> {
    let bytes = Zeroizing::new(input::read(path, max)?);
    if let Ok(metadata) = path.metadata() {
        if metadata.is_file() && metadata.permissions().mode() & 0o077 != 0 {
            super::say(&format!("{}: others can read it", input::name(path)));
        }
    }
    Ok(bytes)
}

#[cfg(all(test, target_os = "linux"))]
mod tests;
