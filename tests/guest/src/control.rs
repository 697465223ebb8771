//! What a test can tell the guest, one line each over TCP port 22, which the agent opens by
//! default; the greeting is that of an SSH server, so that waiting for SSH works.
//!
//! | command | does | answers |
//! |---|---|---|
//! | `uptime` | | `ok SECONDS` |
//! | `listen PORT` | accepts TCP connections and sends back what comes | `ok` |
//! | `connect ADDRESS PORT MILLISECONDS` | | `ok open`, `ok refused` or `ok timeout` |
//! | `mac` | | `ok` and the interface's address |
//! | `frame HEX` | sends an Ethernet frame as it is | `ok` |
//! | `capture MILLISECONDS` | | `ok HEX HEX …`: frames that arrived |
//! | `poweroff`, `reboot` | | |
//!
//! What fails answers `error` and why.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use crate::{sys, uptime};

/// Serves for ever.
pub(crate) fn serve(interface: &str, address: Ipv6Addr) -> io::Result<()> {
    let listener = bind(address, 22)?;
    loop {
        let (stream, _) = listener.accept()?;
        let interface = interface.to_owned();
        thread::spawn(move || session(&stream, &interface, address));
    }
}

/// An address is tentative until a work queue of the kernel has come to it, though no
/// duplicate is looked for (addrconf_dad_start): on a busy machine that takes its time.
fn bind(address: Ipv6Addr, port: u16) -> io::Result<TcpListener> {
    let mut result = TcpListener::bind((address, port));
    for _ in 0..600 {
        match &result {
            Err(e) if e.kind() == io::ErrorKind::AddrNotAvailable => {}
            _ => break,
        }
        thread::sleep(Duration::from_millis(50));
        result = TcpListener::bind((address, port));
    }
    result
}

fn session(mut stream: &TcpStream, interface: &str, address: Ipv6Addr) -> io::Result<()> {
    stream.write_all(b"SSH-2.0-tiny\r\n")?;
    for line in BufReader::new(stream).lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = match command(&words, interface, address) {
            Ok(answer) => format!("ok {answer}"),
            Err(e) => format!("error {e}"),
        };
        writeln!(stream, "{}", answer.trim_end())?;
    }
    Ok(())
}

fn command(words: &[&str], interface: &str, address: Ipv6Addr) -> io::Result<String> {
    match words {
        ["uptime"] => uptime(),
        ["listen", port] => listen(address, number(port)?).map(|()| String::new()),
        ["connect", to, port, millis] => {
            let to: Ipv6Addr = to.parse().map_err(io::Error::other)?;
            connect(
                (to, number(port)?).into(),
                Duration::from_millis(number(millis)?),
            )
        }
        ["mac"] => std::fs::read_to_string(format!("/sys/class/net/{interface}/address"))
            .map(|text| text.trim().to_owned()),
        ["frame", frame] => {
            let frame = hex::decode(frame).map_err(io::Error::other)?;
            sys::Frames::open(interface)?
                .send(&frame)
                .map(|()| String::new())
        }
        ["capture", millis] => {
            let frames =
                sys::Frames::open(interface)?.capture(Duration::from_millis(number(millis)?))?;
            Ok(frames.iter().map(hex::encode).collect::<Vec<_>>().join(" "))
        }
        ["poweroff"] => sys::power_off().map(|()| String::new()),
        ["reboot"] => sys::restart().map(|()| String::new()),
        _ => Err(io::Error::other("no such command")),
    }
}

fn number<T: std::str::FromStr>(word: &str) -> io::Result<T> {
    word.parse()
        .map_err(|_| io::Error::other(format!("{word} is not a number that fits")))
}

fn listen(address: Ipv6Addr, port: u16) -> io::Result<()> {
    let listener = bind(address, port)?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || io::copy(&mut &stream, &mut &stream));
        }
    });
    Ok(())
}

fn connect(to: SocketAddr, patience: Duration) -> io::Result<String> {
    match TcpStream::connect_timeout(&to, patience) {
        Ok(_) => Ok("open".into()),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => Ok("refused".into()),
        Err(e) if e.kind() == io::ErrorKind::TimedOut => Ok("timeout".into()),
        Err(e) => Err(e),
    }
}
