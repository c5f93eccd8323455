//! Built-in histories, drawn from the published statistics of real clouds.

mod kv;
mod quantiles;
mod vm;

pub(crate) use kv::generate as kv;
pub(crate) use vm::generate as vm;
