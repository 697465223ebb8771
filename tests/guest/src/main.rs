//! The only program of a guest that boots in seconds: a kernel, the modules that virtio needs, and
//! this as init. It takes its addresses from the cloud-init seed as any guest does, turns off at
//! the power button, and does on the network what a test tells it over TCP port 22 (see
//! [`control`]), good or evil.
//!
//! It must be linked statically: there is no libc beside it.

mod control;
mod network;
mod sys;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    net::Ipv6Addr,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rustix::mount::{MountFlags, mount};

/// Where the seed is mounted.
const SEED: &str = "/seed";
/// `KEY_POWER` of the kernel's `input-event-codes.h`.
const KEY_POWER: u16 = 116;

fn main() {
    if let Err(e) = boot() {
        say(&format!("tiny: {e}"));
    }
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

fn boot() -> io::Result<()> {
    for (kind, target) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys")] {
        fs::create_dir_all(target)?;
        mount(kind, target, kind, MountFlags::empty(), None)?;
    }
    load_modules()?;
    thread::spawn(|| {
        if let Err(e) = power_button() {
            say(&format!("tiny: no power button: {e}"));
        }
    });
    mount_seed()?;
    let text = fs::read_to_string(Path::new(SEED).join("network-config"))?;
    let config = network::parse(&text)
        .ok_or_else(|| io::Error::other("the seed's network-config is not understood"))?;
    let interface = network::up(&config)?;
    say(&format!("tiny: up at {}", config.address));
    control::serve(&interface, config.address)
}

/// A line on the console, which the agent logs.
fn say(line: &str) {
    if let Ok(mut console) = OpenOptions::new().write(true).open("/dev/console") {
        let _ = writeln!(console, "{line}");
    }
}

/// The image's builder put them in the order of their dependencies.
fn load_modules() -> io::Result<()> {
    let mut files: Vec<PathBuf> = fs::read_dir("/modules")?
        .filter_map(|e| e.ok().map(|e| e.path()))
        .collect();
    files.sort();
    for file in files {
        rustix::system::finit_module(File::open(&file)?, c"", 0)
            .map_err(|e| io::Error::other(format!("{}: {e}", file.display())))?;
    }
    Ok(())
}

/// Devices appear a moment after their drivers.
fn mount_seed() -> io::Result<()> {
    fs::create_dir_all(SEED)?;
    for _ in 0..100 {
        for device in fs::read_dir("/sys/class/block")? {
            let device = Path::new("/dev").join(device?.file_name());
            if mount(&device, SEED, "iso9660", MountFlags::RDONLY, None).is_ok() {
                return Ok(());
            }
        }
        thread::sleep(Duration::from_millis(50));
    }
    Err(io::Error::other("no device holds a seed"))
}

/// Waits for the ACPI power button and turns off.
fn power_button() -> io::Result<()> {
    for device in fs::read_dir("/dev/input")? {
        let path = device?.path();
        if !path
            .file_name()
            .is_some_and(|n| n.to_string_lossy().starts_with("event"))
        {
            continue;
        }
        let mut events = File::open(path)?;
        thread::spawn(move || {
            // struct input_event: a time of 16 bytes, type, code, value.
            let mut event = [0; 24];
            while events.read_exact(&mut event).is_ok() {
                let code = u16::from_ne_bytes([event[18], event[19]]);
                if event[16] == 1 && code == KEY_POWER && event[20] == 1 {
                    let _ = sys::power_off();
                }
            }
        });
    }
    Ok(())
}

/// The seconds since boot, as the kernel writes them.
fn uptime() -> io::Result<String> {
    let text = fs::read_to_string("/proc/uptime")?;
    Ok(text.split(' ').next().unwrap_or_default().to_owned())
}

/// What the parsed seed says of the network.
#[derive(Debug, PartialEq, Eq)]
struct NetworkConfig {
    mac: String,
    address: Ipv6Addr,
    prefix: u8,
    gateway: Ipv6Addr,
}
