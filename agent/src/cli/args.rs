//! The command line's grammar.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};
use clap_complete::Shell;
use crn_api_types::FileSystem;

use super::parse::{Seconds, Size, VolumeArg};
use crate::qemu::launcher::LauncherArgs;

/// Virtual machines on this host, each with its own IPv6 address.
#[derive(Debug, Parser)]
#[command(
    name = "crn-agent",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Exit status: 0 done, 1 failed, 2 wrong usage or input, 3 not found, \
                  4 agent not reached, 5 not done in time."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Flags of all commands.
    #[command(flatten)]
    pub global: Global,
}

/// Flags of all commands.
#[derive(Debug, Clone, Default, Args)]
pub struct Global {
    /// Print JSON for programs
    #[arg(long, global = true)]
    pub json: bool,
    /// The agent's socket [default: as configured]
    #[arg(long, global = true, env = "CRN_AGENT_SOCKET", value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub socket: Option<PathBuf>,
    /// The configuration [default: /etc/crn-agent/config.toml, if it exists]
    #[arg(long, global = true, env = "CRN_AGENT_CONFIG", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
}

/// Settings beside the configuration's file.
#[derive(Debug, Clone, Default, Args)]
pub struct Settings {
    /// Change a setting: network.prefix=2001:db8::/64; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// Commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent
    Serve(Settings),
    /// Examine what this host has and lacks
    Doctor(Settings),
    /// Virtual machines
    #[command(subcommand, visible_alias = "vm")]
    Instance(InstanceCommand),
    /// Disks that outlive instances
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// What root disks are layered over
    #[command(subcommand)]
    Image(ImageCommand),
    /// The node at a glance
    Status,
    /// What happened, and what happens
    Events(EventsArgs),
    /// The configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a completion script: source <(crn-agent completion bash)
    Completion {
        /// The shell
        shell: Shell,
    },
    /// Print the API's description
    #[command(hide = true)]
    Openapi,
    /// Become a virtual machine (used by the agent itself)
    #[command(hide = true)]
    LaunchVm(LauncherArgs),
}

/// `crn-agent instance`
#[derive(Debug, Subcommand)]
pub enum InstanceCommand {
    /// Create an instance and start it
    Create(Box<CreateArgs>),
    /// List all instances
    #[command(visible_alias = "ls")]
    List,
    /// Show everything about an instance
    Show(OneInstance),
    /// Start an instance; one that failed is tried again
    Start(WaitArgs),
    /// Stop an instance: the guest is asked, then QEMU, then nobody
    Stop(ForceArgs),
    /// Stop an instance and start it again
    Restart(ForceArgs),
    /// Delete an instance and its root disk; volumes are kept
    #[command(visible_alias = "rm")]
    Delete(ForceArgs),
    /// Copy the root disk of a stopped instance into a new QCOW2 file
    Export {
        /// Name, id, or the first digits of the id
        instance: String,
        /// The file, which must not exist
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Sit down at the guest's serial console; leave with Ctrl-]
    Console(OneInstance),
    /// Show what the guest wrote to its serial console
    Logs(LogsArgs),
    /// Show, open and close ports
    Firewall(FirewallArgs),
}

/// An instance.
#[derive(Debug, Args)]
pub struct OneInstance {
    /// Name, id, or the first digits of the id
    pub instance: String,
}

/// `instance create`
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Its name and hostname [default: its id]
    #[arg(long)]
    pub name: Option<String>,
    /// Virtual CPUs
    #[arg(long, default_value_t = 1, allow_negative_numbers = true)]
    pub cpu: u64,
    /// Memory, in GiB or with a unit: 2, 512MiB
    #[arg(
        long,
        default_value = "1",
        value_name = "SIZE",
        allow_negative_numbers = true
    )]
    pub memory: Size,
    /// Root disk, in GiB or with a unit
    #[arg(
        long,
        default_value = "10",
        value_name = "SIZE",
        allow_negative_numbers = true
    )]
    pub disk: Size,
    /// Image: a name (debian:12, see image list) or a digest (sha256:…)
    #[arg(long)]
    pub image: String,
    /// SSH public key for root; may be repeated
    #[arg(long, value_name = "KEY")]
    pub ssh_key: Vec<String>,
    /// File of SSH public keys for root; may be repeated
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub ssh_key_file: Vec<PathBuf>,
    /// Ports open from outside: 22,443,53/udp,8000-8010; "" for none
    #[arg(long, default_value = "22", value_name = "PORTS")]
    pub allowed_ports: String,
    /// Volume, created if it does not exist: data, data:/data, data:/data:50; may be repeated
    #[arg(long, value_name = "NAME[:MOUNT[:SIZE]]")]
    pub volume: Vec<VolumeArg>,
    /// File with cloud-init user data; - for standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub cloud_init: Option<PathBuf>,
    /// Boot by UEFI instead of BIOS
    #[arg(long)]
    pub uefi: bool,
    /// Give it a watchdog (i6300esb), which resets it when it hangs
    #[arg(long)]
    pub watchdog: bool,
    /// Prepare it without starting it
    #[arg(long)]
    pub no_start: bool,
    /// The same key with the same request creates only one instance
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// How long to wait.
    #[command(flatten)]
    pub wait: Wait,
}

