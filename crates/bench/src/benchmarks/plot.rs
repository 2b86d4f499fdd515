//! The results as a picture: bars in SVG.
//!
//! A panel has one bar for each lock of one benchmark. Each panel has its own scale, from 0 to its longest bar.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::SystemTime,
};

use commonhold_console::failure::{Doing, Failure, broken};
use plotters::{
    coord::Shift,
    element::{Rectangle, Text},
    prelude::{DrawingArea, IntoDrawingArea, RGBColor, SVGBackend, WHITE},
    style::{
        Color, IntoFont, TextStyle,
        text_anchor::{HPos, Pos, VPos},
    },
};

use super::line::{Line, count, nanos, notes};

/// How many panels of one benchmark stand side by side at most.
const COLUMNS: usize = 3;
pub(super) const MARGIN: i32 = 28;
const HEADER: i32 = 92;
const FOOTER: i32 = 34;
const PANEL: i32 = 480;
/// Heights in a panel: the title, one bar, and the space below.
const TITLE: i32 = 30;
const ROW: i32 = 22;
const GAP: i32 = 26;
/// Widths in a panel: left of the bars, and right of the longest bar.
const LABELS: i32 = 158;
const VALUES: i32 = 134;

pub(super) const OURS: RGBColor = RGBColor(204, 85, 0);
const THEIRS: RGBColor = RGBColor(150, 162, 176);
pub(super) const INK: RGBColor = RGBColor(33, 37, 41);
pub(super) const FAINT: RGBColor = RGBColor(100, 108, 116);

pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A file for a picture.
#[derive(Debug)]
pub(super) struct Plot(PathBuf);

/// One bar.
#[derive(Debug, PartialEq)]
struct Bar {
    label: &'static str,
    value: f64,
    text: String,
    ours: bool,
}

/// Bars that are compared with each other.
#[derive(Debug, PartialEq)]
struct Panel {
    title: String,
    bars: Vec<Bar>,
}

impl Plot {
    pub(super) fn create(path: &Path) -> Result<Self, Failure> {
        File::create(path).doing(|| format!("make {}", path.display()))?;
        Ok(Self(path.to_owned()))
    }

    pub(super) fn draw(self, lines: &[Line]) -> Result<(), Failure> {
        let rows = rows(lines);
        let height = HEADER + FOOTER + rows.iter().map(|row| height(row)).sum::<i32>();
        let columns = i32::try_from(COLUMNS).unwrap_or(i32::MAX);
        let width = (2 * MARGIN + columns.saturating_mul(PANEL)).unsigned_abs();
        let notes = notes(lines);
        self.picture((width, height.unsigned_abs()), |area| picture(area, &rows, &notes))
    }

    /// Writes the picture that `paint` draws, in this size in pixels.
    pub(super) fn picture(
        self,
        size: (u32, u32),
        paint: impl FnOnce(&Area<'_>) -> Result<(), String>,
    ) -> Result<(), Failure> {
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
            paint(&area)
                .and_then(|()| area.present().map_err(|error| error.to_string()))
                .map_err(|why| broken(format!("draw the plot: {why}")))?;
        }
        fs::write(&self.0, svg).doing(|| format!("write {}", self.0.display()))
    }
}

