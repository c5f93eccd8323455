//! What has to hold all the way, and the first time that it did not.

use std::collections::BTreeMap;

use super::super::human::Count;
use super::super::verdict::Verdict;

/// Every page of the pool is in exactly one place.
pub(super) const ONE_PLACE: &str = "every page is with the manager, withdrawn, or with one host";
/// The extents of a host, by its books and by its pgmap.
pub(super) const BOOKS: &str = "the books of each host, its extents and the manager agree";
/// The folios of a host, by its machines and by its pgmap.
pub(super) const FOLIOS: &str = "every folio in use is one that a machine holds, with its counts";
/// Each put, compared with what the hook heard.
pub(super) const HOOK: &str = "the hook ran once for each last put, and for no other";
/// Each surprise, compared with what the hook heard.
pub(super) const TOLD: &str = "a surprise told each holder once, and nobody else";
/// No machine goes on where the device is gone.
pub(super) const GONE: &str = "no machine runs on pages that are gone";
/// What is bad is not handed out.
pub(super) const BAD_GIVEN: &str = "no machine was given a bad page";
/// Each bad page, compared with what the hook heard.
pub(super) const BAD_TOLD: &str = "a bad page was told once";
/// No page goes to two hosts by halves.
pub(super) const GIVEN: &str = "parts that were given back have left, and stay away";
/// What is bad goes along.
pub(super) const BAD_LEFT: &str = "bad pages left with their extent";
/// Nothing comes of what is refused.
pub(super) const REFUSED: &str = "what was refused changed nothing";
/// The crate's own look at its words.
pub(super) const SOUND: &str = "the metadata is sound";
/// Refusals for which there is no reason.
pub(super) const POSSIBLE: &str = "nothing impossible was met";

const ALL: [&str; 13] = [
    ONE_PLACE, BOOKS, FOLIOS, HOOK, TOLD, GONE, BAD_GIVEN, BAD_TOLD, GIVEN, BAD_LEFT, REFUSED,
    SOUND, POSSIBLE,
];

/// How often each claim was looked at, and how it failed first.
#[derive(Debug, Default)]
pub(super) struct Claims(BTreeMap<&'static str, (u64, Option<String>)>);

impl Claims {
    /// Takes note of one look at a claim.
    pub(super) fn look(&mut self, claim: &'static str, result: Result<(), String>) {
        let (nr_looks, failure) = self.0.entry(claim).or_default();
        *nr_looks += 1;
        if failure.is_none() {
            *failure = result.err();
        }
    }

    /// Takes note of whether two values are the same.
    pub(super) fn same<T: core::fmt::Debug + Eq>(
        &mut self,
        claim: &'static str,
        what: &str,
        found: &T,
        expected: &T,
    ) {
        let differ = || format!("{what}: {found:?} instead of {expected:?}");
        self.look(claim, if found == expected { Ok(()) } else { Err(differ()) });
    }

    /// Passes everything on; what was never looked at holds no less than it says.
    pub(super) fn tell(self, verdict: &mut Verdict) {
        for claim in ALL {
            let (nr_looks, failure) = self.0.get(claim).cloned().unwrap_or_default();
            verdict.note(claim, failure.map_or(Ok(format!("{} times", Count(nr_looks))), Err));
        }
    }
}
