//! A guest with an SSH server, as its user sees it.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::{Internet, Result, run, wait_for};

/// A user's key pair.
#[derive(Debug)]
pub struct Key {
    file: PathBuf,
    public: String,
}

impl Key {
    /// A new pair in a directory.
    ///
    /// # Errors
    /// When `ssh-keygen` fails.
    pub fn new(dir: &Path) -> Result<Self> {
        let file = dir.join("key");
        run(Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"])
            .arg(&file))?;
        let public = fs::read_to_string(file.with_extension("pub"))?
            .trim()
            .to_owned();
        Ok(Self { file, public })
    }

    /// The line for `--ssh-key`.
    #[must_use]
    pub fn public(&self) -> &str {
        &self.public
    }

    /// The private key's file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }
}

/// A guest seen from the internet.
#[derive(Debug)]
pub struct Guest<'a> {
    internet: &'a Internet,
    key: &'a Key,
    address: String,
}

impl<'a> Guest<'a> {
    pub(super) fn new(internet: &'a Internet, key: &'a Key, address: &str) -> Self {
        Self {
            internet,
            key,
            address: address.to_owned(),
        }
    }

    /// `ssh root@address`, host keys not remembered.
    #[must_use]
    pub fn ssh(&self, script: &str) -> Command {
        let mut command = self.internet.namespace().net_command("ssh");
        command
            .args([
                "-F",
                "none",
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "BatchMode=yes",
            ])
            .args(["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"])
            .args([
                "-o",
                "ConnectTimeout=20",
                "-o",
                "ServerAliveInterval=30",
                "-i",
            ])
            .arg(&self.key.file)
            .arg(format!("root@{}", self.address))
            .arg(script);
        command
    }

    /// Runs a shell script; its output.
    ///
    /// # Errors
    /// When the guest is not reached or the script fails.
    pub fn run(&self, script: &str) -> Result<String> {
        run(&mut self.ssh(script))
    }

    /// Writes a file of the host to a path in the guest, with a mode in octal.
    ///
    /// # Errors
    /// When the file cannot be read, or as [`Guest::run`].
    pub fn send(&self, file: &Path, path: &str, mode: &str) -> Result<()> {
        let script = format!("install -D -m {mode} /dev/stdin {path}");
        run(self.ssh(&script).stdin(fs::File::open(file)?)).map(drop)
    }

    /// Waits until SSH lets us in.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn wait(&self, patience: Duration) -> Result<()> {
        wait_for("SSH", patience, || self.run("true").map(Some)).map(drop)
    }

    /// The guest's own word for this boot.
    ///
    /// # Errors
    /// As [`Guest::run`].
    pub fn boot_id(&self) -> Result<String> {
        self.run("cat /proc/sys/kernel/random/boot_id")
    }

    /// A session that stays open; it prints a line a second until it ends.
    ///
    /// # Errors
    /// When `ssh` cannot be started.
    pub fn session(&self) -> Result<Session> {
        let mut command = self.ssh("while echo tick; do sleep 1; done");
        Ok(Session(command.stdout(Stdio::piped()).spawn()?))
    }

    /// Whether a port answers from the internet within two seconds.
    ///
    /// # Errors
    /// When the internet's namespace cannot be entered.
    pub fn port_open(&self, port: u16) -> Result<bool> {
        let address = SocketAddr::new(self.address.parse()?, port);
        self.internet
            .namespace()
            .enter(move || Ok(TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_ok()))
    }
}

/// An SSH session that goes on until it is dropped or breaks.
#[derive(Debug)]
pub struct Session(Child);

impl Session {
    /// Whether it still goes on and says something.
    ///
    /// # Errors
    /// When it is over.
    pub fn alive(&mut self) -> Result<()> {
        use std::io::Read as _;
        if let Some(status) = self.0.try_wait()? {
            return Err(format!("the session ended: {status}").into());
        }
        let mut byte = [0];
        let stdout = self.0.stdout.as_mut().ok_or("no output")?;
        // A line comes every second; what was printed earlier is read first.
        for _ in 0..10 {
            stdout.read_exact(&mut byte)?;
        }
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
