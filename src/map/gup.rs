//! Lockless lookups through a page table: from an address to a counted folio.
//!
//! A leaf is read, a count is taken, and the leaf is read again. If it is still there, it was there
//! while the count was held; if it is not, the count may be on anything and goes back. No owner is
//! asked for its type, no bit of the entry says "special": the count alone decides.

use core::fmt;

use super::leaf::{Access, Leaf, Rights};
use super::table::LeafReader;
use super::virt::{Vpn, VpnRange};
use crate::folio::{CountError, PinKind};
use crate::meta::Count;
use crate::meta::word::Refused;
use crate::pgmap::{AddRefused, AnyFolio, AnyPin, AnyPlace, Directory, Known, LongtermPins};
use crate::units::{Pfn, PfnRange};

/// How often [`gup`] looks, at most.
const TURNS_MAX: u32 = 64;

/// What a lookup takes.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum GupTake {
    /// A reference: `FOLL_GET`.
    Reference,
    /// A pin: `FOLL_PIN`, and `FOLL_LONGTERM` if that is its kind.
    Pin(PinKind),
}

/// The count that a lookup took.
#[derive(Debug)]
pub enum GupHold<'d> {
    /// A reference.
    Reference(AnyFolio<'d>),
    /// A pin.
    Pin(AnyPin<'d>),
}

/// A run of pages of one folio, behind as many addresses, held by one count.
#[derive(Debug)]
#[must_use = "dropping it drops the count"]
pub struct GupRun<'d> {
    /// The pages.
    pub pages: PfnRange,
    /// The count.
    pub hold: GupHold<'d>,
}

/// Looks up what maps the addresses of `range`, as far as that is one run of one folio, and takes
/// one count on it.
///
/// Success means that each of the pages was mapped at its address, with the rights that `access`
/// takes, at an instant at which the count was held. For the rest of the range look again from
/// there. Mirrors `get_user_pages_fast_only` and `pin_user_pages_fast_only`.
///
/// # Errors
///
/// Says what is in the way; nothing is held then. [`GupError::is_transient`] tells what a fault may
/// mend.
///
/// # Context
///
/// Anywhere, interrupts included, beside whoever changes the page table; takes no lock. A count
/// that goes back may be the last one, and that is the full put, hook and all, unless the owner's
/// policy defers it.
pub fn gup_fast<'d>(
    reader: &impl LeafReader,
    directory: &Directory<'d>,
    range: VpnRange,
    access: Access,
    take: GupTake,
) -> Result<GupRun<'d>, GupError> {
    let vpn = range.start();
    let leaf = read(reader, vpn, access)?;
    let pfn = leaf.page_at(vpn);
    let place = match directory.place_of(pfn) {
        Known::Folio(place) => place,
        Known::Foreign => return Err(GupError::Foreign { vpn, pfn }),
        // Gone since the leaf was read.
        Known::NoFolio => return Err(GupError::Changed { vpn }),
    };
    let hold = hold(place, pfn, take)?;
    // Behind the count: the second look, which counts.
    let again = read(reader, vpn, access);
    if !again.is_ok_and(|again| again.is_same(&leaf)) && !seeded!(GupLooksOnce) {
        return Err(GupError::Changed { vpn });
    }
    // The order is stable now, and the count is held already.
    let folio = place.pages();
    let mut last = pfn;
    let mut next = Some(leaf.addresses(vpn).last());
    // Ends: every turn goes on behind the leaf that was met, up to the end of the range.
    while let Some(end) = next.map(|end| end.min(range.last())) {
        let offset = end.offset_from(vpn).and_then(|offset| pfn.checked_add(offset));
        last = offset.unwrap_or(last);
        next = end.checked_add(1).filter(|&next| range.contains(next)).and_then(|vpn| {
            let leaf = read(reader, vpn, access).ok()?;
            // The first look may have been at a node that was used again; behind it, that is seen.
            let is_there = read(reader, vpn, access).is_ok_and(|again| again.is_same(&leaf));
            if !is_there {
                return None;
            }
            let is_next = last.checked_add(1) == Some(leaf.page_at(vpn));
            (is_next && folio.contains(leaf.pfn)).then(|| leaf.addresses(vpn).last())
        });
    }
    // `last` never lies before `pfn`.
    let pages = PfnRange::between(pfn, last).ok_or(GupError::Changed { vpn })?;
    Ok(GupRun { pages, hold })
}

/// Reads a leaf and checks its rights.
fn read(reader: &impl LeafReader, vpn: Vpn, access: Access) -> Result<Leaf, GupError> {
    let leaf = reader.read(vpn).leaf().ok_or(GupError::NotMapped { vpn })?;
    let rights = leaf.rights;
    if rights.contains(access.rights()) {
        Ok(leaf)
    } else {
        Err(GupError::Denied { vpn, rights, access })
    }
}

/// Takes a count on the folio that covers `pfn`.
fn hold<'d>(place: AnyPlace<'d>, pfn: Pfn, take: GupTake) -> Result<GupHold<'d>, GupError> {
    let count = match take {
        GupTake::Reference => Count::Refs,
        GupTake::Pin(_) => Count::Pins,
    };
    let is_longterm = take == GupTake::Pin(PinKind::Longterm);
    if is_longterm {
        check_longterm(place)?;
    }
    let nr = if seeded!(PinUncounted) && count == Count::Pins { 0 } else { 1 };
    place.add(count, nr, pfn).map_err(|refused| match refused {
        AddRefused::Dying => GupError::Count(CountError::Dying),
        AddRefused::Word(refused @ Refused::Limit { .. }) => {
            GupError::Count(CountError::refused(refused, count, place.head(), pfn))
        }
        AddRefused::Word(Refused::Closed) => GupError::Closed { head: place.head() },
        AddRefused::Word(Refused::NotLive) => GupError::NotLive { pfn },
    })?;
    Ok(match take {
        GupTake::Reference => GupHold::Reference(AnyFolio::new(place)),
        GupTake::Pin(_) => {
            let pin = AnyPin::new(place);
            if is_longterm {
                // ORDERING(hold): behind the fence of `add`; the pin goes back if it is refused.
                check_longterm(place)?;
            }
            GupHold::Pin(pin)
        }
    })
}

