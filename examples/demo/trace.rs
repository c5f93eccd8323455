//! Reads a trace: one event a line, `<milliseconds> A <id> <bytes>`, or `G`, `P`, `F` with an id.
//!
//! Ids are any words. Empty lines and lines that start with `#` are skipped. The whole history
//! is checked while it is read, so that the replay never meets an impossible step.

use core::fmt;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use super::workload::{Event, Holders, Op, StepError, Workload};

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Why a trace cannot be replayed.
#[derive(Debug)]
pub(crate) enum TraceError {
    /// The file cannot be read, or not be unpacked; after so many good lines.
    Io {
        /// Lines read before.
        nr_lines: u64,
        /// What went wrong.
        error: io::Error,
    },
    /// A line is not an event.
    Line {
        /// Counted from 1.
        line: u64,
        /// What is wrong with it.
        reason: LineError,
    },
    /// There is no allocation in it.
    NoAllocation,
}

/// What is wrong with one line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum LineError {
    /// It has fewer words than its event needs.
    Missing(&'static str),
    /// The time is not a number.
    Time(String),
    /// The letter means nothing.
    Letter(String),
    /// The size is no number of bytes from 1.
    Size(String),
    /// There is more on the line than the event has.
    Excess(String),
    /// The step is impossible at this point.
    Step {
        /// The request, as the trace calls it.
        id: String,
        /// Why.
        error: StepError,
    },
    /// There are more requests than can be numbered.
    TooManyIds,
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(what) => write!(f, "{what} is missing"),
            Self::Time(word) => write!(f, "`{word}` is not a time in milliseconds"),
            Self::Letter(word) => write!(f, "`{word}` is no event; there are A, G, P and F"),
            Self::Size(word) => write!(f, "`{word}` is not a number of bytes above 0"),
            Self::Excess(word) => write!(f, "`{word}` is one word too many"),
            Self::Step { id, error } => write!(f, "request {id} {error}"),
            Self::TooManyIds => f.write_str("there are more than 2^32 requests"),
        }
    }
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { nr_lines: 0, error } => write!(f, "{error}"),
            Self::Io { nr_lines, error } => write!(f, "after line {nr_lines}: {error}"),
            Self::Line { line, reason } => write!(f, "line {line}: {reason}"),
            Self::NoAllocation => f.write_str("nothing is ever allocated"),
        }
    }
}

/// Reads the trace in `path`, which may be packed with gzip whatever it is called.
///
/// # Errors
///
/// Returns what is wrong with the file, or with which line of it.
pub(crate) fn read(path: &Path) -> Result<Workload, TraceError> {
    let io_error = |error| TraceError::Io { nr_lines: 0, error };
    let mut reader = BufReader::new(File::open(path).map_err(io_error)?);
    let is_packed = reader.fill_buf().map_err(io_error)?.starts_with(&GZIP_MAGIC);
    let reader: Box<dyn Read> =
        if is_packed { Box::new(MultiGzDecoder::new(reader)) } else { Box::new(reader) };
    parse(BufReader::new(reader), path.display().to_string())
}

/// Reads a trace from any reader.
fn parse(reader: impl BufRead, source: String) -> Result<Workload, TraceError> {
    let mut parser = Parser::default();
    let mut workload = Workload { source, events: Vec::new(), nr_ids: 0, is_shared: false };
    for (line, text) in (1..).zip(reader.lines()) {
        let text = text.map_err(|error| TraceError::Io { nr_lines: line - 1, error })?;
        let event = parser.event(&text).map_err(|reason| TraceError::Line { line, reason })?;
        if let Some(event) = event {
            workload.is_shared |= event.op == Op::Get;
            workload.events.push(event);
        }
    }
    if workload.events.is_empty() {
        return Err(TraceError::NoAllocation);
    }
    workload.nr_ids = parser.holders.len() as u32;
    Ok(workload)
}

/// What has to be remembered from line to line.
#[derive(Debug, Default)]
struct Parser {
    ids: HashMap<String, u32>,
    /// By number.
    holders: Vec<Holders>,
}

