//! The command line.

use core::fmt;
use core::str::FromStr;
use std::io::Write;
use std::path::PathBuf;

use devfolio::Order;

use super::human::PAGE_BYTES;

pub(crate) const HELP: &str = "\
Replays cloud workloads on a simulated pool of device memory.

usage: cargo demo [-- OPTIONS]
       cargo demo -- pool [OPTIONS]   hosts share a pool of dynamic capacity; `pool --help`
       cargo demo -- plan [OPTIONS]   a host gives memory back at the least cost; `plan --help`
       cargo demo -- mmu [OPTIONS]    files mapped by this host's MMU (Linux); `mmu --help`

What is replayed:
  --trace FILE      a trace, also packed with gzip; one event a line:
                    `<ms> A <id> <bytes>` allocate, `<ms> G <id>` get, `P` put, `F` free
  --load vm|kv      the built-in generator: virtual machines (default), or the blocks of a
                    key-value cache that requests share
  --events N        length of the generated history (default 500000)
  --seed N          seed of everything that is random (default 1)
  --exercise        also with a trace: pin, map, look up, split and merge folios on the way;
                    the sizes stay as the trace says
  --no-exercise     only the events themselves, also with the generator

The pool:
  --pool SIZE|peak  such as 8T or 512G, or exactly what the history needs at its peak
                    (default: 8T for the generator, peak for a trace; a trace that shares
                    memory gets 512G, or its peak if that is more)
  --prefer ORDER    the largest folio a request is given (default 18, 1 GiB)
  --least ORDER     the smallest folio a request is given; sizes are rounded up to it
                    (default: 16, or less where the sizes of the history need it)
  --tables N|dense  fracture tables: one for each block (dense), or at most N

What is shown:
  --points N        how often every folio is compared with the ledger (default 1000)
  --columns N       width of the map (default 100)
  --svg FILE        a picture of the pool at its peak

The end is a check of every invariant; the exit code is 1 if one is broken, 2 for bad arguments.
  --break SEED      flips one bit of metadata before the check, which then has to fail
  -h, --help        this text
";

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Args {
    pub(crate) load: Load,
    /// Only for generated loads.
    pub(crate) nr_events: u64,
    pub(crate) seed: u64,
    /// `None` leaves the choice to the kind of load.
    pub(crate) exercise: Option<bool>,
    /// `None` leaves the choice to the kind of load.
    pub(crate) pool: Option<Pool>,
    pub(crate) prefer: Order,
    /// `None` lets the sizes decide.
    pub(crate) least: Option<Order>,
    /// `None` asks for one for each block.
    pub(crate) tables: Option<u32>,
    pub(crate) nr_points: u64,
    pub(crate) nr_columns: usize,
    pub(crate) svg: Option<PathBuf>,
    pub(crate) break_seed: Option<u64>,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            load: Load::Vm,
            nr_events: 500_000,
            seed: 1,
            exercise: None,
            pool: None,
            prefer: Order::REGION,
            least: None,
            tables: None,
            nr_points: 1000,
            nr_columns: 100,
            svg: None,
            break_seed: None,
        }
    }
}

/// Where the history comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Load {
    /// Generated virtual machines.
    Vm,
    /// A generated key-value cache.
    Kv,
    /// A file.
    Trace(PathBuf),
}

/// How large the pool is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Pool {
    /// What the history needs at its peak.
    Peak,
    /// So many pages, not zero.
    Pages(u64),
}

/// Why the command line means nothing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum ArgsError {
    /// There is no such option.
    Unknown(String),
    /// The option needs a value, and none follows.
    Missing(String),
    /// The option takes no value, and was given one.
    Excess(String),
    /// The value means nothing to the option.
    Value { option: String, value: String, expected: &'static str },
    /// Requests cannot be given folios between these orders.
    LeastAbovePrefer { least: Order, prefer: Order },
}

