//! Fuzz targets of `disk`: images from outside, digest lists, records of unfinished downloads.

use std::{fs::File, os::unix::fs::FileExt};

use disk::{
    Format, inspect,
    testing::{partial_record as check_record, qcow2::Header, sums},
};

/// The first cluster of a QCOW2 file.
///
/// # Panics
/// When a header that was read is another one after it was written.
pub fn qcow2_header(data: &[u8]) {
    let Ok(header) = Header::parse(data) else {
        return;
    };
    let _ = header.refuse_foreign();
    // Its parts may lie so scattered that they fit the cluster only as they were.
    if let Some(mut bytes) = header.encode() {
        bytes.resize(1 << header.cluster_bits, 0);
        assert_eq!(Header::parse(&bytes), Ok(header));
    }
}

/// A whole image from outside: inspected, and held to what the answer promises.
///
/// # Panics
/// When an image passes as another format than it was announced with, or without a size.
pub fn image(data: &[u8]) {
    let Ok(fd) = rustix::fs::memfd_create("image", rustix::fs::MemfdFlags::CLOEXEC) else {
        return;
    };
    let file = File::from(fd);
    if file.write_all_at(data, 0).is_err() {
        return;
    }
    for expect in [None, Some(Format::Qcow2), Some(Format::Raw)] {
        let Ok(info) = inspect(&file, expect) else {
            continue;
        };
        assert!(expect.is_none_or(|format| format == info.format));
        assert!(info.virtual_size.bytes() > 0 && info.virtual_size.bytes() % 512 == 0);
        assert_eq!(info.format == Format::Qcow2, data.starts_with(b"QFI\xfb"));
    }
}

/// A list of digests.
///
/// # Panics
/// When a name that is listed once is not found.
pub fn digest_list(data: &[u8]) {
    let Ok(entries) = sums::parse(data) else {
        return;
    };
    for entry in &entries {
        let found = sums::find(data, &entry.name);
        let plain = |name: &str| name.strip_prefix("./").unwrap_or(name).to_owned();
        let same = entries.iter().filter(|e| plain(&e.name) == entry.name);
        if same.count() == 1 {
            assert_eq!(found, Ok(entry.digest));
        }
    }
}

/// The record of an unfinished download.
///
/// # Panics
/// When a download that believes it would not end well.
pub fn partial_record(data: &[u8]) {
    check_record(data);
}