impl Parser {
    /// Reads one line; `None` if it holds no event.
    fn event(&mut self, text: &str) -> Result<Option<Event>, LineError> {
        let mut words = text.split_ascii_whitespace();
        let Some(time) = words.next().filter(|word| !word.starts_with('#')) else {
            return Ok(None);
        };
        let time_ms = time.parse().map_err(|_| LineError::Time(time.into()))?;
        let letter = words.next().ok_or(LineError::Missing("the event"))?;
        let id = words.next().ok_or(LineError::Missing("the id"))?;
        let op = match letter {
            "A" => {
                let size = words.next().ok_or(LineError::Missing("the number of bytes"))?;
                let len_bytes = size.parse().ok().filter(|&len_bytes| len_bytes != 0);
                Op::Alloc { len_bytes: len_bytes.ok_or_else(|| LineError::Size(size.into()))? }
            }
            "G" => Op::Get,
            "P" => Op::Put,
            "F" => Op::Free,
            _ => return Err(LineError::Letter(letter.into())),
        };
        if let Some(word) = words.next() {
            return Err(LineError::Excess(word.into()));
        }
        let number = self.step(id, op)?;
        Ok(Some(Event { time_ms, id: number, op }))
    }

    /// Checks one step of one request, and returns its number.
    fn step(&mut self, id: &str, op: Op) -> Result<u32, LineError> {
        let number = match self.ids.get(id) {
            Some(&number) => number,
            None => {
                let number =
                    u32::try_from(self.holders.len()).map_err(|_| LineError::TooManyIds)?;
                self.ids.insert(id.into(), number);
                self.holders.push(Holders::Absent);
                number
            }
        };
        let holders = self.holders.get_mut(number as usize).ok_or(LineError::TooManyIds)?;
        holders.step(op).map_err(|error| LineError::Step { id: id.into(), error })?;
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_text(text: &str) -> Result<Workload, TraceError> {
        parse(text.as_bytes(), "test".into())
    }

    fn error_of(text: &str) -> String {
        parse_text(text).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn events_are_read_and_ids_numbered() {
        let text = "# a comment\r\n5 A vm-a 4096\r\n\n6 G vm-a\n7 A b 8192\n9 P vm-a\n9 F vm-a\n";
        let workload = parse_text(text).unwrap();
        assert_eq!(workload.nr_ids, 2);
        assert!(workload.is_shared);
        assert_eq!(workload.sizes().collect::<Vec<_>>(), [4096, 8192]);
        assert_eq!(
            workload.events[2],
            Event { time_ms: 7, id: 1, op: Op::Alloc { len_bytes: 8192 } }
        );
    }

    #[test]
    fn a_malformed_line_is_named() {
        assert_eq!(error_of("1 A a 1\n\nx F a"), "line 3: `x` is not a time in milliseconds");
        assert_eq!(error_of("1 A a"), "line 1: the number of bytes is missing");
        assert_eq!(error_of("1 A a 0"), "line 1: `0` is not a number of bytes above 0");
        assert_eq!(error_of("1 A a -1"), "line 1: `-1` is not a number of bytes above 0");
        assert_eq!(error_of("1"), "line 1: the event is missing");
        assert_eq!(error_of("1 F"), "line 1: the id is missing");
        assert_eq!(error_of("1 B a"), "line 1: `B` is no event; there are A, G, P and F");
        assert_eq!(error_of("1 A a 1 2"), "line 1: `2` is one word too many");
    }

    #[test]
    fn an_impossible_step_is_named() {
        assert_eq!(error_of("1 A a 1\n2 F a\n3 F a"), "line 3: request a is not allocated");
        assert_eq!(error_of("1 A a 1\n2 A a 1"), "line 2: request a is allocated already");
        assert_eq!(error_of(""), "nothing is ever allocated");
    }

    #[test]
    fn a_missing_file_is_an_error() {
        assert!(matches!(read(Path::new("no/such/trace")), Err(TraceError::Io { .. })));
    }
}
