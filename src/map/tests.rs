//! Unit tests of the mapping floor.

mod plan;
