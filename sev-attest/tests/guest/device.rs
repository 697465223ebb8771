//! /dev/sev-guest against a driver that answers by a script.

use std::io;

use sev_attest::guest::{
    Driver, Failure, GuestError, KeyRequest, ReportProvider as _, ReportRequest, RootKey, SevGuest,
    Vmpl,
};

use crate::report;

type Response = Box<[u8; 4000]>;

/// A security processor, and a host that wants these table lengths one after another.
#[derive(Default)]
struct Simulated {
    status: u32,
    report_size: Option<u32>,
    flip_data: bool,
    failure: Option<(i32, u32, u32)>,
    table_lens: Vec<u32>,
    calls: Vec<usize>,
    key_request: Vec<u8>,
}

impl Simulated {
    fn fail(&self) -> Result<(), Failure> {
        match self.failure {
            None => Ok(()),
            Some((errno, firmware, host)) => Err(Failure {
                error: io::Error::from_raw_os_error(errno),
                firmware,
                host,
                table_len: 0,
            }),
        }
    }
}

impl Driver for &mut Simulated {
    fn report(&mut self, request: &[u8; 96]) -> Result<Response, Failure> {
        self.fail()?;
        let mut data: [u8; 64] = request[..64].try_into().unwrap();
        data[0] ^= u8::from(self.flip_data);
        let level = u32::from_le_bytes(request[64..68].try_into().unwrap());
        assert!(request[68..].iter().all(|byte| *byte == 0));
        let mut response = Box::new([0; 4000]);
        response[..4].copy_from_slice(&self.status.to_le_bytes());
        response[4..8].copy_from_slice(&self.report_size.unwrap_or(0x4a0).to_le_bytes());
        response[32..32 + 0x4a0].copy_from_slice(&report(&data, level));
        Ok(response)
    }

    fn extended(&mut self, request: &[u8; 96], table: &mut [u8]) -> Result<Response, Failure> {
        self.calls.push(table.len());
        self.fail()?;
        let wanted = match self.table_lens.as_slice() {
            [] => return self.report(request),
            [last] => *last,
            [..] => self.table_lens.remove(0),
        };
        if (table.len() as u32) < wanted {
            return Err(Failure {
                error: io::Error::from_raw_os_error(28),
                firmware: 0,
                host: 1,
                table_len: wanted,
            });
        }
        table[..5].copy_from_slice(b"table");
        self.report(request)
    }

    fn derived_key(&mut self, request: &[u8; 32]) -> Result<Box<[u8; 64]>, Failure> {
        self.fail()?;
        self.key_request = request.to_vec();
        let mut response = Box::new([0x77; 64]);
        response[..4].copy_from_slice(&self.status.to_le_bytes());
        Ok(response)
    }
}

const REQUEST: ReportRequest = ReportRequest {
    data: [0x5a; 64],
    vmpl: None,
    extended: false,
};

fn extended() -> ReportRequest {
    ReportRequest {
        vmpl: Vmpl::new(3),
        extended: true,
        ..REQUEST
    }
}

#[test]
fn a_report() {
    let mut simulated = Simulated::default();
    let answer = SevGuest::new(&mut simulated).report(&REQUEST).unwrap();
    assert_eq!(answer.to_bytes(), report(&REQUEST.data, 0));
    assert!(simulated.calls.is_empty());
}

#[test]
fn an_extended_report() {
    // no table at all: one call
    let mut simulated = Simulated::default();
    let answer = SevGuest::new(&mut simulated).report(&extended()).unwrap();
    assert_eq!((answer.table.len(), &simulated.calls[..]), (0, &[0][..]));
    // the host says its length; buffers are whole pages
    for (wanted, pages) in [(1, 1), (4096, 1), (4097, 2), (0x4000, 4)] {
        let mut simulated = Simulated {
            table_lens: vec![wanted],
            ..Simulated::default()
        };
        let answer = SevGuest::new(&mut simulated).report(&extended()).unwrap();
        assert_eq!(simulated.calls, [0, pages * 4096]);
        assert!(answer.table.starts_with(b"table"));
        assert!(answer.to_bytes().starts_with(&report(&REQUEST.data, 3)));
    }
    // it grew between the calls
    let mut simulated = Simulated {
        table_lens: vec![4096, 8192],
        ..Simulated::default()
    };
    SevGuest::new(&mut simulated).report(&extended()).unwrap();
    assert_eq!(simulated.calls, [0, 4096, 8192]);
}