impl fmt::Display for ArgsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(option) => write!(f, "there is no option `{option}`"),
            Self::Missing(option) => write!(f, "{option} needs a value"),
            Self::Excess(option) => write!(f, "{option} takes no value"),
            Self::Value { option, value, expected } => {
                write!(f, "{option} takes {expected}, not `{value}`")
            }
            Self::LeastAbovePrefer { least, prefer } => {
                write!(f, "--least {least} is above --prefer {prefer}")
            }
        }
    }
}

/// Tells what a part of the demo takes, if that was asked for.
///
/// # Errors
///
/// Returns `refusal` if it was not.
pub(crate) fn help(
    words: &[String],
    text: &str,
    refusal: &str,
    out: &mut dyn Write,
) -> Result<bool, Box<dyn core::error::Error>> {
    if words.iter().any(|word| word == "--help" || word == "-h") {
        out.write_all(text.as_bytes())?;
        return Ok(true);
    }
    Err(refusal.into())
}

/// Reads the command line without the program's name; `None` asks for help.
///
/// # Errors
///
/// Returns the first thing that means nothing.
pub(crate) fn parse(words: &[String]) -> Result<Option<Args>, ArgsError> {
    let mut args = Args::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let (option, inline) = match word.split_once('=') {
            Some((option, value)) => (option, Some(value.to_owned())),
            None => (word.as_str(), None),
        };
        let flag = match option {
            "-h" | "--help" => return Ok(None),
            "--exercise" => Some(true),
            "--no-exercise" => Some(false),
            _ => None,
        };
        if flag.is_some() {
            if inline.is_some() {
                return Err(ArgsError::Excess(option.into()));
            }
            args.exercise = flag;
            continue;
        }
        if !OPTIONS.contains(&option) {
            return Err(ArgsError::Unknown(option.into()));
        }
        let value = inline.or_else(|| words.next().cloned());
        let value = value.ok_or_else(|| ArgsError::Missing(option.into()))?;
        args.set(option, &value)?;
    }
    match args.least {
        Some(least) if args.prefer < least => {
            Err(ArgsError::LeastAbovePrefer { least, prefer: args.prefer })
        }
        _ => Ok(Some(args)),
    }
}

/// The options that take a value.
const OPTIONS: [&str; 12] = [
    "--break",
    "--columns",
    "--events",
    "--least",
    "--load",
    "--points",
    "--pool",
    "--prefer",
    "--seed",
    "--svg",
    "--tables",
    "--trace",
];

impl Args {
    fn set(&mut self, option: &str, value: &str) -> Result<(), ArgsError> {
        let value = Value { option, text: value };
        match option {
            "--break" => self.break_seed = Some(value.number()?),
            "--columns" => self.nr_columns = value.in_range(8, 500)?,
            "--events" => self.nr_events = value.in_range(1, 1_000_000_000)?,
            "--least" => self.least = Some(value.order()?),
            "--load" => {
                self.load = match value.text {
                    "vm" => Load::Vm,
                    "kv" => Load::Kv,
                    _ => return Err(value.error("vm or kv")),
                }
            }
            "--points" => self.nr_points = value.number()?,
            "--pool" => self.pool = Some(value.pool()?),
            "--prefer" => self.prefer = value.order()?,
            "--seed" => self.seed = value.number()?,
            "--svg" => self.svg = Some(value.path()?),
            "--tables" if value.text == "dense" => self.tables = None,
            "--tables" => {
                let number = value.text.parse();
                self.tables =
                    Some(number.map_err(|_| value.error("`dense` or a number below 2^32"))?);
            }
            "--trace" => self.load = Load::Trace(value.path()?),
            _ => return Err(ArgsError::Unknown(option.into())),
        }
        Ok(())
    }
}

/// The value of an option, on its way to a type.
struct Value<'a> {
    option: &'a str,
    text: &'a str,
}

