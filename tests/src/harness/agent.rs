//! The agent's process and its command line.

use std::{
    env,
    fmt::Write as _,
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    sync::OnceLock,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Host, PATIENCE, Result, Uplink, host::PREFIX, namespace::child_of, run, wait_for};

/// A command that failed.
#[derive(Debug, thiserror::Error)]
#[error("crn-agent {arguments}: exit status {status:?}: {message}")]
pub struct CliError {
    /// What was asked.
    pub arguments: String,
    /// The exit status, unless a signal ended it.
    pub status: Option<i32>,
    /// What it said.
    pub message: String,
}

/// `crn-agent serve` on a host; killed with it at the latest.
#[derive(Debug)]
pub struct Agent<'a> {
    host: &'a Host,
    program: PathBuf,
    config: PathBuf,
    nsenter: Child,
    pid: u32,
}

impl<'a> Agent<'a> {
    /// Writes its configuration, with more lines of TOML at the end, and starts it.
    ///
    /// # Errors
    /// When it does not answer in time, with its log.
    pub fn start(host: &'a Host, more: &[&str]) -> Result<Self> {
        Self::start_program(host, program()?.as_ref(), more)
    }

    /// The same with another program, such as an older one.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn start_program(host: &'a Host, program: &Path, more: &[&str]) -> Result<Self> {
        let dir = host.dir();
        let config = dir.join("config.toml");
        let mut text = format!(
            "state_dir = \"{0}/state\"\nrun_dir = \"{0}/run\"\n\n[network]\nprefix = \"{PREFIX}\"\n\
             uplink = \"eth0\"\nndp_proxy = {1}\n",
            dir.display(),
            host.uplink() == Uplink::OnLink,
        );
        for line in more {
            let _ = writeln!(text, "{line}");
        }
        fs::write(&config, text)?;
        let (nsenter, pid) = spawn(host, program, &config)?;
        let mut agent = Self {
            host,
            program: program.to_owned(),
            config,
            nsenter,
            pid,
        };
        agent.wait_ready()?;
        Ok(agent)
    }

    fn wait_ready(&mut self) -> Result<()> {
        let ended = wait_for("the agent", PATIENCE, || match self.nsenter.try_wait()? {
            Some(status) => Ok(Some(Some(status))),
            None => self.cli(&["status"]).map(|_| Some(None)),
        });
        match ended {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("the agent ended: {status}\n{}", self.log()).into()),
            Err(e) => Err(format!("{e}\n{}", self.log()).into()),
        }
    }

    /// Starts it again after it was killed or ended; returns how long until it answered.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn restart(&mut self) -> Result<Duration> {
        let _ = self.nsenter.wait();
        let begun = Instant::now();
        (self.nsenter, self.pid) = spawn(self.host, &self.program, &self.config)?;
        self.wait_ready()?;
        Ok(begun.elapsed())
    }

    /// Starts today's program in its place after it was killed or ended.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn upgrade(&mut self) -> Result<()> {
        self.program = program()?.into();
        self.restart().map(drop)
    }

    /// A command of its command line; what it prints as JSON (null if nothing).
    ///
    /// # Errors
    /// When it fails.
    pub fn cli(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.cli_text(&[&["--json"], arguments].concat())?;
        Ok(if text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text)?
        })
    }

    /// A command of its command line; what it prints for people.
    ///
    /// # Errors
    /// When it fails.
    pub fn cli_text(&self, arguments: &[&str]) -> Result<String> {
        let output = self.cli_command(arguments)?.output()?;
        if !output.status.success() {
            let mut message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            message.push_str(&String::from_utf8_lossy(&output.stdout));
            let (arguments, status) = (arguments.join(" "), output.status.code());
            return Err(CliError {
                arguments,
                status,
                message,
            }
            .into());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The command itself, to be run on the host.
    ///
    /// # Errors
    /// When the program cannot be built.
    pub fn cli_command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.host.namespace().command(&self.program);
        command.arg("--config").arg(&self.config).args(arguments);
        Ok(command)
    }

    /// An instance as `instance show` tells it.
    ///
    /// # Errors
    /// When there is none.
    pub fn show(&self, instance: &str) -> Result<Value> {
        self.cli(&["instance", "show", instance])
    }

    /// Takes a QCOW2 image from a file, under a name.
    ///
    /// # Errors
    /// When it is not taken.
    pub fn import(&self, name: &str, image: &Path) -> Result<()> {
        let image = image.to_str().ok_or("the image's path is not UTF-8")?;
        self.cli(&["image", "import", name, image, "--format", "qcow2"])
            .map(drop)
    }

    /// Creates an instance that is as small as can be, with more options.
    ///
    /// # Errors
    /// When it is refused.
    pub fn create(&self, name: &str, image: &str, more: &[&str]) -> Result<Value> {
        let words = ["instance", "create", "--name", name, "--image", image];
        let small = ["--memory=128MiB", "--disk=64MiB"];
        self.cli(&[&words, &small[..], more].concat())
    }

    /// Waits until an instance is in a phase.
    ///
    /// # Errors
    /// When it is not in time, with what it is instead.
    pub fn wait_phase(&self, instance: &str, phase: &str, patience: Duration) -> Result<Value> {
        wait_for(&format!("{instance} {phase}"), patience, || {
            let view = self.show(instance)?;
            if view["phase"] == phase {
                Ok(Some(view))
            } else {
                Err(view.to_string().into())
            }
        })
    }

    /// Its program's file.
    #[must_use]
    pub fn program(&self) -> &Path {
        self.program.as_ref()
    }

    /// The agent's process, as the machine numbers it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// `kill -9`, and waits for the end.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::KILL).map(drop)
    }

    /// Asks it to end, and waits for that.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)
    }

    fn signal(&mut self, signal: Signal) -> Result<ExitStatus> {
        kill(self.pid, signal)?;
        Ok(self.nsenter.wait()?)
    }

    /// What it logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(log_file(self.host)).unwrap_or_default()
    }

    /// The agent's process, as the host numbers it.
    pub(super) fn inner_pid(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status
            .lines()
            .find_map(|l| l.strip_prefix("NSpid:"))
            .ok_or("no NSpid")?;
        Ok(line
            .split_whitespace()
            .next_back()
            .ok_or("an empty NSpid")?
            .parse()?)
    }

    /// Kilobytes of memory that are the process's own and resident.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn resident_kib(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status
            .lines()
            .find_map(|l| l.strip_prefix("VmRSS:"))
            .ok_or("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// The machine's number of a process that has another one in the host's namespace.
    /// A QEMU has a third one, in a namespace of its own below the host's.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn outer_pid(&self, inner: u64) -> Result<u32> {
        let level = numbers(self.pid).ok_or("the agent is gone")?.len();
        // Other hosts of this machine have processes with this number too.
        let start = |proc: PathBuf| {
            let stat = fs::read_to_string(proc.join("stat")).ok()?;
            let fields = stat.rsplit_once(')')?.1;
            fields.split_whitespace().nth(19).map(str::to_owned)
        };
        let wanted = start(format!("/proc/{}/root/proc/{inner}", self.pid).into());
        for entry in fs::read_dir("/proc")? {
            let entry = entry?;
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
                continue;
            };
            let same = |numbers: Vec<u64>| numbers.get(level - 1) == Some(&inner);
            if level > 1
                && numbers(pid).is_some_and(same)
                && wanted.is_some()
                && start(entry.path()) == wanted
            {
                return Ok(pid);
            }
        }
        Err(format!("the host has no process {inner}").into())
    }
}

