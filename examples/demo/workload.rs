//! What is replayed: events on numbered requests, and the rules that make a history valid.
//!
//! A request starts with one holder. The last holder that goes away leaves the memory cached
//! with its owner, from where the next holder takes it back; "free" takes the owner's interest
//! away as well: the memory is free at once if nobody else holds it, or when the last one stops.

use core::fmt;

use super::human::Bytes;

/// One step of a workload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Event {
    /// When it happens.
    pub(crate) time_ms: u64,
    /// The request that it is about; requests are numbered from 0 without gaps.
    pub(crate) id: u32,
    /// What happens.
    pub(crate) op: Op,
}

/// What can happen to a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Op {
    /// It is made, with so many bytes and one holder.
    Alloc {
        /// Its size, not zero.
        len_bytes: u64,
    },
    /// Another holder comes.
    Get,
    /// A holder goes.
    Put,
    /// A holder goes, or the owner drops what it cached, and nothing is cached any more.
    Free,
}

/// A whole history.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    /// Where it comes from, for the report.
    pub(crate) source: String,
    /// The valid history.
    pub(crate) events: Vec<Event>,
    /// The number of requests.
    pub(crate) nr_ids: u32,
    /// Whether requests are ever shared.
    pub(crate) is_shared: bool,
}

impl Workload {
    /// Iterates over the sizes that are asked for.
    pub(crate) fn sizes(&self) -> impl Iterator<Item = u64> {
        self.events.iter().filter_map(|event| match event.op {
            Op::Alloc { len_bytes } => Some(len_bytes),
            _ => None,
        })
    }
}

/// What became of the memory of a request after a step.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fate {
    /// Somebody holds it.
    Held,
    /// Nobody holds it, but the owner keeps it for the next holder.
    Cached,
    /// It is free.
    Gone,
}

/// The holders of one request, as the history alone tells.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Holders {
    /// There is no such request at the moment.
    #[default]
    Absent,
    /// It exists, with so many holders.
    Present {
        /// The holders; 0 for a cached one.
        nr: u32,
        /// Whether it was freed while others held it, so that the last one frees it.
        is_doomed: bool,
    },
}

impl Holders {
    /// Applies one step, and says what becomes of the memory.
    ///
    /// # Errors
    ///
    /// Returns the reason if the step is not valid now; nothing has changed then.
    pub(crate) fn step(&mut self, op: Op) -> Result<Fate, StepError> {
        let (nr, is_doomed) = match (*self, op) {
            (Self::Absent, Op::Alloc { .. }) => (1, false),
            (Self::Absent, _) => return Err(StepError::Absent),
            (Self::Present { .. }, Op::Alloc { .. }) => return Err(StepError::Present),
            (Self::Present { nr, is_doomed }, Op::Get) => {
                (nr.checked_add(1).ok_or(StepError::TooMany)?, is_doomed)
            }
            (Self::Present { nr: 0, .. }, Op::Put) => return Err(StepError::NotHeld),
            (Self::Present { is_doomed: true, .. }, Op::Free) => return Err(StepError::Doomed),
            (Self::Present { nr, is_doomed }, Op::Put) => (nr - 1, is_doomed),
            (Self::Present { nr, .. }, Op::Free) => (nr.saturating_sub(1), true),
        };
        if nr == 0 && is_doomed {
            *self = Self::Absent;
            return Ok(Fate::Gone);
        }
        *self = Self::Present { nr, is_doomed };
        Ok(if nr == 0 { Fate::Cached } else { Fate::Held })
    }

    /// Returns the number of holders.
    pub(crate) fn nr(self) -> u32 {
        match self {
            Self::Absent => 0,
            Self::Present { nr, .. } => nr,
        }
    }
}

/// Why a step is not valid.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum StepError {
    /// The request does not exist (any more).
    Absent,
    /// The request exists already.
    Present,
    /// Nobody holds it.
    NotHeld,
    /// It was freed before, and only its last holders are left.
    Doomed,
    /// More holders than anybody can count.
    TooMany,
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "is not allocated",
            Self::Present => "is allocated already",
            Self::NotHeld => "has no holder that could drop it",
            Self::Doomed => "was freed before",
            Self::TooMany => "has too many holders",
        })
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alloc { len_bytes } => write!(f, "allocate {}", Bytes(*len_bytes)),
            Self::Get => f.write_str("get"),
            Self::Put => f.write_str("put"),
            Self::Free => f.write_str("free"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(ops: &[Op]) -> Result<Vec<Fate>, StepError> {
        let mut holders = Holders::default();
        ops.iter().map(|&op| holders.step(op)).collect()
    }

    const ALLOC: Op = Op::Alloc { len_bytes: 4096 };

    #[test]
    fn the_last_holder_leaves_the_memory_cached_until_it_is_freed() {
        let fates = run(&[ALLOC, Op::Put, Op::Get, Op::Put, Op::Free]);
        let expected = [Fate::Held, Fate::Cached, Fate::Held, Fate::Cached, Fate::Gone];
        assert_eq!(fates, Ok(expected.to_vec()));
    }

    #[test]
    fn a_request_freed_while_shared_lives_until_its_last_holder_goes() {
        let fates = run(&[ALLOC, Op::Get, Op::Free, Op::Put]);
        assert_eq!(fates, Ok(vec![Fate::Held, Fate::Held, Fate::Held, Fate::Gone]));
    }

    #[test]
    fn impossible_steps_are_refused() {
        assert_eq!(run(&[Op::Free]), Err(StepError::Absent));
        assert_eq!(run(&[ALLOC, ALLOC]), Err(StepError::Present));
        assert_eq!(run(&[ALLOC, Op::Put, Op::Put]), Err(StepError::NotHeld));
        assert_eq!(run(&[ALLOC, Op::Get, Op::Free, Op::Free]), Err(StepError::Doomed));
    }
}
