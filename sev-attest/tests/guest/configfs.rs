//! configfs-tsm against a tree that behaves as Linux' does: attributes appear with the directory,
//! each write counts up `generation`, `outblob` answers what was written last.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use sev_attest::guest::{
    ConfigfsTsm, Files, GuestError, ReportProvider as _, ReportRequest, Tree, Vmpl,
};

use crate::report;

#[derive(Default)]
struct Entry {
    inblob: Vec<u8>,
    level: u32,
    generation: u64,
}

/// What is particular about a kernel.
#[derive(Clone)]
struct Quirks {
    mounted: bool,
    make_error: Option<i32>,
    provider: &'static str,
    floor: Option<u32>,
    /// Other processes that write to the request, once each, after the question was put.
    intruders: u32,
    /// Whether the kernel notices the intruder itself and says EAGAIN.
    would_block: bool,
    table: Vec<u8>,
    /// The report is made of this instead of the question.
    other_data: bool,
    padding: Vec<u8>,
    cut: usize,
    out_error: Option<ErrorKind>,
}

impl Default for Quirks {
    fn default() -> Self {
        Self {
            mounted: true,
            make_error: None,
            provider: "sev_guest\n",
            floor: Some(0),
            intruders: 0,
            would_block: false,
            table: b"table".to_vec(),
            other_data: false,
            padding: Vec::new(),
            cut: 0x4a0,
            out_error: None,
        }
    }
}

#[derive(Default)]
struct State {
    quirks: Quirks,
    entries: BTreeMap<PathBuf, Entry>,
    made: Vec<PathBuf>,
    log: Vec<String>,
}

#[derive(Clone)]
struct Kernel(Rc<RefCell<State>>);

fn split(path: &Path) -> (PathBuf, String) {
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    (path.parent().unwrap().to_owned(), name)
}

impl Tree for Kernel {
    fn make(&mut self, path: &Path) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        if let Some(errno) = state.quirks.make_error {
            return Err(io::Error::from_raw_os_error(errno));
        }
        state.made.push(path.to_owned());
        match state.entries.insert(path.to_owned(), Entry::default()) {
            None => Ok(()),
            Some(_) => Err(ErrorKind::AlreadyExists.into()),
        }
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        let removed = self.0.borrow_mut().entries.remove(path);
        removed.map(drop).ok_or(ErrorKind::NotFound.into())
    }

    fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        let (parent, name) = split(path);
        let state = &mut *self.0.borrow_mut();
        state.log.push(format!("read {name}"));
        let entry = state.entries.get_mut(&parent).ok_or(ErrorKind::NotFound)?;
        let quirks = &mut state.quirks;
        Ok(match name.as_str() {
            "provider" => quirks.provider.into(),
            "generation" => format!("{}\n", entry.generation).into(),
            "privlevel_floor" => match quirks.floor {
                Some(floor) => format!("{floor}\n").into(),
                None => return Err(ErrorKind::NotFound.into()),
            },
            "auxblob" => quirks.table.clone(),
            "outblob" => {
                if let Some(kind) = quirks.out_error {
                    return Err(kind.into());
                }
                if quirks.intruders > 0 {
                    quirks.intruders -= 1;
                    entry.generation += 1;
                    entry.inblob = vec![0xee; 64];
                    if quirks.would_block {
                        return Err(ErrorKind::WouldBlock.into());
                    }
                }
                let mut data: [u8; 64] = entry.inblob.clone().try_into().unwrap();
                if quirks.other_data {
                    data[63] ^= 1;
                }
                let mut bytes = report(&data, entry.level);
                bytes.truncate(quirks.cut);
                bytes.extend_from_slice(&quirks.padding);
                bytes
            }
            _ => return Err(ErrorKind::NotFound.into()),
        })
    }

    fn write(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let (parent, name) = split(path);
        let state = &mut *self.0.borrow_mut();
        state.log.push(format!("write {name}"));
        let entry = state.entries.get_mut(&parent).ok_or(ErrorKind::NotFound)?;
        match name.as_str() {
            "inblob" => entry.inblob = bytes.to_vec(),
            "privlevel" => {
                entry.level = String::from_utf8(bytes.to_vec()).unwrap().parse().unwrap();
                if state.quirks.floor.is_some_and(|floor| entry.level < floor) {
                    return Err(ErrorKind::InvalidInput.into());
                }
            }
            _ => return Err(ErrorKind::PermissionDenied.into()),
        }
        entry.generation += 1;
        Ok(())
    }

    fn is_directory(&self, _: &Path) -> bool {
        self.0.borrow().quirks.mounted
    }
}

const DATA: [u8; 64] = [0x5a; 64];

/// Report and table, or why not.
type Answer = Result<(Vec<u8>, Vec<u8>), GuestError>;

/// What comes of a request, and what it leaves behind.
fn ask(quirks: Quirks, vmpl: Option<u8>, extended: bool) -> (Answer, Vec<String>) {
    let kernel = Kernel(Rc::default());
    kernel.0.borrow_mut().quirks = quirks;
    let mut provider = ConfigfsTsm::new("/tsm".into(), kernel.clone());
    let request = ReportRequest {
        data: DATA,
        vmpl: vmpl.map(|level| Vmpl::new(level).unwrap()),
        extended,
    };
    let answer = provider.report(&request);
    let state = kernel.0.borrow();
    assert!(state.entries.is_empty(), "a request was left behind");
    assert!(state.made.iter().all(|path| path.starts_with("/tsm")));
    let answer = answer.map(|answer| (answer.report.as_bytes().to_vec(), answer.table));
    (answer, state.log.clone())
}

