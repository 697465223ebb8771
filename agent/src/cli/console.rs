//! The terminal as a guest's serial console.

use std::io::{self, IsTerminal, Read, Write as _};

use rustix::termios::{self, OptionalActions, Termios};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
};

use super::{exit::Failure, out::Out, table};

/// Ctrl-]: leaves the console.
const LEAVE: u8 = 0x1d;

/// A terminal that passes every key on; as it was when this is dropped.
struct Raw(Option<Termios>);

impl Raw {
    fn enter() -> io::Result<Self> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(Self(None));
        }
        let before = termios::tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Self(Some(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Keys, read on a thread of their own: a read from a terminal cannot be taken back.
fn keys() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        let mut buffer = [0u8; 1024];
        let mut stdin = io::stdin().lock();
        while let Ok(n @ 1..) = stdin.read(&mut buffer) {
            let typed = buffer.get(..n).unwrap_or_default().to_vec();
            if sender.blocking_send(typed).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Passes keys and output on until either end leaves. What the guest writes goes
/// to the terminal as it is: that is what a console is for.
pub(super) async fn run(
    line: impl AsyncRead + AsyncWrite + Unpin,
    out: Out,
) -> Result<(), Failure> {
    out.note("connected; leave with Ctrl-]");
    let raw = Raw::enter()?;
    let ended = pass(line, keys(), out).await;
    drop(raw);
    // The guest's last line has no end.
    let _ = writeln!(io::stderr());
    out.note("disconnected");
    ended
}

async fn pass(
    mut line: impl AsyncRead + AsyncWrite + Unpin,
    mut keys: mpsc::Receiver<Vec<u8>>,
    out: Out,
) -> Result<(), Failure> {
    let mut buffer = [0u8; 16 * 1024];
    loop {
        tokio::select! {
            read = line.read(&mut buffer) => match read? {
                0 => return Ok(()),
                n => out.bytes(buffer.get(..n).unwrap_or_default())?,
            },
            typed = keys.recv() => {
                let Some(typed) = typed else { return Ok(()) };
                let leave = typed.iter().position(|&b| b == LEAVE);
                let typed = typed.get(..leave.unwrap_or(typed.len())).unwrap_or_default();
                line.write_all(typed).await?;
                line.flush().await?;
                if leave.is_some() {
                    return Ok(());
                }
            }
        }
    }
}

/// Makes a guest's output fit to be shown: text and line ends stay, what a
/// terminal would obey is written out.
#[derive(Debug, Default)]
pub(super) struct Sanitizer {
    /// Bytes of a character that has not ended, or a carriage return that may
    /// belong to a line end.
    rest: Vec<u8>,
}

impl Sanitizer {
    /// The text of what came, as far as it is complete.
    pub(super) fn push(&mut self, bytes: &[u8]) -> String {
        self.rest.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.rest) {
            Ok(_) => self.rest.len(),
            // Not ended, unlike wrong: those are replaced.
            Err(e) if e.error_len().is_none() => e.valid_up_to(),
            Err(_) => self.rest.len() - unfinished(&self.rest),
        };
        let whole = match self.rest.get(..whole) {
            Some([.., b'\r']) => whole - 1,
            _ => whole,
        };
        let done: Vec<u8> = self.rest.drain(..whole).collect();
        shown(&done)
    }

    /// The text of what is left.
    pub(super) fn finish(&mut self) -> String {
        shown(&std::mem::take(&mut self.rest))
    }
}

/// How many bytes at the end may be the beginning of a character.
fn unfinished(bytes: &[u8]) -> usize {
    let tail = bytes.iter().rev().take(3);
    let back = tail
        .take_while(|b| **b & 0b1100_0000 == 0b1000_0000)
        .count();
    match bytes.iter().rev().nth(back) {
        Some(first) if *first >= 0b1100_0000 && back < 3 => back + 1,
        _ => 0,
    }
}

fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).replace("\r\n", "\n");
    table::plain_lines(&text.replace("\n\r", "\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guests_output_is_shown_and_not_obeyed() {
        let mut s = Sanitizer::default();
        assert_eq!(s.push(b"boot\r"), "boot");
        assert_eq!(s.push(b"\nlogin: \x1b[2J"), "\nlogin: \\u{1b}[2J");
        assert_eq!(s.push("ä".as_bytes().get(..1).unwrap()), "");
        assert_eq!(s.push("ä".as_bytes().get(1..).unwrap()), "ä");
        assert_eq!(s.push(b"\xff\xfe!\r"), "\u{fffd}\u{fffd}!");
        assert_eq!(s.finish(), "\\r");
    }

    #[tokio::test]
    async fn ctrl_bracket_leaves() {
        let (ours, mut guest) = tokio::io::duplex(64);
        let (sender, keys) = mpsc::channel(4);
        sender.send(b"ls\n".to_vec()).await.unwrap();
        sender.send(vec![b'x', LEAVE, b'y']).await.unwrap();
        pass(ours, keys, Out::new(true)).await.unwrap();
        let mut typed = String::new();
        guest.read_to_string(&mut typed).await.unwrap();
        assert_eq!(typed, "ls\nx");
    }
}