/// Waiting for an operation's end.
#[derive(Debug, Clone, Args)]
pub struct Wait {
    /// Wait until it is done (a started instance: until SSH answers)
    #[arg(long)]
    pub wait: bool,
    /// How long to wait: 300, 90s, 10m
    #[arg(long, default_value = "300", value_name = "TIME", requires = "wait")]
    pub timeout: Seconds,
}

/// An instance, and waiting.
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// Which.
    #[command(flatten)]
    pub one: OneInstance,
    /// How long to wait.
    #[command(flatten)]
    pub wait: Wait,
}

/// An instance, whether by force, and how long to wait.
#[derive(Debug, Args)]
pub struct ForceArgs {
    /// Which.
    #[command(flatten)]
    pub one: OneInstance,
    /// Do not ask the guest first
    #[arg(long, short)]
    pub force: bool,
    /// How long to wait.
    #[command(flatten)]
    pub wait: Wait,
}

/// `instance logs`
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Which.
    #[command(flatten)]
    pub one: OneInstance,
    /// Stay and show more as it comes
    #[arg(long, short)]
    pub follow: bool,
    /// Only the last so much: 4KiB
    #[arg(long, value_name = "SIZE", value_parser = super::parse::bytes)]
    pub tail: Option<u64>,
    /// To a terminal too, pass control characters on as they are
    #[arg(long)]
    pub raw: bool,
}

/// `instance firewall`
#[derive(Debug, Args)]
pub struct FirewallArgs {
    /// Which.
    #[command(flatten)]
    pub one: OneInstance,
    /// Open these: 80,443,53/udp
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    pub allow: Vec<String>,
    /// Close these
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    pub deny: Vec<String>,
    /// Open exactly these; "" for none
    #[arg(long, value_name = "PORTS")]
    pub set: Option<String>,
}

/// `crn-agent volume`
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Create an empty volume
    Create {
        /// Its name
        name: String,
        /// Size, in GiB or with a unit [default: as configured]
        #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
        size: Option<Size>,
        /// What its guest makes on it at the first mount: ext4, xfs or btrfs [default: ext4]
        #[arg(long, value_name = "FILESYSTEM")]
        fs: Option<FileSystem>,
    },
    /// List all volumes
    #[command(visible_alias = "ls")]
    List,
    /// Show everything about a volume
    Show(OneVolume),
    /// Attach a volume to an instance, running or not
    Attach {
        /// The volume
        volume: String,
        /// The instance: name, id, or the first digits of the id
        instance: String,
        /// Where the guest mounts it
        #[arg(long, value_name = "PATH")]
        mount: Option<String>,
    },
    /// Detach a volume
    Detach(OneVolume),
    /// Grow a volume
    Resize {
        /// The volume
        volume: String,
        /// New size, in GiB or with a unit
        #[arg(allow_negative_numbers = true)]
        size: Size,
    },
    /// Make a volume of a file of this host: a raw or QCOW2 disk
    Import {
        /// Its name
        name: String,
        /// The file
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// qcow2 or raw; another format is refused
        #[arg(long)]
        format: Option<String>,
        /// Size, in GiB or with a unit [default: the disk's]
        #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
        size: Option<Size>,
    },
    /// Copy a volume that no running guest has into a new QCOW2 file
    Export {
        /// The volume
        volume: String,
        /// The file, which must not exist
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Delete a volume and all that is on it
    #[command(visible_alias = "rm")]
    Delete(OneVolume),
}

/// A volume.
#[derive(Debug, Args)]
pub struct OneVolume {
    /// Its name
    pub volume: String,
}

/// `crn-agent image`
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// List images: stored, and those that can be pulled
    #[command(visible_alias = "ls")]
    List,
    /// Fetch what is published under a name now
    Pull(OneImage),
    /// Take a file of this host, or what a URL delivers, into the store
    Import {
        /// The name it gets
        name: String,
        /// The file or the URL (https, http); it may be compressed
        #[arg(value_name = "FILE|URL", value_hint = ValueHint::FilePath)]
        from: PathBuf,
        /// qcow2 or raw; another format is refused
        #[arg(long)]
        format: Option<String>,
        /// Its digest, if it must be this one: sha256:… or sha512:…; a URL needs one
        #[arg(long)]
        digest: Option<String>,
    },
    /// Hash an image again and compare
    Verify(OneImage),
    /// Take an image's name away, and its content with the last name
    #[command(visible_alias = "rm")]
    Remove(OneImage),
}

/// An image.
#[derive(Debug, Args)]
pub struct OneImage {
    /// Name or digest (sha256:…)
    pub image: String,
}

/// `crn-agent events`
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Stay and show more as it happens
    #[arg(long, short)]
    pub follow: bool,
    /// How many past events
    #[arg(long, short = 'n', default_value_t = 50)]
    pub last: u32,
    /// Of this instance only
    #[arg(long)]
    pub instance: Option<String>,
}

/// `crn-agent config`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the settings in force: defaults, file, environment and --set together
    Show(Settings),
    /// Say whether the configuration can be used
    Check(Settings),
}