/// A figure: its name, the values of both sides in a line, and how a value is written.
type Metric = (&'static str, fn(&Line) -> (Option<f64>, Option<f64>), fn(f64) -> String);

const METRICS: [Metric; 4] = [
    ("99th percentile", |line| (line.p99_ns, line.peer_p99_ns), nanos),
    ("longest wait", |line| (line.longest_ns, line.peer_longest_ns), nanos),
    (
        "largest share by smallest",
        |line| (line.share, line.peer_share),
        |share| format!("{share:.2}"),
    ),
    ("median time", |line| (Some(line.ours_ns), line.peer_ns), nanos),
];

/// Panels in rows: the panels of one benchmark stay in one row, and a row has as many benchmarks as fit.
fn rows(lines: &[Line]) -> Vec<Vec<Panel>> {
    let mut rows: Vec<Vec<Panel>> = Vec::new();
    for group in lines.chunk_by(|one, two| one.name == two.name) {
        let panels = panels(group);
        match rows.last_mut() {
            Some(row) if row.len() + panels.len() <= COLUMNS => row.extend(panels),
            _ => rows.push(panels),
        }
    }
    rows
}

fn panels(group: &[Line]) -> Vec<Panel> {
    let Some(first) = group.first() else { return Vec::new() };
    let [others @ .., median] = METRICS;
    let throughput: Metric = ("time between two turns", median.1, |ns| {
        format!("{} ({}/s)", nanos(ns), count(1e9 / ns.max(1e-9)))
    });
    let main = if first.per_s.is_some() { throughput } else { median };
    let panel = |(what, figures, show): Metric| {
        let bar = |label, value, ours| Bar { label, value, text: show(value), ours };
        let ours = bar("commonhold", figures(first).0?, true);
        let peers =
            group.iter().filter_map(|line| Some(bar(line.against, figures(line).1?, false)));
        let title = format!("{}: {what}", first.name);
        Some(Panel { title, bars: std::iter::once(ours).chain(peers).collect() })
    };
    std::iter::once(main).chain(others).filter_map(panel).collect()
}

fn height(row: &[Panel]) -> i32 {
    let bars = row.iter().map(|panel| panel.bars.len()).max().unwrap_or(0);
    TITLE + GAP + ROW.saturating_mul(i32::try_from(bars).unwrap_or(i32::MAX))
}

fn picture(area: &Area<'_>, rows: &[Vec<Panel>], notes: &[String]) -> Result<(), String> {
    area.fill(&WHITE).map_err(|error| error.to_string())?;
    let build = if cfg!(debug_assertions) { "; not a release build" } else { "" };
    write(area, "Commonhold and its peers, in one run", (MARGIN, 30), &style(22.0, &INK))?;
    let what = "shorter is better; each panel has a scale of its own, from 0 to its longest bar";
    write(area, what, (MARGIN, 54), &style(14.0, &FAINT))?;
    write(area, &format!("{}{build}", machine()), (MARGIN, 74), &style(14.0, &FAINT))?;
    let mut top = HEADER;
    for row in rows {
        let mut left = MARGIN;
        for panel in row {
            draw(area, panel, (left, top))?;
            left += PANEL;
        }
        top += height(row);
    }
    write(area, &notes.join("; "), (MARGIN, top + 8), &style(14.0, &FAINT))
}

fn draw(area: &Area<'_>, panel: &Panel, (left, top): (i32, i32)) -> Result<(), String> {
    write(area, &panel.title, (left, top + TITLE / 2), &style(15.0, &INK))?;
    let longest = panel.bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
    let room = PANEL - LABELS - VALUES;
    for (bar, index) in panel.bars.iter().zip(0..) {
        let middle = top + TITLE + ROW * index + ROW / 2;
        let color = if bar.ours { OURS } else { THEIRS };
        let text = style(13.0, if bar.ours { &OURS } else { &INK });
        let start = left + LABELS;
        let end = start + length(bar.value, longest, room);
        let right = text.pos(Pos::new(HPos::Right, VPos::Center));
        write(area, bar.label, (start - 8, middle), &right)?;
        let corners = [(start, middle - ROW / 2 + 3), (end, middle + ROW / 2 - 3)];
        let shape = Rectangle::new(corners, color.filled());
        area.draw(&shape).map_err(|error| error.to_string())?;
        let left_of = right.pos(Pos::new(HPos::Left, VPos::Center));
        write(area, &bar.text, (end + 6, middle), &left_of)?;
    }
    Ok(())
}

/// Length of a bar in pixels; at least one, so that it can be seen.
#[allow(clippy::cast_possible_truncation, reason = "a part of `room`")]
fn length(value: f64, longest: f64, room: i32) -> i32 {
    let part = if longest > 0.0 { (value / longest).clamp(0.0, 1.0) } else { 0.0 };
    ((part * f64::from(room)).round() as i32).max(1)
}

pub(super) fn style<'a>(size: f64, color: &'a RGBColor) -> TextStyle<'a> {
    let style = TextStyle::from(("sans-serif", size).into_font()).color(color);
    style.pos(Pos::new(HPos::Left, VPos::Center))
}

pub(super) fn write(
    area: &Area<'_>,
    text: &str,
    at: (i32, i32),
    style: &TextStyle<'_>,
) -> Result<(), String> {
    area.draw(&Text::new(text, at, style)).map_err(|error| error.to_string())
}

/// A description of the machine and the date.
fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or(std::env::consts::ARCH, |(_, model)| model.trim());
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = rustix::system::uname();
    let date = humantime::format_rfc3339_seconds(SystemTime::now());
    let release = kernel.release().to_string_lossy();
    format!("{model}, {processors} processors, Linux {release}; {date}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::benchmarks::line::Figures;

    fn line(name: &'static str, against: &'static str, share: Option<f64>) -> Line {
        let ours = Figures { ns: 10.0, share, ..Figures::default() };
        let peer = Figures { ns: 20.0, share, ..Figures::default() };
        Line::of(name, against, &ours, (against != "absent").then_some(&peer))
    }

    #[test]
    fn a_panel_has_ours_once_and_every_peer_that_was_measured() {
        let group = [line("a", "one", None), line("a", "absent", None), line("a", "two", None)];
        let [panel] = &panels(&group)[..] else { panic!("one panel") };
        let labels: Vec<_> = panel.bars.iter().map(|bar| (bar.label, bar.ours)).collect();
        assert_eq!(labels, [("commonhold", true), ("one", false), ("two", false)]);
        assert_eq!(panel.bars[1].text, "20.0 ns");
    }

    #[test]
    fn the_panels_of_a_benchmark_stand_in_one_row() {
        let lines = [
            line("a", "one", None),
            line("b", "one", None),
            line("c", "one", Some(1.0)),
            line("d", "one", None),
        ];
        let rows = rows(&lines);
        let titles: Vec<Vec<&str>> = rows
            .iter()
            .map(|row| row.iter().map(|panel| panel.title.split_once(':').unwrap().0).collect())
            .collect();
        assert_eq!(titles, [&["a", "b"][..], &["c", "c", "d"][..]]);
    }

    #[test]
    fn a_bar_is_proportional_to_the_longest_and_always_visible() {
        assert_eq!(length(50.0, 100.0, 200), 100);
        assert_eq!(length(100.0, 100.0, 200), 200);
        assert_eq!(length(0.001, 100.0, 200), 1);
        assert_eq!(length(0.0, 0.0, 200), 1);
        assert_eq!(length(f64::NAN, 100.0, 200), 1);
    }
}
