//! What handles and errors look like in a log: `Debug` and `Display` of each, word by word.
//!
//! The text is part of the interface to those who search logs. Changing it is fine, but shows up
//! here. Errors are lower case and end without a period, so that they can be put into sentences.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test may panic"
)]

#[path = "errors/world.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod world;

#[path = "snapshots/errors.rs"]
mod errors;
#[path = "snapshots/handles.rs"]
mod handles;
#[path = "snapshots/plans.rs"]
mod plans;
#[path = "snapshots/values.rs"]
mod values;

/// Compares `Debug`.
macro_rules! debug {
    ($($value:expr => $expected:literal),+ $(,)?) => {
        $(assert_eq!(format!("{:?}", $value), $expected);)+
    };
}

/// Compares `Debug` and `Display`, and the latter with the rules for errors.
macro_rules! error {
    ($($value:expr => $debug:literal, $display:literal);+ $(;)?) => {
        $(
            assert_eq!(format!("{:?}", $value), $debug);
            $crate::said(&$value, $display);
        )+
    };
}

pub(crate) use {debug, error};

#[track_caller]
fn said(error: &dyn core::error::Error, expected: &str) {
    let text = error.to_string();
    assert_eq!(text, expected);
    assert!(!text.starts_with(char::is_uppercase), "{text} starts a sentence");
    assert!(!text.ends_with(['.', '!', '\n']), "{text} ends a sentence");
}
