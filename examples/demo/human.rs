//! Numbers as people read them.

use core::fmt;

/// Bytes of one page, as everywhere in this example.
pub(crate) const PAGE_BYTES: u64 = 4096;

const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// Prints a number of bytes in the largest binary unit that it fills.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bytes(pub(crate) u64);

impl Bytes {
    /// The size of that many pages; what no 64-bit number holds is shown as the largest one.
    pub(crate) fn of_pages(nr_pages: u64) -> Self {
        Self(nr_pages.saturating_mul(PAGE_BYTES))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = if self.0 == 0 { 0 } else { self.0.ilog2() / 10 };
        let unit = UNITS.get(step as usize).copied().unwrap_or("B");
        let scaled = self.0 as f64 / 2f64.powi(10 * step as i32);
        // Two digits behind the point, but none where they say nothing.
        let text = format!("{scaled:.2}");
        let text = text.strip_suffix(".00").unwrap_or(&text);
        f.pad(&format!("{text} {unit}"))
    }
}

/// Prints a number with a comma between each three digits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Count(pub(crate) u64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let mut text = String::with_capacity(digits.len() * 4 / 3);
        for (index, digit) in digits.chars().enumerate() {
            if index != 0 && (digits.len() - index) % 3 == 0 {
                text.push(',');
            }
            text.push(digit);
        }
        f.pad(&text)
    }
}

/// Returns how many percent of `whole` are `part`; of nothing, everything.
pub(crate) fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 100.0 } else { 100.0 * part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_the_largest_unit() {
        assert_eq!(Bytes(0).to_string(), "0 B");
        assert_eq!(Bytes(1023).to_string(), "1023 B");
        assert_eq!(Bytes(35 << 20).to_string(), "35 MiB");
        assert_eq!(Bytes::of_pages(7036 * 262_144 + 65_536).to_string(), "6.87 TiB");
        assert_eq!(Bytes(u64::MAX).to_string(), "16 EiB");
    }

    #[test]
    fn counts_are_grouped() {
        assert_eq!(Count(7).to_string(), "7");
        assert_eq!(Count(123).to_string(), "123");
        assert_eq!(Count(1_234_567).to_string(), "1,234,567");
    }
}
