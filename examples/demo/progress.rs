//! How far a long run has come, on stderr: a bar for people, a few lines for logs.

use core::time::Duration;
use std::io::{IsTerminal, Write, stderr};
use std::time::Instant;

const WIDTH: usize = 40;

/// A bar is redrawn this often at most.
const INTERVAL: Duration = Duration::from_millis(80);

/// The percentages that a log is told about.
const LOG_STEP: u64 = 25;

/// The state of the bar.
#[derive(Debug)]
pub(crate) struct Progress {
    style: Style,
    label: &'static str,
    end: u64,
    drawn_at: Option<Instant>,
    logged_percent: u64,
}

/// Where the progress goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Style {
    /// To a bar if stderr is a terminal, else to lines.
    Stderr,
    /// Nowhere.
    Silent,
}

impl Progress {
    /// Starts at nothing of `end`.
    pub(crate) fn new(style: Style, label: &'static str, end: u64) -> Self {
        Self { style, label, end, drawn_at: None, logged_percent: 0 }
    }

    /// Shows that `done` is reached, unless something was shown a moment ago.
    pub(crate) fn show(&mut self, done: u64) {
        let percent = (done.saturating_mul(100)).checked_div(self.end).unwrap_or(100).min(100);
        if self.style == Style::Silent {
            return;
        }
        // What goes wrong with stderr is no reason to stop; there is no place to say so either.
        if !stderr().is_terminal() {
            if self.logged_percent + LOG_STEP <= percent {
                self.logged_percent = percent - percent % LOG_STEP;
                let _ = writeln!(stderr(), "{}: {percent} %", self.label);
            }
            return;
        }
        let is_recent = self.drawn_at.is_some_and(|drawn_at| drawn_at.elapsed() < INTERVAL);
        if is_recent && done < self.end {
            return;
        }
        self.drawn_at = Some(Instant::now());
        let filled = WIDTH * percent as usize / 100;
        let bar = format!("{:━<filled$}{:─<rest$}", "", "", rest = WIDTH - filled);
        let _ = write!(stderr(), "\r{} {bar} {percent:>3} %", self.label);
        let _ = stderr().flush();
    }
}

impl Drop for Progress {
    /// Takes the bar away, so that the report starts on a clean line.
    fn drop(&mut self) {
        if self.drawn_at.is_some() {
            let _ = write!(stderr(), "\r{:width$}\r", "", width = WIDTH + self.label.len() + 8);
            let _ = stderr().flush();
        }
    }
}