/// Refuses long-term pins where they are not granted at this moment.
fn check_longterm(place: AnyPlace<'_>) -> Result<(), GupError> {
    let head = place.head();
    match place.core().longterm_pins() {
        LongtermPins::Allow => Ok(()),
        LongtermPins::Refuse => Err(GupError::LongtermRefused { head }),
        LongtermPins::Lease => Err(GupError::LeaseNeeded { head }),
    }
}

/// Looks up like [`gup_fast`], and has the embedder fault pages in until that succeeds.
///
/// `fault_fn` is given an address, and what is to be done there; it maps the page or says why not.
/// Mirrors `pin_user_pages`.
///
/// # Errors
///
/// [`GupSlowError::Fault`] with what `fault_fn` returned, [`GupSlowError::Refused`] where no fault
/// helps, [`GupSlowError::Contended`] if what was faulted in is gone again, time after time.
///
/// # Context
///
/// Whatever `fault_fn` allows; and what [`gup_fast`] says.
pub fn gup<'d, E>(
    reader: &impl LeafReader,
    directory: &Directory<'d>,
    range: VpnRange,
    access: Access,
    take: GupTake,
    mut fault_fn: impl FnMut(Vpn, Access) -> Result<(), E>,
) -> Result<GupRun<'d>, GupSlowError<E>> {
    let mut last = GupError::NotMapped { vpn: range.start() };
    for _ in 0..TURNS_MAX {
        match gup_fast(reader, directory, range, access, take) {
            Ok(run) => return Ok(run),
            Err(error) if error.is_transient() => last = error,
            Err(error) => return Err(GupSlowError::Refused(error)),
        }
        // A leaf that has just changed may be there at the next look.
        if !matches!(last, GupError::Changed { .. }) {
            fault_fn(range.start(), access).map_err(GupSlowError::Fault)?;
        }
    }
    Err(GupSlowError::Contended(last))
}

/// Why a lookup took nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum GupError {
    /// Nothing is mapped there.
    NotMapped {
        /// The address.
        vpn: Vpn,
    },
    /// The leaf does not allow it; a leaf without rights allows nothing.
    Denied {
        /// The address.
        vpn: Vpn,
        /// What it allows.
        rights: Rights,
        /// What was asked for.
        access: Access,
    },
    /// The leaf changed meanwhile.
    Changed {
        /// The address.
        vpn: Vpn,
    },
    /// No owner has the page; it is the embedder's business.
    Foreign {
        /// The address.
        vpn: Vpn,
        /// The page.
        pfn: Pfn,
    },
    /// The page is mapped, but the folio around it is not live.
    NotLive {
        /// The page.
        pfn: Pfn,
    },
    /// The folio refuses newcomers for now.
    Closed {
        /// The head of the folio.
        head: Pfn,
    },
    /// The policy of the owner grants no long-term pins.
    LongtermRefused {
        /// The head of the folio.
        head: Pfn,
    },
    /// The policy of the owner grants long-term pins as leases only.
    LeaseNeeded {
        /// The head of the folio.
        head: Pfn,
    },
    /// The count is at its limit, or the pgmap is being removed.
    Count(CountError),
}

impl GupError {
    /// Returns whether a fault, or another look, may mend it.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::NotMapped { .. }
            | Self::Denied { .. }
            | Self::Changed { .. }
            | Self::NotLive { .. }
            | Self::Closed { .. } => true,
            Self::Foreign { .. }
            | Self::LongtermRefused { .. }
            | Self::LeaseNeeded { .. }
            | Self::Count(_) => false,
        }
    }
}

impl fmt::Display for GupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotMapped { vpn } => write!(f, "nothing is mapped at {vpn}"),
            Self::Denied { vpn, rights, access } => {
                write!(f, "{access:?} at {vpn}, which allows {rights:?}")
            }
            Self::Changed { vpn } => write!(f, "the leaf at {vpn} has changed"),
            Self::Foreign { vpn, pfn } => write!(f, "page {pfn} at {vpn} has no owner"),
            Self::NotLive { pfn } => write!(f, "no live folio covers page {pfn}"),
            Self::Closed { head } => write!(f, "folio {head} is closed"),
            Self::LongtermRefused { head } => {
                write!(f, "the policy of folio {head} refuses long-term pins")
            }
            Self::LeaseNeeded { head } => {
                write!(f, "the policy of folio {head} grants long-term pins as leases only")
            }
            Self::Count(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for GupError {}

/// Why [`gup`] took nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum GupSlowError<E> {
    /// No fault would help.
    Refused(GupError),
    /// The fault failed.
    Fault(E),
    /// What was faulted in was gone again, time after time.
    Contended(GupError),
}

impl<E: fmt::Display> fmt::Display for GupSlowError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => error.fmt(f),
            Self::Fault(error) => error.fmt(f),
            Self::Contended(error) => write!(f, "{error}, time after time"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for GupSlowError<E> {}
