//! Our costs against those of our peers and of the machine, side by side in one run.

#![allow(clippy::unwrap_used, reason = "a benchmark may panic")]

#[cfg(feature = "lookup")]
mod extents;
mod folio;
mod frames;
mod ours;
mod scale;
mod space;
mod table;
mod timing;

use table::Table;

fn main() {
    let mut args = std::env::args().skip(1);
    let (mut only, mut rounds) = (None, 15);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--rounds" => rounds = args.next().and_then(|arg| arg.parse().ok()).unwrap_or(rounds),
            _ => only = Some(arg),
        }
    }
    timing::pin_to_cpu(0);
    let mut table = Table::new(only);
    space::run(&mut table, rounds);
    folio::run(&mut table, rounds);
    #[cfg(feature = "lookup")]
    extents::run(&mut table, rounds);
    scale::run(&mut table, rounds);
    let is_ok = table.finish(rounds);
    std::process::exit(i32::from(!is_ok));
}
