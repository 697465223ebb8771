//! `/dev/sev-guest` (Linux, include/uapi/linux/sev-guest.h).
//!
//! The crate `sev` has these calls too, but its extended report walks the host's certificate table
//! by pointer until a zero GUID, past the buffer's end if the host leaves that out; it hands out
//! parsed entries instead of the table's bytes; and a failed call loses the system's error. So the
//! three calls are made here, on buffers of known length, and nothing in them is followed.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::ioctl::{self, Opcode, Updater, opcode};

use super::error::GuestError;
use super::{DerivedKey, GuestReport, KeyRequest, ReportProvider, ReportRequest, RootKey, Vmpl};
use crate::report::REPORT_LEN;

/// The device.
pub const DEVICE: &str = "/dev/sev-guest";

const PAGE: u32 = 4096;
/// Longest certificate table that is asked for; Linux hands on at most 16 KiB.
const MAX_TABLE: u32 = 1 << 20;
/// `SNP_GUEST_VMM_ERR_INVALID_LEN`: the buffer for certificates is too short.
const INVALID_LEN: u32 = 1;
/// `SNP_GUEST_VMM_ERR_BUSY`.
const BUSY: u32 = 2;

/// `struct snp_report_req`.
type ReportReq = [u8; 96];
/// `struct snp_report_resp`.
type ReportResp = [u8; 4000];
/// `struct snp_derived_key_req`.
type KeyReq = [u8; 32];
/// `struct snp_derived_key_resp`.
type KeyResp = [u8; 64];

/// A failed call: the system's error, and the words of firmware and host.
#[derive(Debug)]
pub struct Failure {
    /// The system's error.
    pub error: io::Error,
    /// Firmware's, 0 for none.
    pub firmware: u32,
    /// The host's, 0 for none.
    pub host: u32,
    /// For a too short buffer: the length that the host wants, in bytes.
    pub table_len: u32,
}

/// The three calls, as bytes. The one other implementation is that of the tests.
pub trait Driver {
    /// `SNP_GET_REPORT`.
    ///
    /// # Errors
    /// As the call.
    fn report(&mut self, request: &ReportReq) -> Result<Box<ReportResp>, Failure>;
    /// `SNP_GET_EXT_REPORT`, with a buffer for certificates of whole pages or none.
    ///
    /// # Errors
    /// As the call.
    fn extended(
        &mut self,
        request: &ReportReq,
        table: &mut [u8],
    ) -> Result<Box<ReportResp>, Failure>;
    /// `SNP_GET_DERIVED_KEY`.
    ///
    /// # Errors
    /// As the call.
    fn derived_key(&mut self, request: &KeyReq) -> Result<Box<KeyResp>, Failure>;
}

/// Reports and keys by the device.
#[derive(Debug)]
pub struct SevGuest<D = Device> {
    driver: D,
}

/// The open device.
#[derive(Debug)]
pub struct Device(File);

impl SevGuest {
    /// Opens the device.
    ///
    /// # Errors
    /// [`GuestError::NoDevice`] where there is none.
    pub fn open(path: &Path) -> Result<Self, GuestError> {
        match File::options().read(true).write(true).open(path) {
            Ok(file) => Ok(Self::new(Device(file))),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound) => {
                Err(GuestError::NoDevice(path.to_owned()))
            }
            Err(source) => Err(GuestError::File {
                path: path.to_owned(),
                source,
            }),
        }
    }
}

impl<D: Driver> SevGuest<D> {
    /// Calls go to `driver`.
    #[must_use]
    pub fn new(driver: D) -> Self {
        Self { driver }
    }

    /// Derives a key that only this guest, on this chip or provider, can derive again.
    ///
    /// # Errors
    /// Where the security processor refuses.
    pub fn derive_key(&mut self, request: &KeyRequest) -> Result<DerivedKey, GuestError> {
        const WHAT: &str = "SNP_GET_DERIVED_KEY";
        let mut message: KeyReq = [0; 32];
        message[0] = match request.root {
            RootKey::Vcek => 0,
            RootKey::Vmrk => 1,
        };
        message[8..16].copy_from_slice(&request.fields.to_le_bytes());
        message[16..20].copy_from_slice(&u32::from(request.vmpl.level()).to_le_bytes());
        message[20..24].copy_from_slice(&request.guest_svn.to_le_bytes());
        message[24..32].copy_from_slice(&request.tcb.to_le_bytes());
        let answer = self.driver.derived_key(&message);
        let answer = answer.map_err(|failure| refused(WHAT, &failure))?;
        status(WHAT, &answer[..])?;
        let mut key = [0; 32];
        key.copy_from_slice(&answer[32..]);
        Ok(DerivedKey(key))
    }

    /// The extended report: the host says how long its table is, which may change between the two
    /// calls.
    fn extended(&mut self, message: &ReportReq) -> Result<(Box<ReportResp>, Vec<u8>), GuestError> {
        const WHAT: &str = "SNP_GET_EXT_REPORT";
        let mut table = Vec::new();
        for _ in 0..3 {
            match self.driver.extended(message, &mut table) {
                Ok(answer) => return Ok((answer, table)),
                Err(failure) if failure.host == INVALID_LEN => {
                    let pages = failure.table_len.div_ceil(PAGE).max(1);
                    let len = pages.saturating_mul(PAGE);
                    if len > MAX_TABLE {
                        return Err(GuestError::TableTooLong(failure.table_len));
                    }
                    table = vec![0; len as usize];
                }
                Err(failure) => return Err(refused(WHAT, &failure)),
            }
        }
        Err(GuestError::Refused {
            request: WHAT,
            reason: "the host's certificate table changes its length at each call".to_owned(),
        })
    }
}

