//! A guest on loopback whose processor is simulated.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use p384::ecdsa::SigningKey;
use sev_attest::product::Product;
use sev_attest_issuer::{Issuer, Leaf, ReportSpec, table};
use zeroize::Zeroizing;

use crate::appraise::{Appraisal, appraise_evidence};
use crate::assemble;
use crate::channel::Secrets;
use crate::channel::ethereum::OwnerKey;
use crate::endpoint::serve::{BootKey, Config, Server, Sink, SinkError, Versions};
use crate::endpoint::unlock::{Attested, Target, UnlockError};
use crate::guest::{GuestError, GuestReport, ReportProvider, ReportRequest};
use crate::hex_bytes::HexBytes;
use crate::policy::Policy;
use crate::report::Report;
use crate::time::UnixTime;

/// The simulated firmware: signs what the guest asks for, as `bend` lets it.
pub(crate) struct Firmware {
    pub(crate) spec: ReportSpec,
    issuer: Issuer,
    leaf: Leaf,
    /// What the firmware is told, and what becomes of it.
    pub(crate) bend: Box<dyn FnMut(&mut ReportSpec) + Send>,
}

impl Firmware {
    pub(crate) fn of(spec: ReportSpec) -> Self {
        let issuer = Issuer::new(spec.product);
        Self {
            leaf: issuer.vcek(&spec),
            issuer,
            spec,
            bend: Box::new(|_| {}),
        }
    }

    /// The processor of a sound guest.
    pub(crate) fn sound() -> Self {
        Self::of(ReportSpec::new(Product::Genoa))
    }
}

impl ReportProvider for Firmware {
    fn name(&self) -> String {
        "simulated firmware".to_owned()
    }

    fn report(&mut self, request: &ReportRequest) -> Result<GuestReport, GuestError> {
        let mut spec = self.spec.clone();
        spec.report_data = request.data;
        (self.bend)(&mut spec);
        let report = Report::parse(&self.leaf.sign(spec.to_bytes()))?;
        let table = match request.extended {
            false => Vec::new(),
            true => table::table(&[
                (table::VCEK, &self.leaf.der),
                (table::ASK, &self.issuer.ask),
                (table::ARK, &self.issuer.ark),
            ]),
        };
        Ok(GuestReport { report, table })
    }
}

/// What a guest was given.
#[derive(Clone, Default)]
pub(crate) struct Taken(Arc<Mutex<Vec<Secrets>>>);

impl Taken {
    pub(crate) fn all(&self) -> Vec<Secrets> {
        self.0.lock().unwrap().clone()
    }
}

impl Sink for Taken {
    fn take(&mut self, secrets: &Secrets) -> Result<(), SinkError> {
        self.0.lock().unwrap().push(secrets.clone());
        Ok(())
    }
}

/// The owner of all guests here.
pub(crate) fn owner() -> OwnerKey {
    OwnerKey::from_text(OWNER).unwrap()
}

pub(crate) const OWNER: &str = "4242424242424242424242424242424242424242424242424242424242424242";

/// A TLS key that is known.
pub(crate) fn key(byte: u8) -> BootKey {
    BootKey::of(SigningKey::from_slice(&[byte; 48]).unwrap()).unwrap()
}

/// A guest's configuration.
pub(crate) fn config(firmware: Firmware, taken: &Taken) -> Config {
    Config {
        owner: owner().address(),
        versions: Versions::Both,
        tls12: false,
        vmpl: None,
        reports: Box::new(firmware),
        sink: Box::new(taken.clone()),
        listener: Box::new(|_| {}),
    }
}

pub(crate) struct Guest {
    pub(crate) server: Server,
    pub(crate) target: Target,
    pub(crate) taken: Taken,
}

impl Guest {
    /// Starts with `key`, at a port of its own.
    pub(crate) fn start(config: Config, key: BootKey, taken: Taken) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        Self {
            server: Server::with_key(config, vec![listener], key).unwrap(),
            target: Target::Tcp("127.0.0.1".to_owned(), port),
            taken,
        }
    }

    pub(crate) fn with(firmware: Firmware) -> Self {
        let taken = Taken::default();
        Self::start(
            config(firmware, &taken),
            BootKey::generate().unwrap(),
            taken,
        )
    }

    /// A sound guest.
    pub(crate) fn sound() -> Self {
        Self::with(Firmware::sound())
    }

    /// A guest that speaks one version alone: the second, or what today's guests speak.
    pub(crate) fn speaking(version: u8, firmware: Firmware) -> Self {
        let taken = Taken::default();
        let mut config = config(firmware, &taken);
        config.versions = match version {
            1 => Versions::V1,
            _ => Versions::V2,
        };
        Self::start(config, BootKey::generate().unwrap(), taken)
    }
}

/// The policy that a sound guest meets.
pub(crate) fn policy() -> Policy {
    Policy {
        measurement: vec![HexBytes([0x3e; 48])],
        host_data: vec![HexBytes([0x40; 32])],
        allow_foreign_root: true,
        ..Policy::default()
    }
}

pub(crate) fn secrets() -> Secrets {
    let value = Zeroizing::new(b"correct horse".to_vec());
    Secrets::one("luks_passphrase", value).unwrap()
}

/// Judges a connection as `unlock` does.
pub(crate) fn judge(attested: &Attested, policy: &Policy) -> Appraisal {
    let (evidence, now) = (&attested.evidence, UnixTime::now());
    // Version 1 brings no certificates; they are the issuer's, whoever asks for them.
    let mut bundle = evidence.bundle.clone();
    let firmware = Firmware::sound();
    for der in [firmware.leaf.der, firmware.issuer.ask, firmware.issuer.ark] {
        let certificate = crate::cert::Certificate::parse(&der).unwrap();
        bundle.certificates.push(certificate);
    }
    let chain = assemble::chain(&evidence.report, &bundle, now);
    appraise_evidence(evidence, chain.as_ref(), &attested.policy(policy), now)
}

/// Asks, judges and sends: what was failed, or what the guest took.
pub(crate) fn unlock(
    target: &Target,
    policy: &Policy,
    allow_v1: bool,
) -> Result<Vec<String>, Failed> {
    let attested = Attested::ask(target, allow_v1).map_err(Failed::Error)?;
    let appraisal = judge(&attested, policy);
    match appraisal.clearance() {
        Ok(clearance) => attested
            .send(clearance, &secrets(), &owner())
            .map_err(Failed::Error),
        Err(_) => Err(Failed::Checks(
            appraisal.failures().map(|f| f.id.to_string()).collect(),
        )),
    }
}

#[derive(Debug)]
pub(crate) enum Failed {
    /// The checks that failed.
    Checks(Vec<String>),
    #[allow(dead_code, reason = "shown where a test fails")]
    Error(UnlockError),
}

/// Refused for exactly these checks, and nothing was sent.
#[track_caller]
pub(crate) fn refused_for(found: Result<Vec<String>, Failed>, checks: &[&str]) {
    match found {
        Err(Failed::Checks(found)) => assert_eq!(found, checks),
        other => panic!("{other:?}, not refused for {checks:?}"),
    }
}
