//! The world in which a history takes place: extents, table budgets and the owner's policy.
//!
//! The geometry is part of the input: most faults of an allocator hide at odd tails, unaligned
//! bases, block and region borders and the top of space, so noise goes there on purpose.

use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use super::field::{AnyOrder, Field, TableBudget, number};
use super::runs::Run;
use crate::units::{Order, Pfn, PfnRange};

/// One extent and how it is attached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ExtentPlan {
    /// Its pages.
    pub range: PfnRange,
    /// Its fracture tables.
    pub tables: TableBudget,
    /// Whether its pages are known to be zero.
    pub clean: bool,
}

/// The bits of the policy that the model knows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches of the input")]
pub struct PolicyBits {
    /// The highest order of a folio.
    pub max_order: Order,
    /// Dropping an exclusive folio keeps it, instead of releasing it.
    pub keep_on_drop: bool,
    /// Folios are only claimed, never allocated.
    pub claim_only: bool,
    /// Hooks are put off until [`Op::Reap`](super::Op::Reap).
    pub deferred: bool,
    /// Long-term pins are refused.
    pub refuse_long: bool,
    /// Long-term pins are granted as leases only, unless they are refused.
    pub lease_long: bool,
    /// Folios carry owner data: a number that is written when a folio is handed out for the first
    /// time, the complement of its head, and that pieces inherit.
    pub owner_data: bool,
    /// When pages are scrubbed.
    pub scrub: ScrubPolicy,
}

/// When pages are scrubbed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ScrubPolicy {
    /// Never.
    Never,
    /// When they are freed; and when they are handed out, if they are dirty all the same.
    OnFree,
    /// When they are handed out.
    OnAlloc,
    /// When they are handed out, unless the hook says that they are for their last user.
    OnOwnerChange,
}

/// What the hook answers that scrubs pages. Those it says it has scrubbed are zero.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ScrubAnswer {
    /// They are scrubbed.
    Done,
    /// They cannot be.
    Failed,
    /// They will be.
    Later,
    /// They are for their last user.
    Same,
}

impl PolicyBits {
    /// The policy without any restriction.
    pub const PLAIN: Self = Self {
        max_order: Order::MAX,
        keep_on_drop: false,
        claim_only: false,
        deferred: false,
        refuse_long: false,
        lease_long: false,
        owner_data: false,
        scrub: ScrubPolicy::Never,
    };
}

/// The world of a history.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Geometry {
    /// What the owner decided.
    pub policy: PolicyBits,
    /// How many extents may ever be attached.
    pub slots: u8,
    /// The extents at the start; no two overlap.
    pub extents: Vec<ExtentPlan>,
    /// What the hook answers that scrubs pages, call by call; from then on, that they are.
    pub answers: Vec<ScrubAnswer>,
}

impl Geometry {
    /// Returns a world of one extent with as many tables as it can use.
    ///
    /// # Panics
    ///
    /// Panics if there is no such range.
    #[must_use]
    pub fn single(start: u64, nr_pages: u64) -> Self {
        let range = PfnRange::new(Pfn::new(start), nr_pages);
        let range = range.expect("the range of a geometry is not empty and ends in space");
        let extent = ExtentPlan { range, tables: TableBudget::Dense, clean: false };
        Self {
            policy: PolicyBits::PLAIN,
            slots: 2,
            extents: Vec::from([extent]),
            answers: Vec::new(),
        }
    }

    /// Returns whether no two extents overlap and all of them find a slot.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let overlap = self.extents.iter().enumerate().any(|(index, extent)| {
            self.extents[..index].iter().any(|other| other.range.overlaps(extent.range))
        });
        !overlap && self.extents.len() <= usize::from(self.slots)
    }

    /// Returns the number of pages of all extents.
    #[must_use]
    pub fn nr_pages(&self) -> u128 {
        self.extents.iter().map(|extent| Run::from(extent.range).nr_pages()).sum()
    }
}