impl<D: Driver> ReportProvider for SevGuest<D> {
    fn name(&self) -> String {
        DEVICE.to_owned()
    }

    fn report(&mut self, request: &ReportRequest) -> Result<GuestReport, GuestError> {
        const WHAT: &str = "SNP_GET_REPORT";
        let mut message: ReportReq = [0; 96];
        message[..64].copy_from_slice(&request.data);
        message[64] = request.vmpl.map_or(0, Vmpl::level);
        let (answer, table) = if request.extended {
            self.extended(&message)?
        } else {
            let answer = self.driver.report(&message);
            let answer = answer.map_err(|failure| refused(WHAT, &failure))?;
            (answer, Vec::new())
        };
        status(WHAT, &answer[..])?;
        let len = u32::from_le_bytes([answer[4], answer[5], answer[6], answer[7]]);
        if usize::try_from(len) != Ok(REPORT_LEN) {
            return Err(GuestError::ShortReport(len as usize));
        }
        GuestReport::checked(&answer[32..32 + REPORT_LEN], table, request)
    }
}

/// The firmware's status word at the start of each answer.
fn status(request: &'static str, answer: &[u8]) -> Result<(), GuestError> {
    let reason = match *answer {
        [0, 0, 0, 0, ..] => return Ok(()),
        [0x16, 0, 0, 0, ..] => "the security processor finds the parameters invalid".to_owned(),
        [0x27, 0, 0, 0, ..] => "the key asked for is not to be had here".to_owned(),
        [a, b, c, d, ..] => format!("status {:#x}", u32::from_le_bytes([a, b, c, d])),
        _ => "no answer".to_owned(),
    };
    Err(GuestError::Refused { request, reason })
}

fn refused(request: &'static str, failure: &Failure) -> GuestError {
    let mut reason = failure.error.to_string();
    if failure.firmware != 0 {
        reason = format!("firmware error {:#x}; {reason}", failure.firmware);
    }
    if failure.host == BUSY {
        reason = format!("the host is busy; {reason}");
    } else if failure.host != 0 {
        reason = format!("host error {:#x}; {reason}", failure.host);
    }
    GuestError::Refused { request, reason }
}

/// `struct snp_guest_request_ioctl`.
#[repr(C)]
struct Call {
    version: u8,
    request: u64,
    response: u64,
    firmware: u32,
    host: u32,
}

/// `struct snp_ext_report_req`.
#[repr(C)]
struct Extended {
    data: ReportReq,
    certs_address: u64,
    certs_len: u32,
}

// the sizes of the kernel's structures
const _: () = assert!(size_of::<Call>() == 32 && size_of::<Extended>() == 112);

const GET_REPORT: Opcode = opcode::read_write::<Call>(b'S', 0);
const GET_DERIVED_KEY: Opcode = opcode::read_write::<Call>(b'S', 1);
const GET_EXT_REPORT: Opcode = opcode::read_write::<Call>(b'S', 2);

impl Device {
    /// Makes one of the three calls. `Req` and `Resp` are the structures that its opcode goes with.
    #[allow(
        unsafe_code,
        reason = "the kernel reads and writes through two addresses in the message"
    )]
    fn call<const OPCODE: Opcode, Req, Resp>(
        &self,
        request: &mut Req,
        response: &mut Resp,
    ) -> Result<(), Failure> {
        let mut call = Call {
            version: 1,
            request: std::ptr::from_mut(request) as u64,
            response: std::ptr::from_mut(response) as u64,
            firmware: 0,
            host: 0,
        };
        // SAFETY: each of the three opcodes takes a `Call`. What its addresses lead to is borrowed
        // for as long as the call takes, and has the size that the kernel copies.
        let result = unsafe {
            let updater = Updater::<OPCODE, Call>::new(&mut call);
            ioctl::ioctl(self.0.as_fd(), updater)
        };
        result.map_err(|error| Failure {
            error: error.into(),
            firmware: call.firmware,
            host: call.host,
            table_len: 0,
        })
    }
}

impl Driver for Device {
    fn report(&mut self, request: &ReportReq) -> Result<Box<ReportResp>, Failure> {
        let mut response = Box::new([0; 4000]);
        self.call::<GET_REPORT, _, _>(&mut { *request }, &mut *response)?;
        Ok(response)
    }

    fn extended(
        &mut self,
        request: &ReportReq,
        table: &mut [u8],
    ) -> Result<Box<ReportResp>, Failure> {
        let mut response = Box::new([0; 4000]);
        let mut message = Extended {
            data: *request,
            certs_address: table.as_mut_ptr() as u64,
            // no longer than MAX_TABLE
            certs_len: u32::try_from(table.len()).unwrap_or(0),
        };
        let result = self.call::<GET_EXT_REPORT, _, _>(&mut message, &mut *response);
        result.map_err(|failure| Failure {
            table_len: message.certs_len,
            ..failure
        })?;
        Ok(response)
    }

    fn derived_key(&mut self, request: &KeyReq) -> Result<Box<KeyResp>, Failure> {
        let mut response = Box::new([0; 64]);
        self.call::<GET_DERIVED_KEY, _, _>(&mut { *request }, &mut *response)?;
        Ok(response)
    }
}
