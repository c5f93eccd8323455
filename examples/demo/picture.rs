//! The pool as a picture: one square for each GiB, and every folio where it lies.
//!
//! Inside a square the pages follow a Z: the upper bits of a page's number choose the left or
//! right half, then the upper or lower half of that, and so on. So every folio, being a naturally
//! aligned power of two, is a square or two squares side by side, and its buddy touches it.

use core::fmt::Write;
use std::collections::BTreeMap;

use devfolio::{FolioInfo, FolioKind, Order, Pfn, PfnRange};

use super::human::{Bytes, percent};

/// The area that the squares share, in pixels.
const AREA: f64 = 1_200.0 * 1_000.0;
const WIDTH: f64 = 1_200.0;
const MARGIN: f64 = 24.0;
const HEADER: f64 = 112.0;

/// No square is larger.
const CELL_MAX: f64 = 96.0;

/// The gap between squares, as a share of them.
const GAP: f64 = 0.08;

/// Folios with a shorter side are drawn together.
const SIDE_MIN: f64 = 1.5;

/// How folios of some orders look.
struct Class {
    least: u8,
    label: &'static str,
    color: [u8; 3],
}

/// Descending, so that the first one that fits is the right one.
const CLASSES: [Class; 6] = [
    Class { least: 18, label: "1 GiB", color: [0x1d, 0x4e, 0x89] },
    Class { least: 17, label: "512 MiB", color: [0x1f, 0x8a, 0x9e] },
    Class { least: 16, label: "256 MiB", color: [0x4f, 0xb4, 0x77] },
    Class { least: 13, label: "32 to 128 MiB", color: [0xb7, 0xc9, 0x4f] },
    Class { least: 9, label: "2 to 16 MiB", color: [0xf0, 0xa2, 0x3b] },
    Class { least: 0, label: "below 2 MiB", color: [0xcc, 0x3f, 0x55] },
];

const PAPER: &str = "#fbfaf7";
const FREE: &str = "#e6e3dc";
const INK: &str = "#22262b";
const FAINT: &str = "#6b7075";

/// Neighbouring requests get one of so many shades, so that they can be told apart.
const SHADES: u32 = 3;

/// A group of folios that look the same.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Look {
    class: usize,
    is_kept: bool,
    shade: u32,
}

impl Look {
    fn of(folio: &FolioInfo, request: u32) -> Self {
        let order = folio.order.as_u8();
        let class = CLASSES.iter().position(|class| class.least <= order).unwrap_or(0);
        let is_kept = folio.kind == FolioKind::Kept;
        Self { class, is_kept, shade: request % SHADES }
    }

    fn color(self) -> String {
        let [red, green, blue] = CLASSES.get(self.class).map_or([0; 3], |class| class.color);
        let white = f64::from(self.shade) * 0.11 + if self.is_kept { 0.45 } else { 0.0 };
        let mix = |part: u8| {
            let part = f64::from(part);
            (part + (255.0 - part) * white) as u8
        };
        format!("#{:02x}{:02x}{:02x}", mix(red), mix(green), mix(blue))
    }
}

/// Where things are drawn.
#[derive(Clone, Copy, Debug)]
struct Grid {
    /// The first page of the first square.
    base: Pfn,
    nr_columns: u64,
    nr_rows: u64,
    /// The side of a square with its gap.
    cell: f64,
    /// The smallest folio that is drawn for itself.
    least: Order,
}

/// A rectangle in pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Rect {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
}

impl Grid {
    fn new(range: PfnRange) -> Self {
        let base = range.start().head(Order::REGION);
        let last = range.last().offset_from(base).unwrap_or(0);
        let nr_cells = last / Order::REGION.nr_pages() + 1;
        let cell = (AREA / nr_cells as f64).sqrt().min(CELL_MAX);
        let nr_columns = ((WIDTH / cell) as u64).max(1);
        let cell = (WIDTH / nr_columns as f64).min(CELL_MAX);
        let side_of = |order: Order| {
            let halvings = f64::from(Order::MAX.as_u8() - order.as_u8()) / 2.0;
            cell / 2f64.powf(halvings)
        };
        let least = Order::all().find(|&order| SIDE_MIN <= side_of(order));
        let nr_rows = nr_cells.div_ceil(nr_columns);
        Self { base, nr_columns, nr_rows, cell, least: least.unwrap_or(Order::MAX) }
    }

    fn rect(&self, head: Pfn, order: Order) -> Rect {
        let offset = head.offset_from(self.base).unwrap_or(0);
        let cell = offset >> Order::REGION.as_u8();
        let size = self.cell * (1.0 - GAP);
        let mut rect = Rect {
            x: MARGIN + (cell % self.nr_columns) as f64 * self.cell,
            y: HEADER + (cell / self.nr_columns) as f64 * self.cell,
            width: size,
            height: size,
        };
        for bit in (order.as_u8()..Order::REGION.as_u8()).rev() {
            let is_upper = offset >> bit & 1 == 1;
            let (at, length) = if bit % 2 == 1 {
                (&mut rect.x, &mut rect.width)
            } else {
                (&mut rect.y, &mut rect.height)
            };
            *length /= 2.0;
            *at += if is_upper { *length } else { 0.0 };
        }
        rect
    }
}