/// Prints the line that stands at the top of a history.
impl fmt::Display for Geometry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PolicyBits {
            max_order,
            keep_on_drop,
            claim_only,
            deferred,
            refuse_long,
            lease_long,
            owner_data,
            scrub,
        } = self.policy;
        write!(f, "geometry max-order={max_order} slots={}", self.slots)?;
        for (flag, word) in
            [keep_on_drop, claim_only, deferred, refuse_long, owner_data, lease_long]
                .into_iter()
                .zip(FLAGS)
        {
            if flag {
                write!(f, " {word}")?;
            }
        }
        if let Some((_, word)) = SCRUBS.iter().find(|(known, _)| *known == scrub) {
            write!(f, " scrub={word}")?;
        }
        if !self.answers.is_empty() {
            f.write_str(" answers=")?;
            for answer in &self.answers {
                let letter = ANSWERS.iter().find(|(known, _)| known == answer);
                letter.map_or(Ok(()), |(_, letter)| write!(f, "{letter}"))?;
            }
        }
        for extent in &self.extents {
            let (start, nr_pages) = (extent.range.start().as_u64(), extent.range.nr_pages());
            write!(f, " extent={start:#x}+{nr_pages}:")?;
            extent.tables.print(f)?;
            f.write_str(if extent.clean { ":clean" } else { ":dirty" })?;
        }
        Ok(())
    }
}

const FLAGS: [&str; 6] =
    ["keep-on-drop", "claim-only", "deferred", "refuse-long", "owner-data", "lease-long"];

/// The policies that are said.
const SCRUBS: [(ScrubPolicy, &str); 3] = [
    (ScrubPolicy::OnFree, "on-free"),
    (ScrubPolicy::OnAlloc, "on-alloc"),
    (ScrubPolicy::OnOwnerChange, "on-owner-change"),
];

/// A letter for each answer.
const ANSWERS: [(ScrubAnswer, char); 4] = [
    (ScrubAnswer::Done, 'd'),
    (ScrubAnswer::Failed, 'f'),
    (ScrubAnswer::Later, 'l'),
    (ScrubAnswer::Same, 's'),
];

impl FromStr for Geometry {
    type Err = GeometryParseError;

    fn from_str(line: &str) -> Result<Self, GeometryParseError> {
        let mut words = line.split_ascii_whitespace();
        if words.next() != Some("geometry") {
            return Err(GeometryParseError);
        }
        let mut geometry =
            Self { policy: PolicyBits::PLAIN, slots: 2, extents: Vec::new(), answers: Vec::new() };
        for word in words {
            geometry.parse_word(word).ok_or(GeometryParseError)?;
        }
        if geometry.is_sound() { Ok(geometry) } else { Err(GeometryParseError) }
    }
}

impl Geometry {
    fn parse_word(&mut self, word: &str) -> Option<()> {
        let policy = &mut self.policy;
        match word.split_once('=') {
            Some(("max-order", order)) => policy.max_order = AnyOrder::parse(order)?.order()?,
            Some(("slots", slots)) => self.slots = slots.parse().ok()?,
            Some(("scrub", scrub)) => {
                policy.scrub = SCRUBS.iter().find(|(_, word)| *word == scrub)?.0;
            }
            Some(("answers", letters)) => {
                for letter in letters.chars() {
                    self.answers.push(ANSWERS.iter().find(|(_, known)| *known == letter)?.0);
                }
            }
            Some(("extent", extent)) => self.extents.push(parse_extent(extent)?),
            Some(_) => return None,
            None => match FLAGS.iter().position(|&flag| flag == word)? {
                0 => policy.keep_on_drop = true,
                1 => policy.claim_only = true,
                2 => policy.deferred = true,
                3 => policy.refuse_long = true,
                4 => policy.owner_data = true,
                _ => policy.lease_long = true,
            },
        }
        Some(())
    }
}

fn parse_extent(text: &str) -> Option<ExtentPlan> {
    let mut parts = text.split(':');
    let (start, nr_pages) = parts.next()?.split_once('+')?;
    let range = PfnRange::new(Pfn::new(number(start)?), number(nr_pages)?).ok()?;
    let tables = TableBudget::parse(parts.next()?)?;
    let clean = match parts.next()? {
        "clean" => true,
        "dirty" => false,
        _ => return None,
    };
    if parts.next().is_some() { None } else { Some(ExtentPlan { range, tables, clean }) }
}

/// The line is no geometry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct GeometryParseError;

impl fmt::Display for GeometryParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not the line of a geometry")
    }
}

impl core::error::Error for GeometryParseError {}
