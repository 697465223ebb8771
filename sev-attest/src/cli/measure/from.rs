//! `sev-attest measure --from`: a host's `launch.json`, recomputed from the owner's own files.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use super::output::encode;
use super::{MeasureArgs, MeasureCommandError, file, read};
use crate::measure::{FileRecord, LaunchRecord, MAX_FIRMWARE, RecordError, sha256_reader};

/// Largest `launch.json` read, in bytes.
const MAX_RECORD: u64 = 1 << 20;

/// Writes the launch digest if it follows from the files that are given and from what the record
/// says. Every file that differs is told.
pub(super) fn run(
    args: &MeasureArgs,
    from: &Path,
    out: &mut impl Write,
) -> Result<(), MeasureCommandError> {
    let failed = |error| MeasureCommandError::Record {
        path: from.to_owned(),
        source: Box::new(error),
    };
    let record = LaunchRecord::parse(&read(from, MAX_RECORD)?).map_err(failed)?;
    let firmware = read(&args.firmware, MAX_FIRMWARE as u64)?;
    let boot = record.boot.as_ref();
    let files = [
        ("kernel", &args.kernel, boot.map(|boot| boot.kernel)),
        ("initrd", &args.initrd, boot.and_then(|boot| boot.initrd)),
    ];
    let mut differs = Vec::new();
    for (what, path, recorded) in files {
        differs.extend(compare(&record, what, path.as_deref(), recorded)?);
    }
    differs.extend(record.check(&firmware).err());
    if let Some(last) = differs.pop() {
        for other in differs {
            super::super::say(&other.to_string());
        }
        return Err(failed(last));
    }
    let digest = encode(args.output_format, &record.launch_digest.0);
    writeln!(out, "{digest}").map_err(MeasureCommandError::Output)
}

/// How a file that is given differs; one that is not given, is told.
fn compare(
    record: &LaunchRecord,
    what: &'static str,
    path: Option<&Path>,
    recorded: Option<FileRecord>,
) -> Result<Option<RecordError>, MeasureCommandError> {
    match (path, recorded) {
        (None, None) => Ok(None),
        (None, Some(recorded)) => {
            let digest = recorded.sha256;
            super::super::say(&format!(
                "the {what} was not looked at: launch.json's word for it, sha256 {digest}, is taken"
            ));
            Ok(None)
        }
        (Some(path), recorded) => {
            let found = File::open(path)
                .and_then(sha256_reader)
                .map_err(|source| file(path, source))?;
            Ok(record.same_file(what, recorded, found).err())
        }
    }
}