impl Rect {
    /// Leaves a seam to the next folio where there is room for one.
    fn inset(self) -> Self {
        let seam = (self.width.min(self.height) * 0.1).min(0.6);
        Self {
            x: self.x + seam / 2.0,
            y: self.y + seam / 2.0,
            width: self.width - seam,
            height: self.height - seam,
        }
    }

    fn write_to(self, path: &mut String) {
        let Self { x, y, width, height } = self;
        // Writing to a string cannot fail.
        let _ = write!(path, "M{x:.1} {y:.1}h{width:.1}v{height:.1}h-{width:.1}z");
    }
}

/// Draws the folios of a pool, each with the number of the request that has it, as SVG.
pub(crate) fn svg(range: PfnRange, folios: &[(FolioInfo, u32)], source: &str) -> String {
    let grid = Grid::new(range);
    let mut paths: BTreeMap<Look, String> = BTreeMap::new();
    let mut small: BTreeMap<Pfn, BTreeMap<Look, u64>> = BTreeMap::new();
    let mut class_pages = [0u64; CLASSES.len()];
    for (folio, request) in folios {
        let look = Look::of(folio, *request);
        if let Some(nr_pages) = class_pages.get_mut(look.class) {
            *nr_pages += folio.order.nr_pages();
        }
        if folio.order < grid.least {
            let slot = small.entry(folio.head.head(grid.least)).or_default();
            *slot.entry(look).or_default() += folio.order.nr_pages();
        } else {
            let rect = grid.rect(folio.head, folio.order).inset();
            rect.write_to(paths.entry(look).or_default());
        }
    }
    // What is too small to be seen is shown by whoever has most of the place.
    for (head, slot) in small {
        if let Some((look, _)) = slot.into_iter().max_by_key(|&(_, nr_pages)| nr_pages) {
            grid.rect(head, grid.least).write_to(paths.entry(look).or_default());
        }
    }

    let mut free = String::new();
    for (head, order) in range.tiles() {
        grid.rect(head, order).write_to(&mut free);
    }
    let width = WIDTH + 2.0 * MARGIN;
    let height = HEADER + grid.nr_rows as f64 * grid.cell + MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
         font-family=\"system-ui, sans-serif\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"{PAPER}\"/>\n"
    );
    header(&mut svg, range, source, &class_pages);
    let _ = writeln!(svg, "<path fill=\"{FREE}\" d=\"{free}\"/>");
    for (look, path) in paths {
        let _ = writeln!(svg, "<path fill=\"{}\" d=\"{path}\"/>", look.color());
    }
    svg.push_str("</svg>\n");
    svg
}

/// Writes the title and the legend.
fn header(svg: &mut String, range: PfnRange, source: &str, class_pages: &[u64; CLASSES.len()]) {
    let used: u64 = class_pages.iter().sum();
    let pool = Bytes::of_pages(range.nr_pages());
    let share = percent(used, range.nr_pages());
    let _ = writeln!(
        svg,
        "<text x=\"{MARGIN}\" y=\"36\" font-size=\"20\" font-weight=\"600\" fill=\"{INK}\">\
         {pool} of device memory at its fullest: {share:.1} % used</text>\n\
         <text x=\"{MARGIN}\" y=\"56\" font-size=\"12\" fill=\"{FAINT}\">\
         {}</text>\n\
         <text x=\"{MARGIN}\" y=\"74\" font-size=\"12\" fill=\"{FAINT}\">\
         One square is 1 GiB; shades tell requests apart, pale folios are cached.</text>",
        escape(source)
    );
    let free = range.nr_pages().saturating_sub(used);
    let classes = CLASSES.iter().zip(class_pages).enumerate().map(|(class, (text, &nr_pages))| {
        (Look { class, is_kept: false, shade: 0 }.color(), text.label, nr_pages)
    });
    let entries = classes.chain([(FREE.to_owned(), "free", free)]);
    let step = WIDTH / (CLASSES.len() + 1) as f64;
    for (index, (color, label, nr_pages)) in entries.enumerate() {
        let x = MARGIN + index as f64 * step;
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"88\" width=\"11\" height=\"11\" rx=\"2\" fill=\"{color}\"/>\
             <text x=\"{:.1}\" y=\"98\" font-size=\"12\" fill=\"{INK}\">{label} · {:.1} %</text>",
            x + 17.0,
            percent(nr_pages, range.nr_pages())
        );
    }
}

/// Makes a text harmless inside of XML.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Grid {
        let range = PfnRange::new(Pfn::new(1 << 30), 4 << 18).unwrap();
        Grid::new(range)
    }

    #[test]
    fn buddies_share_a_side_and_tile_their_parent() {
        let grid = grid();
        for order in Order::all().filter(|&order| order < Order::MAX) {
            let head = Pfn::new(1 << 30);
            let (left, right) = (grid.rect(head, order), grid.rect(head.buddy(order), order));
            let parent = grid.rect(head, order.grow().unwrap());
            let area = |rect: Rect| rect.width * rect.height;
            assert!((area(left) + area(right) - area(parent)).abs() < 1e-6);
            assert!(left.x == right.x || left.y == right.y);
            assert_eq!((left.x, left.y), (parent.x, parent.y));
        }
    }

    #[test]
    fn a_picture_is_closed_and_escaped() {
        let range = PfnRange::new(Pfn::new(1 << 30), (4 << 18) + 77).unwrap();
        let svg = svg(range, &[], "a <b> & c");
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("a &lt;b&gt; &amp; c"));
    }
}
