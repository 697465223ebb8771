//! `make run`: from nothing to SSH in a virtual machine over its own IPv6 address, a line for each
//! step; then it is yours until Ctrl-C. With `--once` it ends by itself. Nothing stays but the
//! image cache.

#![allow(clippy::print_stdout, reason = "a person reads along")]

use std::{
    collections::BTreeSet,
    fs,
    io::IsTerminal as _,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use tests::harness::{
    Agent, BOOT_PATIENCE, FileServer, Guest, Host, Key, PREFIX, Result, Uplink, images, run,
};

/// What the example instance is called.
const NAME: &str = "my-web-server";

fn main() -> ExitCode {
    let once = std::env::args().any(|a| a == "--once");
    let interrupted = Arc::new(AtomicBool::new(false));
    if let Err(e) = watch_signals(Arc::clone(&interrupted)) {
        eprintln!("demo: {e}");
        return ExitCode::FAILURE;
    }
    let before = Machine::look();
    let mut steps = Steps {
        begun: Instant::now(),
    };
    let mut kept = BTreeSet::new();
    let result = demonstrate(&mut steps, once, &interrupted, &mut kept);
    let left = left_behind(&kept);
    for line in Machine::look().new_since(&before) {
        println!("          new on this machine meanwhile: {line}");
    }
    match (&result, left.is_empty()) {
        (Ok(()), true) => {
            steps.done("nothing is left but the image cache");
            ExitCode::SUCCESS
        }
        (Err(_), true) if interrupted.load(Ordering::Relaxed) => {
            steps.done("interrupted; nothing is left but the image cache");
            ExitCode::from(130)
        }
        _ => {
            if let Err(e) = result {
                eprintln!("demo: {e}");
            }
            for line in left {
                eprintln!("demo: left behind: {line}");
            }
            ExitCode::FAILURE
        }
    }
}

/// One line for each step, with its time.
struct Steps {
    begun: Instant,
}

impl Steps {
    fn done(&mut self, what: &str) {
        println!("{:6.1} s  {what}", self.begun.elapsed().as_secs_f64());
        self.begun = Instant::now();
    }

    /// Runs a step with a spinner on a terminal.
    fn step<T>(&mut self, doing: &str, work: impl FnOnce(&ProgressBar) -> Result<T>) -> Result<T> {
        let bar = spinner(doing);
        let result = work(&bar);
        bar.finish_and_clear();
        result
    }
}

fn spinner(doing: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})");
    let bar = ProgressBar::new_spinner()
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
        .with_message(doing.to_owned());
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

fn demonstrate(
    steps: &mut Steps,
    once: bool,
    interrupted: &AtomicBool,
    kept: &mut BTreeSet<String>,
) -> Result<()> {
    let image = steps.step("a Debian 12 image", |bar| {
        images::debian(|line| {
            if bar.is_hidden() {
                println!("          {line}")
            } else {
                bar.set_message(line.to_owned())
            }
        })
    })?;
    steps.done(&format!("a Debian 12 image: {}", image.display()));

    let host = steps.step("two namespaces", |_| Host::new(Uplink::Routed))?;
    for namespace in [host.namespace(), host.internet().namespace()] {
        kept.extend(namespaces(namespace.init()));
    }
    kept.insert(host.dir().display().to_string());
    steps.done("a host and an internet, each a network namespace");

    let (_server, catalogue) = publish(&host, &image)?;
    let lines: Vec<&str> = catalogue.iter().map(String::as_str).collect();
    let mut agent = steps.step("the agent", |_| Agent::start(&host, &lines))?;
    let status = agent.cli(&["status"])?;
    steps.done(&format!(
        "the agent serves guests of {PREFIX} on {}: {}",
        status["accel"].as_str().unwrap_or("?"),
        status["accel_reason"].as_str().unwrap_or("?"),
    ));

    let key = Key::new(host.dir())?;
    let result = with_instance(steps, &host, &agent, &key, once, interrupted);
    // Whatever happened: the instance goes first, then the agent.
    let _ = agent.cli(&["instance", "delete", NAME, "--force", "--wait"]);
    let _ = agent.terminate();
    steps.done("the instance deleted, the agent ended");
    if result.is_err() && !interrupted.load(Ordering::Relaxed) {
        eprintln!("{}", agent.log());
    }
    result
}

/// A web server with the image, as a distribution has one.
fn publish(host: &Host, image: &Path) -> Result<(FileServer, Vec<String>)> {
    let www = host.dir().join("www");
    fs::create_dir(&www)?;
    symlink(image, www.join("debian-12.qcow2"))?;
    let sum = run(Command::new("sha512sum").arg(image))?;
    // Without TLS only a digest is trusted.
    let digits = sum.split(' ').next().unwrap_or_default();
    let server = FileServer::start(host.internet(), &www)?;
    let catalogue = vec![
        "[[images.catalogue]]".to_owned(),
        "name = \"debian:12\"".to_owned(),
        format!("url = \"{}\"", server.url("debian-12.qcow2")),
        format!("digest = \"sha512:{digits}\""),
    ];
    Ok((server, catalogue))
}

