//! Histories and their text form.
//!
//! ```text
//! devfolio-history v1
//! geometry max-order=18 slots=2 extent=0x0+16:dense:dirty
//! # A comment. Blank lines are skipped as well.
//! claim at=0x8 order=2
//! publish token=@0
//! ```
//!
//! A number is decimal, or hexadecimal behind `0x`. A reader of version 1 refuses every other
//! version, so the text may change without an old port reading nonsense.

use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use super::geometry::Geometry;
use super::op::{Op, OpParseError};

/// The first line of every history.
pub const HEADER: &str = "devfolio-history v1";

/// A world, and what is done in it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct History {
    /// The world.
    pub geometry: Geometry,
    /// The steps.
    pub ops: Vec<Op>,
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}\n{}", self.geometry)?;
        self.ops.iter().try_for_each(|op| writeln!(f, "{op}"))
    }
}

impl FromStr for History {
    type Err = HistoryParseError;

    fn from_str(text: &str) -> Result<Self, HistoryParseError> {
        let mut lines = text
            .lines()
            .zip(1..)
            .map(|(line, number)| (line.trim(), number))
            .filter(|(line, _)| !line.is_empty() && !line.starts_with('#'));
        if lines.next().is_none_or(|(line, _)| line != HEADER) {
            return Err(HistoryParseError::Header);
        }
        let geometry = lines.next().and_then(|(line, _)| line.parse().ok());
        let geometry = geometry.ok_or(HistoryParseError::Geometry)?;
        let ops = lines
            .map(|(line, number)| {
                line.parse().map_err(|why| HistoryParseError::Op { line: number, why })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { geometry, ops })
    }
}

/// Why a text is no history.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum HistoryParseError {
    /// The first line is not [`HEADER`].
    Header,
    /// The second line is no sound geometry.
    Geometry,
    /// A line is no operation.
    Op {
        /// Its number, from 1.
        line: usize,
        /// What is wrong with it.
        why: OpParseError,
    },
}

impl fmt::Display for HistoryParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => write!(f, "the first line is not `{HEADER}`"),
            Self::Geometry => f.write_str("the second line is no sound geometry"),
            Self::Op { line, why } => write!(f, "line {line}: {why}"),
        }
    }
}

impl core::error::Error for HistoryParseError {}
