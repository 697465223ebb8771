//! How a test says that it cannot run on this machine.
//!
//! `make test` collects what was skipped and fails when `tests/skips.txt` does not allow it, so no
//! test passes without having run.
//!
//! ```no_run
//! fn test_of_kvm() {
//!     let Ok(_kvm) = std::fs::File::open("/dev/no-such-device") else {
//!         skip::skip!("kvm", "/dev/kvm cannot be opened");
//!     };
//! }
//! test_of_kvm();
//! ```

use std::{env, fs::OpenOptions, io::Write as _};

/// The file to which skipped tests are appended, one line each: what, tab, test, tab, why.
pub const RECORD: &str = "CRN_SKIPS";

/// Ends the test. `what` names the thing that this machine lacks, as in `tests/skips.txt` after
/// the package's name; the rest is formatted as the reason.
#[macro_export]
macro_rules! skip {
    ($what:literal, $($why:tt)+) => {{
        $crate::record(concat!(env!("CARGO_PKG_NAME"), "/", $what), &format!($($why)+));
        return;
    }};
}

/// Prints that this thread's test is skipped, and adds it to the record if there is one.
///
/// # Panics
/// When the record cannot be written.
#[allow(clippy::print_stdout, reason = "the test harness shows it")]
pub fn record(what: &str, why: &str) {
    println!("skipped: {what}: {why}");
    let Some(path) = env::var_os(RECORD) else {
        return;
    };
    let thread = std::thread::current();
    let test = env::var("NEXTEST_TEST_NAME").ok();
    let test = test.as_deref().or(thread.name()).unwrap_or("?");
    let line = format!("{what}\t{test}\t{}\n", why.replace(['\n', '\t'], " "));
    let mut file = OpenOptions::new().create(true).append(true).open(&path);
    let written = file.as_mut().map(|file| file.write_all(line.as_bytes()));
    assert!(
        matches!(written, Ok(Ok(()))),
        "{}: {written:?}",
        path.display()
    );
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    /// In a process of its own: the environment is the process's.
    #[test]
    #[ignore = "run by a_skip_ends_the_test_and_is_recorded"]
    fn one_that_skips() {
        skip!("a thing", "not\nthere: {}", 7);
        #[allow(unreachable_code, reason = "this is what is tested")]
        {
            panic!("it went on");
        }
    }

    #[test]
    fn a_skip_ends_the_test_and_is_recorded() {
        let path = env!("CARGO_MANIFEST_DIR").replace('/', "_");
        let path = std::env::temp_dir().join(format!("skips{path}-{}", std::process::id()));
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tests::one_that_skips", "--ignored"])
            .env(super::RECORD, &path)
            .env_remove("NEXTEST_TEST_NAME")
            .status()
            .unwrap();
        let recorded = fs::read_to_string(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(status.success());
        assert_eq!(
            recorded,
            "skip/a thing\ttests::one_that_skips\tnot there: 7\n"
        );
    }
}
