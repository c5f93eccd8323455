//! The executable specification: what the crate does, page by page and naively.
//!
//! [`Spec`] says for each page who owns it, and keeps plain ledgers of references, pins and
//! mappings; it stands on [`Pfn`](crate::Pfn), [`Order`](crate::Order) and
//! [`PfnRange`](crate::PfnRange) alone and shares no other code with what it judges. Free space is
//! derived (a page without an owner is free), so it has nothing that could split or merge wrongly.
//!
//! An [`Op`] is one step, a [`History`] a world and its steps, with a text form that a port in
//! another language can read. Whatever implements [`Subject`] can be run through a history by
//! [`run`], which compares after every step, or with [`Looks::Few`] after some:
//!
//! * the [`Outcome`], exactly where it is determined, and for legality where there is a choice;
//! * every page that is near anything, the folios, the free runs and the statistics;
//! * the calls of the free hook: once per last put, with the order then in force;
//! * on a refusal, an image of the subject's state, which must not have changed;
//!
//! and at the end gives everything back, whereupon all pages have to be free.
//!
//! ```
//! use devfolio::model::{Geometry, History, Limits, Op, Outcome, Spec};
//!
//! let history: History = "devfolio-history v1
//!     geometry max-order=18 slots=1 extent=0x0+16:dense:dirty
//!     alloc order=4
//!     alloc order=0
//! ".parse()?;
//! // Without a subject, the specification plays one itself.
//! let limits = Limits { refs: 1 << 14, pins: 65_535, maps: (1 << 23) - 1 };
//! let mut spec = Spec::new(&history.geometry, limits);
//! for (op, succeeds) in history.ops.iter().zip([true, false]) {
//!     let op = spec.resolve(op).expect("no selector, so nothing can be missing");
//!     let (outcome, _) = spec.play(&op);
//!     assert_eq!(matches!(outcome, Outcome::Blocks(_)), succeeds);
//! }
//! # Ok::<(), devfolio::model::HistoryParseError>(())
//! ```

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "an oracle that panics has found something; nothing depends on it in production"
)]

mod field;
mod flat;
mod geometry;
mod history;
#[cfg(feature = "arbitrary")]
mod noise;
mod op;
mod outcome;
mod reference;
mod run;
mod runs;
mod spec;
mod states;
mod subject;

pub use field::{
    AnyOrder, At, Content, Count, Direction, HookStep, Lent, Node, Pages, Span, TableBudget, Term,
    Tighten, Token,
};
pub use flat::{Flat, FlatFolio, FlatLeaf, FlatLimit, FlatRefusal, FlatSpace};
pub use geometry::{
    ExtentPlan, Geometry, GeometryParseError, PolicyBits, ScrubAnswer, ScrubPolicy,
};
pub use history::{HEADER, History, HistoryParseError};
pub use op::{Op, OpParseError};
pub use outcome::{
    Block, ExtentView, Failed, FolioKind, FolioView, HookEvent, Kind, Life, Outcome, PageView,
    Refusal, Tally, Totals,
};
pub use reference::Reference;
pub use run::{Divergence, Looks, Report, run};
pub use spec::{LEASES_MAX, POISON_MAX, REVOCATIONS_MAX, Spec};
pub use states::{FolioStates, expected_states, expected_states_of};
pub use subject::{Caps, Limits, Subject};

#[cfg(all(test, not(loom)))]
mod tests;
