//! By what the guest and its QEMU are spoken to: monitor, console, guest agent.

use serde_json::json;

use super::{
    arguments::{Builder, FdSource},
    launch::Launch,
    protection::GuestMemory,
};

/// Names of the sockets in an instance's run directory.
pub mod socket {
    /// The machine monitor.
    pub const QMP: &str = "qmp.sock";
    /// The guest agent.
    pub const QGA: &str = "qga.sock";
    /// The serial console.
    pub const CONSOLE: &str = "console.sock";
    /// All of them.
    pub const ALL: [&str; 3] = [QMP, QGA, CONSOLE];
}

pub(super) fn control(b: &mut Builder, l: &Launch) {
    let qmp = b.fd(FdSource::Listen(l.run_dir.join(socket::QMP)));
    b.arg(
        "-chardev",
        format!("socket,id=qmp,fd={qmp},server=on,wait=off"),
    );
    b.arg("-mon", "chardev=qmp,mode=control");

    let log = l.console_log.as_ref().map_or(String::new(), |log| {
        let log = b.file(FdSource::Append(log.clone()));
        format!(",logfile={log},logappend=on")
    });
    let console = b.fd(FdSource::Listen(l.run_dir.join(socket::CONSOLE)));
    b.arg(
        "-chardev",
        format!("socket,id=console,fd={console},server=on,wait=off{log}"),
    );
    b.arg("-serial", "chardev:console");

    // By its agent the host would command the guest.
    if l.protection.memory() == GuestMemory::Private {
        return;
    }
    let qga = b.fd(FdSource::Listen(l.run_dir.join(socket::QGA)));
    b.arg(
        "-chardev",
        format!("socket,id=qga,fd={qga},server=on,wait=off"),
    );
    b.json(
        "-device",
        &json!({"driver": "virtio-serial-pci", "id": "serial0"}),
    );
    b.json(
        "-device",
        &json!({"driver": "virtserialport", "bus": "serial0.0", "chardev": "qga",
                "name": "org.qemu.guest_agent.0"}),
    );
}