/// The numbers of a process, from the machine's down to that of its own namespace.
fn numbers(pid: u32) -> Option<Vec<u64>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("NSpid:"))?;
    Some(line.split_whitespace().flat_map(str::parse).collect())
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        let _ = kill(self.pid, Signal::KILL);
        let _ = self.nsenter.wait();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            let lines: Vec<&str> = tail.into_iter().rev().collect();
            eprintln!("the end of the agent's log:\n{}", lines.join("\n"));
        }
    }
}

/// Sends a signal to a process, as the machine numbers it.
///
/// # Errors
/// When there is no such process.
fn kill(pid: u32, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid)?).ok_or("no process 0")?;
    Ok(kill_process(pid, signal)?)
}

fn log_file(host: &Host) -> PathBuf {
    host.dir().join("agent.log")
}

fn spawn(host: &Host, program: &Path, config: &Path) -> Result<(Child, u32)> {
    let log = File::options()
        .create(true)
        .append(true)
        .open(log_file(host))?;
    let mut nsenter = host
        .namespace()
        .command(program)
        .arg("--config")
        .arg(config)
        .arg("serve")
        // Ctrl-C is for the test.
        .process_group(0)
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    // nsenter forks: a process cannot change its own PID namespace.
    let pid = wait_for("nsenter", PATIENCE, || {
        Ok(match nsenter.try_wait()? {
            Some(status) => Some(Err(status)),
            None => child_of(nsenter.id()).map(Ok),
        })
    })?;
    match pid {
        Ok(pid) => Ok((nsenter, pid)),
        Err(status) => {
            let log = fs::read_to_string(log_file(host)).unwrap_or_default();
            Err(format!("the agent ended: {status}\n{log}").into())
        }
    }
}

/// The agent's program: `CRN_TEST_AGENT`, or built now. Cargo gives a test's package only its own
/// programs, so it is asked for this one.
///
/// # Errors
/// When it cannot be built.
pub(super) fn program() -> Result<&'static str> {
    static PROGRAM: OnceLock<std::result::Result<String, String>> = OnceLock::new();
    let built = PROGRAM.get_or_init(|| match env::var("CRN_TEST_AGENT") {
        Ok(path) => Ok(path),
        Err(_) => {
            let features: &[&str] = if cfg!(feature = "fault-points") {
                &["fault-points"]
            } else {
                &[]
            };
            build("crn-agent", features, &[]).map_err(|e| e.to_string())
        }
    });
    built.as_deref().map_err(|e| e.clone().into())
}

/// Builds a program of the workspace into the directory that the running one came from, and
/// returns its path; with features, and arguments for the compiler.
pub(super) fn build(name: &str, features: &[&str], rustc: &[&str]) -> Result<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut command = Command::new(env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    command.current_dir(root).args([
        "rustc",
        "--quiet",
        "--message-format=json",
        "--package",
        name,
    ]);
    command.args(["--bin", name, "--features", &features.join(",")]);
    if !rustc.is_empty() {
        command.arg("--").args(rustc);
    }
    let messages = run(&mut command)?;
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|message| message["executable"].as_str().map(str::to_owned))
        .next_back()
        .ok_or_else(|| format!("cargo built no program {name}").into())
}