fn with_instance(
    steps: &mut Steps,
    host: &Host,
    agent: &Agent<'_>,
    key: &Key,
    once: bool,
    interrupted: &AtomicBool,
) -> Result<()> {
    // The agent's own command line shows the download and the phases.
    let create = [
        "instance",
        "create",
        "--name",
        NAME,
        "--cpu",
        "2",
        "--memory",
        "1",
        "--disk",
        "5",
        "--image",
        "debian:12",
        "--ssh-key",
        key.public(),
        "--wait",
        "--timeout",
        "900",
    ];
    println!(
        "          $ crn-agent {}",
        create.join(" ").replace(key.public(), "\"ssh-ed25519 …\"")
    );
    let output = agent
        .cli_command(&create)?
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("crn-agent instance create: {}", output.status).into());
    }
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        println!("          {line}");
    }
    let view = agent.show(NAME)?;
    let address = view["ipv6"]
        .as_str()
        .ok_or("the instance has no address")?
        .to_owned();
    steps.done(&format!("{NAME} runs, and its SSH server answers"));

    let guest = host.internet().ssh(key, &address);
    steps.step("SSH", |_| guest.wait(BOOT_PATIENCE))?;
    let said = guest.run(
        ". /etc/os-release; echo \"$(whoami)@$(hostname), $PRETTY_NAME, Linux $(uname -r)\"",
    )?;
    steps.done(&format!(
        "a command inside, over SSH from the internet: {}",
        said.trim()
    ));

    ports(steps, agent, &guest)?;
    if !once {
        wait_for_the_end(host, agent, key, &address, interrupted)?;
        steps.done("enough");
    }
    Ok(())
}

fn ports(steps: &mut Steps, agent: &Agent<'_>, guest: &Guest<'_>) -> Result<()> {
    guest.run(
        "systemd-run --quiet --unit web python3 -m http.server --bind :: 80 && \
         for i in $(seq 100); do ss -Hltn sport = 80 | grep -q . && exit; sleep .3; done; exit 1",
    )?;
    if guest.port_open(80)? {
        return Err("port 80 is open although nobody opened it".into());
    }
    steps.done("port 80, where a web server listens inside: closed");
    agent.cli(&["instance", "firewall", NAME, "--allow", "80"])?;
    if !guest.port_open(80)? {
        return Err("port 80 is closed although it was opened".into());
    }
    steps.done("port 80 after `crn-agent instance firewall --allow 80`: open");
    Ok(())
}

fn wait_for_the_end(
    host: &Host,
    agent: &Agent<'_>,
    key: &Key,
    address: &str,
    interrupted: &AtomicBool,
) -> Result<()> {
    let line = |command: &Command| {
        let words: Vec<_> = command
            .get_args()
            .map(|a| a.to_string_lossy().into_owned())
            .collect();
        format!(
            "{} {}",
            command.get_program().to_string_lossy(),
            words.join(" ")
        )
    };
    let mut ssh = host.internet().namespace().net_command("ssh");
    ssh.args([
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-i",
    ]);
    ssh.arg(key.file()).arg(format!("root@{address}"));
    println!("\nIt is yours. In other terminals:\n");
    println!("  {}", line(&ssh));
    println!("  {}", line(&agent.cli_command(&["instance", "list"])?));
    println!("\nCtrl-C ends it and leaves nothing behind.");
    if !std::io::stdin().is_terminal() {
        println!("(ONCE=1 ends without waiting.)");
    }
    while !interrupted.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(100));
    }
    println!();
    Ok(())
}

/// Signals end the demonstration, not the program: it cleans up first.
fn watch_signals(interrupted: Arc<AtomicBool>) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut signals = {
        let _inside = runtime.enter();
        [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ]
        .map(signal)
    };
    thread::spawn(move || {
        runtime.block_on(async {
            let [Ok(a), Ok(b), Ok(c)] = &mut signals else {
                return;
            };
            loop {
                tokio::select! { _ = a.recv() => {}, _ = b.recv() => {}, _ = c.recv() => {} }
                interrupted.store(true, Ordering::Relaxed);
            }
        });
    });
    Ok(())
}

/// The namespaces of a process, as `/proc` names them.
fn namespaces(pid: u32) -> Vec<String> {
    ["net", "pid", "mnt"]
        .iter()
        .filter_map(|kind| fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok())
        .map(|link| link.display().to_string())
        .collect()
}

/// Processes that are still in one of our namespaces, and our directory if it is still there.
fn left_behind(kept: &BTreeSet<String>) -> Vec<String> {
    let mut left: Vec<String> = kept
        .iter()
        .filter(|k| k.starts_with('/') && Path::new(k).exists())
        .cloned()
        .collect();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        if namespaces(pid).iter().any(|n| kept.contains(n)) {
            let args = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            left.push(format!(
                "process {pid}: {}",
                String::from_utf8_lossy(&args).replace('\0', " ")
            ));
        }
    }
    left
}

/// What the machine itself has: links, mounts, firewall tables.
struct Machine(BTreeSet<String>);

impl Machine {
    fn look() -> Self {
        let mut lines = BTreeSet::new();
        for entry in fs::read_dir("/sys/class/net")
            .into_iter()
            .flatten()
            .flatten()
        {
            lines.insert(format!("link {}", entry.file_name().to_string_lossy()));
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        lines.extend(mounts.lines().map(|line| format!("mount {line}")));
        let tables = run(Command::new("nft").args(["list", "tables"])).unwrap_or_default();
        lines.extend(tables.lines().map(str::to_owned));
        Self(lines)
    }

    fn new_since(&self, before: &Self) -> Vec<String> {
        self.0.difference(&before.0).cloned().collect()
    }
}
