//! A guest in a boot sector (`boot.S`), up in a second, and its serial console.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/boot.S");
/// A small disk, but one that a root disk is larger than.
const DISK: u64 = 1 << 20;

/// Writes a raw disk with the guest in its boot sector.
///
/// # Panics
/// Without binutils.
pub fn write_disk(path: &Path) {
    let object = path.with_extension("o");
    let run = |command: &mut Command| {
        let output = command.output().expect("binutils are installed");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {errors}");
    };
    run(Command::new("as").args(["--32", SOURCE, "-o"]).arg(&object));
    let layout = [
        "-m",
        "elf_i386",
        "-Ttext",
        "0x7c00",
        "-e",
        "_start",
        "--oformat",
        "binary",
    ];
    run(Command::new("ld")
        .args(layout)
        .arg(&object)
        .arg("-o")
        .arg(path));
    std::fs::remove_file(object).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 512, "one boot sector");
    file.set_len(DISK).unwrap();
}

/// One client of the guest's serial console.
#[derive(Debug)]
pub struct Console {
    stream: UnixStream,
    seen: String,
}

impl Console {
    /// Connects to the console's socket.
    ///
    /// # Panics
    /// When nobody listens there.
    #[must_use]
    pub fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).expect("the console listens");
        stream
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        Self {
            stream,
            seen: String::new(),
        }
    }

    /// Presses a key.
    ///
    /// # Panics
    /// When the console is gone.
    pub fn key(&mut self, key: char) {
        write!(self.stream, "{key}").expect("the console takes keys");
    }

    /// What follows `word` on its line, once that has come. What came before is
    /// forgotten.
    pub fn after(&mut self, word: &str, limit: Duration) -> Option<String> {
        let end = Instant::now() + limit;
        loop {
            if let Some((_, rest)) = self.seen.split_once(word)
                && let Some((line, rest)) = rest.split_once('\n')
            {
                let line = line.trim().to_owned();
                self.seen = rest.to_owned();
                return Some(line);
            }
            if Instant::now() >= end {
                return None;
            }
            let mut bytes = [0; 4096];
            if let Ok(read) = self.stream.read(&mut bytes) {
                let text = String::from_utf8_lossy(bytes.get(..read).unwrap_or_default());
                self.seen.push_str(&text);
            }
        }
    }

    /// How long the guest is up, in clock ticks.
    ///
    /// # Panics
    /// When it does not answer within half a minute.
    pub fn uptime(&mut self) -> u32 {
        // A key that comes while the firmware starts is lost.
        for _ in 0..60 {
            self.key('u');
            if let Some(text) = self.after("up=", Duration::from_millis(500)) {
                return u32::from_str_radix(&text, 16).expect("a number of ticks");
            }
        }
        panic!("the guest does not answer");
    }
}
