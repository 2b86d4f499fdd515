//! The results as a picture: for each trace, the major faults over the size of the memory.

use commonhold_console::failure::Failure;
use plotters::{
    chart::ChartBuilder,
    element::PathElement,
    prelude::{RGBColor, WHITE},
    style::Color,
};

use super::Finding;
use crate::benchmarks::plot::{Area, FAINT, INK, MARGIN, OURS, Plot, style, write};

/// A line in the chart: its name, colour and width, and the figure that it shows.
type Series = (&'static str, RGBColor, u32, fn(&Finding) -> f64);

/// All lines. Ours is last, so that it is drawn above the others.
const SERIES: [Series; 6] = [
    ("FIFO", RGBColor(176, 176, 176), 1, |found| found.fifo),
    ("VMS", RGBColor(120, 160, 90), 1, |found| found.vms),
    ("SIEVE", RGBColor(150, 110, 190), 1, |found| found.sieve),
    ("LRU, which sees every hit", RGBColor(60, 110, 180), 2, |found| found.lru),
    ("optimum, which knows the future", INK, 1, |found| found.optimum),
    ("commonhold", OURS, 2, |found| found.ours),
];

const COLUMNS: usize = 3;
const WIDTH: u32 = 430;
const HEIGHT: u32 = 310;
const HEADER: u32 = 112;

pub(super) fn draw(plot: Plot, findings: &[Finding]) -> Result<(), Failure> {
    let charts: Vec<&[Finding]> = findings.chunk_by(|one, two| one.trace == two.trace).collect();
    let rows = u32::try_from(charts.len().div_ceil(COLUMNS)).unwrap_or(1);
    let columns = u32::try_from(COLUMNS).unwrap_or(1);
    let size = (columns * WIDTH + 2 * MARGIN.unsigned_abs(), HEADER + rows * HEIGHT);
    plot.picture(size, |area| picture(area, &charts))
}

fn picture(area: &Area<'_>, charts: &[&[Finding]]) -> Result<(), String> {
    area.fill(&WHITE).map_err(|error| error.to_string())?;
    let title = "Which page is evicted: major faults in 1000 references";
    write(area, title, (MARGIN, 30), &style(22.0, &INK))?;
    let what = "lower is better; to the right, pages of memory; generated traces, simulated";
    write(area, what, (MARGIN, 54), &style(14.0, &FAINT))?;
    legend(area)?;
    let (_, below) = area.split_vertically(HEADER);
    let below = below.margin(0, 0, MARGIN, MARGIN);
    let rows = charts.len().div_ceil(COLUMNS);
    for (place, chart) in below.split_evenly((rows, COLUMNS)).iter().zip(charts) {
        draw_chart(place, chart).map_err(|error| format!("a chart: {error}"))?;
    }
    Ok(())
}

fn legend(area: &Area<'_>) -> Result<(), String> {
    let mut left = MARGIN;
    for (label, color, width, _) in SERIES.iter().rev() {
        let line = PathElement::new([(left, 84), (left + 24, 84)], color.stroke_width(*width));
        area.draw(&line).map_err(|error| error.to_string())?;
        write(area, label, (left + 30, 84), &style(14.0, &INK))?;
        left += 58 + 7 * i32::try_from(label.len()).unwrap_or(0);
    }
    Ok(())
}

fn draw_chart(area: &Area<'_>, chart: &[Finding]) -> Result<(), String> {
    let Some(first) = chart.first() else { return Ok(()) };
    let highest =
        SERIES.iter().flat_map(|(.., figure)| chart.iter().map(figure)).fold(1.0, f64::max);
    let widest = chart.iter().map(|found| found.memory).max().unwrap_or(1);
    let mut context = ChartBuilder::on(area)
        .margin(8)
        .margin_right(24)
        .caption(first.trace, style(16.0, &INK))
        .x_label_area_size(28)
        .y_label_area_size(44)
        .build_cartesian_2d(0..widest, 0.0..highest)
        .map_err(|error| error.to_string())?;
    context
        .configure_mesh()
        .x_labels(5)
        .y_labels(5)
        .y_label_formatter(&|faults| format!("{faults:.0}"))
        .light_line_style(WHITE)
        .bold_line_style(FAINT.mix(0.2))
        .axis_style(FAINT)
        .label_style(style(12.0, &FAINT))
        .draw()
        .map_err(|error| error.to_string())?;
    for (_, color, width, figure) in SERIES {
        let points: Vec<_> = chart.iter().map(|found| (found.memory, figure(found))).collect();
        let line = PathElement::new(points, color.stroke_width(width));
        context.draw_series([line]).map_err(|error| error.to_string())?;
    }
    Ok(())
}
