//! The end of a run: every invariant, one by one.

use std::io::{self, Write};

use devfolio::{Order, PfnRange, Pgmap};

use super::human::Count;
use super::ledger::Depth;
use super::owner::Owner;
use super::rng::Rng;
use super::world::World;

/// The invariants that were looked at.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    lines: Vec<(String, Result<String, String>)>,
}

impl Verdict {
    /// Whether everything holds.
    pub(crate) fn holds(&self) -> bool {
        self.lines.iter().all(|(_, result)| result.is_ok())
    }

    /// Notes whether `claim` holds.
    pub(crate) fn note(&mut self, claim: &str, result: Result<String, String>) {
        self.lines.push((claim.to_owned(), result));
    }

    /// Notes whether two numbers that should be the same are.
    pub(crate) fn note_same(&mut self, claim: &str, found: u64, expected: u64) {
        let result = if found == expected {
            Ok(Count(found).to_string())
        } else {
            Err(format!("{} instead of {}", Count(found), Count(expected)))
        };
        self.note(claim, result);
    }

    /// Looks at the pool while requests are running.
    pub(crate) fn inspect_running(&mut self, world: &World<'_, '_>, seed: u64) {
        let mut rng = Rng::new(seed, "inspection");
        let compared = world.ledger.compare(world.pgmap, Depth::Tails, &mut rng);
        let nr_folios = Count(world.ledger.nr_folios());
        self.note("every folio is as the ledger says", compared.map(|()| nr_folios.to_string()));
        let mut nr_folios = 0;
        world.pgmap.for_each_folio(|_| nr_folios += 1);
        self.note_same("there are no other folios", nr_folios, world.ledger.nr_folios());
        let all_pages = world.ledger.compare_total(world.pgmap);
        self.note(
            "all other pages are free",
            all_pages.map(|nr_pages| Count(nr_pages).to_string()),
        );
        self.inspect_words("the metadata is sound", world.pgmap);
        let calls = world.pgmap.ops().calls();
        let expected = world.ledger.hook_calls();
        self.note_same("the hook kept every cached folio", calls.nr_kept, expected.nr_kept);
        self.note_same("and freed the others", calls.nr_released, expected.nr_released);
        let found = match world.findings() {
            [] => Ok("none".to_owned()),
            findings => Err(findings.join("; ")),
        };
        self.note("nothing impossible was met", found);
    }

    /// Looks at the pool when all requests have ended.
    pub(crate) fn inspect_empty(&mut self, world: &World<'_, '_>, range: PfnRange) {
        let stats = world.pgmap.stats();
        self.note_same("nothing leaked: all pages are free", stats.free_pages, range.nr_pages());
        self.note_same("the free run is whole", stats.largest_free_run, range.nr_pages());
        for order in Order::all() {
            let expected = range.tiles().filter(|&(_, tile)| tile == order).count() as u64;
            let index = usize::from(order.as_u8());
            let found = stats.free_by_order.get(index).copied().unwrap_or(0);
            if found != expected {
                self.note_same(&format!("blocks of order {order} merged"), found, expected);
            }
        }
        let calls = world.pgmap.ops().calls();
        let found = calls.nr_released + world.tally.nr_evictions;
        let claim = "each folio was freed once, by its last holder or from the cache";
        self.note_same(claim, found, world.tally.nr_ended);
        self.inspect_words("the metadata is sound without folios, too", world.pgmap);
    }

    fn inspect_words(&mut self, claim: &str, pgmap: &Pgmap<'_, Owner>) {
        match pgmap.check() {
            Ok(_) => self.note(claim, Ok("checked".to_owned())),
            Err(error) => self.note(claim, Err(error.to_string())),
        }
    }

    /// Writes the verdict.
    ///
    /// # Errors
    ///
    /// Returns why it cannot be written.
    pub(crate) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "\nInvariants")?;
        for (claim, result) in &self.lines {
            match result {
                Ok(found) => writeln!(out, "  holds   {claim}: {found}")?,
                Err(found) => writeln!(out, "  BROKEN  {claim}: {found}")?,
            }
        }
        let nr_broken = self.lines.iter().filter(|(_, result)| result.is_err()).count();
        match nr_broken {
            0 => writeln!(out, "all {} hold", self.lines.len()),
            _ => writeln!(out, "{nr_broken} of {} are broken", self.lines.len()),
        }
    }
}