impl Value<'_> {
    fn error(&self, expected: &'static str) -> ArgsError {
        ArgsError::Value { option: self.option.into(), value: self.text.into(), expected }
    }

    fn number(&self) -> Result<u64, ArgsError> {
        self.text.parse().map_err(|_| self.error("a number"))
    }

    fn in_range<T: FromStr + PartialOrd>(&self, min: T, max: T) -> Result<T, ArgsError> {
        let number: Option<T> = self.text.parse().ok();
        number
            .filter(|number| (min..=max).contains(number))
            .ok_or_else(|| self.error("a reasonable number"))
    }

    fn order(&self) -> Result<Order, ArgsError> {
        let order = self.text.parse().ok().and_then(Order::new);
        order.ok_or_else(|| self.error("an order from 0 to 18"))
    }

    fn path(&self) -> Result<PathBuf, ArgsError> {
        if self.text.is_empty() {
            return Err(self.error("the name of a file"));
        }
        Ok(self.text.into())
    }

    fn pool(&self) -> Result<Pool, ArgsError> {
        const EXPECTED: &str = "`peak`, or a size from one page to 64T such as 8T, 512G or 35M";
        if self.text == "peak" {
            return Ok(Pool::Peak);
        }
        let pages = parse_size(self.text).filter(|&bytes| bytes <= 64 << 40);
        match pages.map(|bytes| bytes / PAGE_BYTES) {
            None | Some(0) => Err(self.error(EXPECTED)),
            Some(nr_pages) => Ok(Pool::Pages(nr_pages)),
        }
    }
}

/// Reads a size such as `8T`, `7036.25G`, `512MiB` or `4096`.
fn parse_size(text: &str) -> Option<u64> {
    let upper = text.to_ascii_uppercase();
    let short = upper.strip_suffix("IB").or_else(|| upper.strip_suffix('B')).unwrap_or(&upper);
    let split = short.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(short.len());
    let (number, unit) = short.split_at_checked(split)?;
    let shift = match unit {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok()? * (1u64 << shift) as f64;
    // Below 2^53 every whole number of bytes is exact.
    (bytes.is_finite() && (0.0..9e15).contains(&bytes)).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Result<Option<Args>, ArgsError> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        parse(&words)
    }

    fn error_of(line: &str) -> String {
        parse_line(line).unwrap_err().to_string()
    }

    #[test]
    fn options_take_values_in_both_spellings() {
        let args =
            parse_line("--trace=a.gz --seed 7 --pool 7036.25GiB --least 8").unwrap().unwrap();
        assert_eq!(args.load, Load::Trace("a.gz".into()));
        assert_eq!(args.seed, 7);
        assert_eq!(args.pool, Some(Pool::Pages(7036 * 262_144 + 65_536)));
        assert_eq!(args.least, Order::new(8));
        assert_eq!(parse_line("--events 5 --help"), Ok(None));
        assert_eq!(parse_line(""), Ok(Some(Args::default())));
    }

    #[test]
    fn what_means_nothing_is_named() {
        assert_eq!(error_of("--frobnicate 3"), "there is no option `--frobnicate`");
        assert_eq!(error_of("trace.gz"), "there is no option `trace.gz`");
        assert_eq!(error_of("--seed"), "--seed needs a value");
        assert_eq!(error_of("--seed x"), "--seed takes a number, not `x`");
        assert_eq!(error_of("--exercise=1"), "--exercise takes no value");
        assert_eq!(error_of("--least 19"), "--least takes an order from 0 to 18, not `19`");
        assert_eq!(error_of("--least 9 --prefer 3"), "--least 9 is above --prefer 3");
        assert!(error_of("--pool 0").starts_with("--pool takes `peak`, or a size"));
        for pool in ["8X", "G", "-8G", "nan", "1e300T", "65T", ""] {
            assert!(parse(&["--pool".into(), pool.into()]).is_err(), "{pool}");
        }
    }

    #[test]
    fn every_option_is_in_the_help() {
        assert!(OPTIONS.iter().all(|option| HELP.contains(option)));
    }
}
