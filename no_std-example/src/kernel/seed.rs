//! Seeded bugs: what the checks must notice.

use devfolio::seeded::{self, Bug};

use crate::machine::serial::say;
use crate::machine::start::StartInfo;

/// By the names that `run --seed` takes.
const BUGS: &[(&str, Bug)] = &[
    ("pin-takes-no-count", Bug::PinUncounted),
    ("put-before-flush", Bug::PutBeforeFlush),
    ("leaf-above-the-order", Bug::LeafAboveFolio),
    ("join-beyond-the-folio", Bug::JoinBeyondFolio),
    ("fracture-unmaps-first", Bug::FractureUnmapsFirst),
    ("fracture-stays-closed", Bug::FractureStaysClosed),
    ("gup-looks-once", Bug::GupLooksOnce),
];

/// Seeds the bug that the command line names.
pub fn plant(info: &StartInfo) -> Option<()> {
    let mut buffer = [0; 256];
    let name = info.option("seed", &mut buffer)?;
    let (name, bug) = BUGS.iter().find(|(other, _)| *other == name)?;
    say!("  seeded: {name}");
    seeded::activate_bug(*bug);
    Some(())
}
