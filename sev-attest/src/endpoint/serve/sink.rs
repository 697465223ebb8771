//! Where a guest puts the secrets that its owner sent.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::channel::Secrets;

/// How often a command is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Takes secrets.
pub trait Sink: Send {
    /// Takes the secrets, all or none.
    ///
    /// # Errors
    /// Where they could not be taken: the guest goes on waiting.
    fn take(&mut self, secrets: &Secrets) -> Result<(), SinkError>;
}

/// Why secrets were not taken. The owner is told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// A file can't be written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The command needs a secret that was not sent.
    #[error("no secret named {0} was sent")]
    Missing(String),
    /// The command can't be started or waited for.
    #[error("{}: {source}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The command refused the secret.
    #[error("{}: {status}", program.display())]
    Refused {
        /// The program.
        program: PathBuf,
        /// How it ended.
        status: ExitStatus,
    },
    /// The command took too long and was killed.
    #[error("{}: no end within {} s", program.display(), time.as_secs())]
    Late {
        /// The program.
        program: PathBuf,
        /// The time it had.
        time: Duration,
    },
}

/// A directory with a file for each secret, readable by its owner alone. Files are replaced whole.
#[derive(Debug, Clone)]
pub struct Directory(pub PathBuf);

impl Sink for Directory {
    fn take(&mut self, secrets: &Secrets) -> Result<(), SinkError> {
        let directory = &self.0;
        match DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(directory, error));
            }
            _ => {}
        }
        // No name of a secret has a dot in it.
        let paths = |name: &str| (directory.join(format!("{name}.new")), directory.join(name));
        for (name, value) in secrets.iter() {
            let (new, _) = paths(name);
            write_new(&new, value).map_err(|error| failed(&new, error))?;
        }
        for name in secrets.names() {
            let (new, path) = paths(name);
            fs::rename(&new, &path).map_err(|error| failed(&path, error))?;
        }
        Ok(())
    }
}

fn failed(path: &Path, source: io::Error) -> SinkError {
    SinkError::File {
        path: path.to_owned(),
        source,
    }
}

fn write_new(path: &Path, value: &[u8]) -> io::Result<()> {
    // Left over from an attempt that was cut off.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = File::options();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(value)
}

/// A command that gets one of the secrets on its standard input, and says by its exit status whether
/// it will do: so a wrong passphrase leaves the guest waiting for the right one.
#[derive(Debug, Clone)]
pub struct Command {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// The secret that it gets.
    pub secret: String,
    /// The time that it has.
    pub time: Duration,
}

impl Sink for Command {
    fn take(&mut self, secrets: &Secrets) -> Result<(), SinkError> {
        let value = secrets.get(&self.secret);
        let value = value.ok_or_else(|| SinkError::Missing(self.secret.clone()))?;
        let failed = |source| SinkError::Start {
            program: self.program.clone(),
            source,
        };
        let mut child = std::process::Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            // The pipe has room for any value. A command that does not read it says so by its status.
            let _ = stdin.write_all(value);
        }
        match self.wait(&mut child).map_err(failed)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(SinkError::Refused {
                program: self.program.clone(),
                status,
            }),
            None => Err(SinkError::Late {
                program: self.program.clone(),
                time: self.time,
            }),
        }
    }
}

impl Command {
    /// How the command ended; `None` where it did not in time, and was killed.
    fn wait(&self, child: &mut Child) -> io::Result<Option<ExitStatus>> {
        let until = Instant::now() + self.time;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() >= until {
                child.kill()?;
                child.wait()?;
                return Ok(None);
            }
            std::thread::sleep(LOOK);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use zeroize::Zeroizing;

    use super::*;

    fn secrets(pairs: &[(&str, &str)]) -> Secrets {
        let mut secrets = Secrets::default();
        for (name, value) in pairs {
            let value = Zeroizing::new(value.as_bytes().to_vec());
            secrets.insert((*name).to_owned(), value).unwrap();
        }
        secrets
    }

    #[test]
    fn files_of_their_owner_alone_replaced_whole() {
        let above = tempfile::tempdir().unwrap();
        let path = above.path().join("secrets");
        let mut sink = Directory(path.clone());
        sink.take(&secrets(&[("a", "one"), ("b", "two")])).unwrap();
        // Cut off, the last time.
        fs::write(path.join("a.new"), "half").unwrap();
        sink.take(&secrets(&[("a", "three")])).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        for (name, value) in [("a", "three"), ("b", "two")] {
            assert_eq!(fs::read_to_string(path.join(name)).unwrap(), value);
            assert_eq!(mode(&path.join(name)), 0o600);
        }
        assert_eq!(fs::read_dir(&path).unwrap().count(), 2);
        let mut none = Directory(above.path().join("no/such"));
        let error = none.take(&secrets(&[("a", "b")])).unwrap_err();
        assert!(matches!(error, SinkError::File { .. }), "{error}");
    }

    fn shell(script: &str) -> Command {
        Command {
            program: "/bin/sh".into(),
            arguments: vec!["-c".to_owned(), script.to_owned()],
            secret: "key".to_owned(),
            time: Duration::from_secs(20),
        }
    }

    #[test]
    fn commands_say_whether_a_secret_will_do() {
        let sent = secrets(&[("key", "right"), ("other", "x")]);
        shell("test \"$(cat)\" = right").take(&sent).unwrap();
        let wrong = shell("test \"$(cat)\" = left").take(&sent).unwrap_err();
        assert!(matches!(wrong, SinkError::Refused { .. }), "{wrong}");
        // It need not read what it gets.
        let unread = secrets(&[("key", &"x".repeat(crate::channel::MAX_VALUE))]);
        shell("exit 0").take(&unread).unwrap();
        let missing = shell("cat").take(&secrets(&[("other", "x")])).unwrap_err();
        assert!(matches!(missing, SinkError::Missing(_)), "{missing}");
        let mut late = shell("exec sleep 60");
        late.time = Duration::from_millis(50);
        let late = late.take(&sent).unwrap_err();
        assert!(matches!(late, SinkError::Late { .. }), "{late}");
        let mut none = shell("");
        none.program = "/no/such/program".into();
        let none = none.take(&sent).unwrap_err();
        assert!(matches!(none, SinkError::Start { .. }), "{none}");
    }
}
