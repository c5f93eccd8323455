//! What was measured, against what is to be reached.

use crate::timing::Pair;

/// How many there are when nothing is left out, without those that came later.
const NR_RATIOS: usize = 36;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    only: Option<String>,
    rows: Vec<Row>,
    /// What came later has a section of its own, so that the first one stays comparable.
    more: Vec<Row>,
    asides: Vec<String>,
}

#[derive(Debug)]
struct Row {
    name: &'static str,
    value: f64,
    goal: Goal,
    detail: String,
}

impl Row {
    fn is_ok(&self) -> bool {
        match self.goal {
            Goal::AtMost(goal) => self.value <= goal,
            Goal::AtLeast(goal) => goal <= self.value,
        }
    }

    fn line(&self) -> String {
        let (Goal::AtMost(goal) | Goal::AtLeast(goal)) = self.goal;
        let verdict = if self.is_ok() { "ok" } else { "MISSED" };
        format!("RATIO {} {:.3} {goal} {verdict}", self.name, self.value)
    }
}

impl Table {
    /// Measures only what has `only` in its name.
    pub(crate) fn new(only: Option<String>) -> Self {
        Self { only, ..Self::default() }
    }

    fn skips(&self, name: &str) -> bool {
        self.only.as_ref().is_some_and(|only| !name.contains(only.as_str()))
    }

    fn push(&mut self, row: Row) {
        println!("{}   {}", row.line(), row.detail);
        self.rows.push(row);
    }

    fn pair(
        &self,
        name: &'static str,
        goal: Goal,
        other: &str,
        measure_fn: impl FnOnce() -> Pair,
    ) -> Option<Row> {
        if self.skips(name) {
            return None;
        }
        let pair = measure_fn();
        let detail = format!("{:.2} ns; {other} {:.2} ns", pair.ours, pair.other);
        Some(Row { name, value: pair.ratio, goal, detail })
    }

    pub(crate) fn measure(
        &mut self,
        name: &'static str,
        goal: Goal,
        other: &str,
        measure_fn: impl FnOnce() -> Pair,
    ) {
        if let Some(row) = self.pair(name, goal, other, measure_fn) {
            self.push(row);
        }
    }

    #[cfg(feature = "lookup")]
    /// As [`Table::measure`], for the section of what came later.
    pub(crate) fn measure_more(
        &mut self,
        name: &'static str,
        goal: Goal,
        other: &str,
        measure_fn: impl FnOnce() -> Pair,
    ) {
        if let Some(row) = self.pair(name, goal, other, measure_fn) {
            println!("{}   {}", row.line(), row.detail);
            self.more.push(row);
        }
    }

    pub(crate) fn value(
        &mut self,
        name: &'static str,
        goal: Goal,
        measure_fn: impl FnOnce() -> f64,
    ) {
        if self.skips(name) {
            return;
        }
        let value = measure_fn();
        self.push(Row { name, value, goal, detail: String::new() });
    }

    /// A peer that no goal names, for comparison.
    pub(crate) fn aside(&mut self, name: &str, peer: &str, measure_fn: impl FnOnce() -> f64) {
        if self.skips(name) {
            return;
        }
        let line = format!("  {name}: {peer} {:.2} ns", measure_fn());
        println!("{line}");
        self.asides.push(line);
    }

    /// A line without a goal.
    pub(crate) fn line(&mut self, name: &str, line_fn: impl FnOnce() -> String) {
        if self.skips(name) {
            return;
        }
        let line = line_fn();
        println!("{line}");
        self.asides.push(line);
    }

    /// Prints all lines again, the count last, and writes all of it to a file if nothing was left
    /// out; returns whether every goal is reached.
    pub(crate) fn finish(&self, rounds: usize) -> bool {
        let mut lines: Vec<_> = self.rows.iter().map(Row::line).collect();
        lines.push(format!("RATIOS {} of {NR_RATIOS}", self.rows.len()));
        lines.extend(self.more.iter().map(|row| format!("MORE {}", row.line())));
        println!("\n{}", lines.join("\n"));
        if let (None, Some(file)) = (&self.only, std::env::var_os("RATIOS_FILE")) {
            let text = format!("{}\n{}\n", self.report(rounds), lines.join("\n"));
            if let Err(error) = std::fs::write(file, text) {
                eprintln!("the table cannot be written: {error}");
                return false;
            }
        }
        self.rows.iter().chain(&self.more).all(Row::is_ok)
    }

    /// Returns where and how it was measured, and what it took, in nanoseconds.
    fn report(&self, rounds: usize) -> String {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = info.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
        let mut lines = vec![
            format!("commit: {}", std::env::var("RATIOS_COMMIT").unwrap_or_default()),
            format!("cpu: {}", cpu.unwrap_or("unknown")),
            format!("rounds: {rounds}, interleaved, medians; seeds: fixed, see the sources"),
            format!("peers: {}", include_str!("../peers.txt").trim().replace('\n', ", ")),
            String::new(),
        ];
        let rows = self.rows.iter().chain(&self.more);
        lines.extend(rows.map(|row| format!("{:<28} {}", row.name, row.detail)));
        lines.push(String::new());
        lines.extend(self.asides.iter().cloned());
        lines.push(String::new());
        lines.join("\n")
    }
}