#[test]
fn a_report() {
    let (answer, log) = ask(Quirks::default(), None, false);
    assert_eq!(answer.unwrap(), (report(&DATA, 0), Vec::new()));
    assert_eq!(
        log,
        [
            "read provider",
            "read privlevel_floor",
            "read generation",
            "write privlevel",
            "write inblob",
            "read outblob",
            "read generation",
        ]
    );
    let (answer, log) = ask(Quirks::default(), Some(2), true);
    assert_eq!(answer.unwrap(), (report(&DATA, 2), b"table".to_vec()));
    assert!(log.contains(&"read auxblob".to_owned()));
}

#[test]
fn the_level_is_the_kernels_own_unless_asked() {
    let floor = |floor| Quirks {
        floor,
        ..Quirks::default()
    };
    assert_eq!(
        ask(floor(Some(2)), None, false).0.unwrap().0,
        report(&DATA, 2)
    );
    assert_eq!(ask(floor(None), None, false).0.unwrap().0, report(&DATA, 0));
    let (answer, _) = ask(floor(Some(2)), Some(1), false);
    assert!(matches!(answer, Err(GuestError::File { path, .. }) if path.ends_with("privlevel")));
}

#[test]
fn a_race_is_noticed_and_tried_again() {
    for would_block in [false, true] {
        let raced = |intruders| Quirks {
            intruders,
            would_block,
            ..Quirks::default()
        };
        assert_eq!(ask(raced(2), None, true).0.unwrap().0, report(&DATA, 0));
        let (answer, _) = ask(raced(3), None, true);
        assert!(matches!(answer, Err(GuestError::Raced { attempts: 3, .. })));
    }
}

#[test]
fn answers_to_other_questions_are_refused() {
    let wrong = |change: fn(&mut Quirks)| {
        let mut quirks = Quirks::default();
        change(&mut quirks);
        ask(quirks, None, false).0.unwrap_err()
    };
    let error = wrong(|quirks| quirks.other_data = true);
    assert!(
        matches!(error, GuestError::OtherAnswer("report data")),
        "{error}"
    );
    let error = wrong(|quirks| quirks.cut = 0x49f);
    assert!(matches!(error, GuestError::ShortReport(0x49f)), "{error}");
    let error = wrong(|quirks| quirks.cut = 0);
    assert!(matches!(error, GuestError::ShortReport(0)), "{error}");
    let error = wrong(|quirks| quirks.padding = vec![0, 1]);
    assert!(matches!(error, GuestError::ShortReport(0x4a2)), "{error}");
    let error = wrong(|quirks| quirks.out_error = Some(ErrorKind::PermissionDenied));
    assert!(matches!(error, GuestError::File { .. }), "{error}");
    // zeros after the report are the kernel's buffer
    let padded = Quirks {
        padding: vec![0; 100],
        ..Quirks::default()
    };
    assert_eq!(ask(padded, None, false).0.unwrap().0, report(&DATA, 0));
}

#[test]
fn whose_reports_they_are_is_asked_first() {
    let serves = |quirks| {
        let kernel = Kernel(Rc::default());
        kernel.0.borrow_mut().quirks = quirks;
        let answer = ConfigfsTsm::new("/tsm".into(), kernel.clone()).serves();
        assert!(
            kernel.0.borrow().entries.is_empty(),
            "a request was left behind"
        );
        answer
    };
    serves(Quirks::default()).unwrap();
    let tdx = Quirks {
        provider: "tdx_guest\n",
        ..Quirks::default()
    };
    assert!(matches!(serves(tdx), Err(GuestError::OtherProvider(_))));
    let unregistered = Quirks {
        make_error: Some(6),
        ..Quirks::default()
    };
    assert!(matches!(
        serves(unregistered),
        Err(GuestError::NoProvider(_))
    ));
}

#[test]
fn no_guest() {
    let none = Quirks {
        mounted: false,
        ..Quirks::default()
    };
    assert!(matches!(
        ask(none, None, false).0,
        Err(GuestError::NoConfigfs(_))
    ));
    let unregistered = Quirks {
        make_error: Some(6),
        ..Quirks::default()
    };
    assert!(matches!(
        ask(unregistered, None, false).0,
        Err(GuestError::NoProvider(_))
    ));
    let refused = Quirks {
        make_error: Some(13),
        ..Quirks::default()
    };
    assert!(matches!(
        ask(refused, None, false).0,
        Err(GuestError::File { .. })
    ));
    let tdx = Quirks {
        provider: "tdx_guest\n",
        ..Quirks::default()
    };
    let (answer, log) = ask(tdx, None, false);
    assert!(matches!(answer, Err(GuestError::OtherProvider(name)) if name == "tdx_guest"));
    assert_eq!(log, ["read provider"]);
}

#[test]
fn plain_files_are_written_as_attributes_are() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("inblob");
    // an attribute is never made by writing it
    assert!(Files.write(&file, b"x").is_err());
    std::fs::write(&file, b"").unwrap();
    Files.write(&file, &DATA).unwrap();
    assert_eq!(Files.read(&file).unwrap(), DATA);
    let made = directory.path().join("request");
    Files.make(&made).unwrap();
    assert!(Files.is_directory(&made) && Files.make(&made).is_err());
    Files.remove(&made).unwrap();
    assert!(!Files.is_directory(&made));
    // a directory is no provider: nothing appears in it, and nothing is left in it
    let root = directory.path().to_owned();
    let request = ReportRequest {
        data: DATA,
        vmpl: None,
        extended: false,
    };
    let answer = ConfigfsTsm::new(root.clone(), Files).report(&request);
    assert!(matches!(answer, Err(GuestError::File { path, .. }) if path.ends_with("provider")));
    assert_eq!(std::fs::read_dir(root).unwrap().count(), 1);
}
