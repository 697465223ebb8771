//! Where output goes: results to standard output, all else to standard error.

use std::{
    io::{self, IsTerminal, Write},
    process,
    time::Duration,
};

use crn_api_types::ProgressView;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::{
    exit::Failure,
    table::{self, Columns},
};

/// Width of tables on a terminal that does not tell its own, columns.
const WIDTH: u16 = 80;
/// Elsewhere nothing is folded: what reads it wants whole words.
const NO_TERMINAL: u16 = 4000;

/// How results are printed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Out {
    /// JSON for programs.
    pub(super) json: bool,
    width: u16,
}

impl Out {
    /// For this process's standard output.
    #[must_use]
    pub(super) fn new(json: bool) -> Self {
        let stdout = io::stdout();
        let width = match rustix::termios::tcgetwinsize(&stdout) {
            Ok(size) if size.ws_col > 0 => size.ws_col,
            Ok(_) => WIDTH,
            Err(_) => NO_TERMINAL,
        };
        Self { json, width }
    }

    /// Prints a value as JSON.
    ///
    /// # Errors
    /// When standard output cannot be written to.
    pub(super) fn value<T: Serialize>(self, value: &T) -> Result<(), Failure> {
        let mut text = serde_json::to_string_pretty(value).map_err(io::Error::other)?;
        text.push('\n');
        self.text(&text)
    }

    /// Prints text as it is.
    ///
    /// # Errors
    /// When standard output cannot be written to.
    pub(super) fn text(self, text: &str) -> Result<(), Failure> {
        self.bytes(text.as_bytes())
    }

    /// Prints bytes as they are. A reader that has seen enough ends the program.
    ///
    /// # Errors
    /// When standard output cannot be written to.
    pub(super) fn bytes(self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => process::exit(0),
            result => Ok(result?),
        }
    }

    /// Prints a table.
    ///
    /// # Errors
    /// When standard output cannot be written to.
    pub(super) fn table(self, columns: &Columns<'_>, rows: &[Vec<String>]) -> Result<(), Failure> {
        self.text(&table::table(columns, rows, self.width))
    }

    /// Prints titles and values.
    ///
    /// # Errors
    /// When standard output cannot be written to.
    pub(super) fn pairs(self, rows: &[(&str, String)]) -> Result<(), Failure> {
        self.text(&table::pairs(rows, self.width))
    }

    /// Columns of the terminal.
    #[must_use]
    pub(super) fn width(self) -> u16 {
        self.width
    }

    /// Something for the person at the terminal, not for programs.
    pub(super) fn note(self, text: &str) {
        if !self.json {
            let _ = writeln!(io::stderr(), "{}", table::plain(text));
        }
    }
}

/// Shows how far something is: a bar or a spinner on a terminal, a line for each
/// change elsewhere, nothing for programs.
#[derive(Debug)]
pub(super) struct Meter {
    bar: ProgressBar,
    lines: bool,
    said: String,
    sized: bool,
}

impl Meter {
    /// A meter on standard error.
    #[must_use]
    pub(super) fn new(out: Out) -> Self {
        let terminal = io::stderr().is_terminal();
        let target = if out.json || !terminal {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        let bar = ProgressBar::with_draw_target(None, target).with_style(spinner());
        bar.enable_steady_tick(Duration::from_millis(120));
        Self {
            bar,
            lines: !out.json && !terminal,
            said: String::new(),
            sized: false,
        }
    }

    /// Tells what is being done, and how far that is.
    pub(super) fn show(&mut self, what: &str, progress: Option<ProgressView>) {
        let what = table::plain(what);
        match progress.and_then(|p| Some((p.done, p.total.filter(|t| *t > 0)?))) {
            Some((done, total)) => {
                if !self.sized {
                    self.bar.set_style(bytes_bar());
                    self.sized = true;
                }
                self.bar.set_length(total);
                self.bar.set_position(done);
            }
            None if self.sized => {
                self.bar.set_style(spinner());
                self.sized = false;
            }
            None => {}
        }
        if self.said != what {
            if self.lines {
                let _ = writeln!(io::stderr(), "{what}");
            }
            self.bar.set_message(what.clone());
            self.said = what;
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn spinner() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {msg} ({elapsed})")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn bytes_bar() -> ProgressStyle {
    ProgressStyle::with_template(
        "{msg} [{bar:30}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}",
    )
    .map(|style| style.progress_chars("=> "))
    .unwrap_or_else(|_| ProgressStyle::default_bar())
}