#[test]
fn a_host_that_plays_with_lengths() {
    let mut simulated = Simulated {
        table_lens: vec![u32::MAX],
        ..Simulated::default()
    };
    let error = SevGuest::new(&mut simulated)
        .report(&extended())
        .unwrap_err();
    assert!(
        matches!(error, GuestError::TableTooLong(u32::MAX)),
        "{error}"
    );
    let lens = vec![4096, 8192, 12288, 16384];
    let mut simulated = Simulated {
        table_lens: lens,
        ..Simulated::default()
    };
    let error = SevGuest::new(&mut simulated)
        .report(&extended())
        .unwrap_err();
    assert!(matches!(error, GuestError::Refused { .. }), "{error}");
    assert_eq!(simulated.calls.len(), 3);
}

#[test]
fn refusals_say_who_refused() {
    for (failure, words) in [
        ((5, 0x16, 0), ["firmware error 0x16", "os error 5"]),
        ((11, 0, 2), ["the host is busy", "os error 11"]),
        ((5, 0, 9), ["host error 0x9", "os error 5"]),
        ((25, 0, 0), ["SNP_GET_REPORT", "os error 25"]),
    ] {
        let mut simulated = Simulated {
            failure: Some(failure),
            ..Simulated::default()
        };
        let said = SevGuest::new(&mut simulated)
            .report(&REQUEST)
            .unwrap_err()
            .to_string();
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }
    for (status, word) in [(0x16, "parameters"), (0x27, "key"), (0x99, "0x99")] {
        let mut simulated = Simulated {
            status,
            ..Simulated::default()
        };
        let said = SevGuest::new(&mut simulated)
            .report(&REQUEST)
            .unwrap_err()
            .to_string();
        assert!(said.contains(word), "{said}");
    }
}

#[test]
fn answers_to_other_questions_are_refused() {
    let mut simulated = Simulated {
        flip_data: true,
        ..Simulated::default()
    };
    let error = SevGuest::new(&mut simulated).report(&REQUEST).unwrap_err();
    assert!(
        matches!(error, GuestError::OtherAnswer("report data")),
        "{error}"
    );
    for size in [0, 0x49f, 0x4a1, u32::MAX] {
        let mut simulated = Simulated {
            report_size: Some(size),
            ..Simulated::default()
        };
        let error = SevGuest::new(&mut simulated).report(&REQUEST).unwrap_err();
        assert!(matches!(error, GuestError::ShortReport(_)), "{error}");
    }
}

#[test]
fn a_key() {
    let request = KeyRequest {
        root: RootKey::Vmrk,
        fields: 0b10_1001,
        vmpl: Vmpl::new(2).unwrap(),
        guest_svn: 0x0403_0201,
        tcb: 0x0807_0605_0403_0201,
    };
    let mut simulated = Simulated::default();
    let key = SevGuest::new(&mut simulated).derive_key(&request).unwrap();
    assert_eq!(key.0, [0x77; 32]);
    assert_eq!(format!("{key:?}"), "DerivedKey");
    let expected = "01000000000000002900000000000000020000000102030401020304\
                    05060708";
    assert_eq!(hex::encode(&simulated.key_request), expected);
    let mut simulated = Simulated {
        status: 0x27,
        ..Simulated::default()
    };
    assert!(SevGuest::new(&mut simulated).derive_key(&request).is_err());
}
