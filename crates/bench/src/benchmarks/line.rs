//! The result of a benchmark: a line of the table, and of the JSON.

use commonhold_console::{
    failure::Failure,
    output::{Column, Out},
};
use serde::Serialize;

use super::stats::quantile;

/// What was measured of one side: of ours or of a peer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Figures {
    /// Nanoseconds for one operation. If several processes work at once, the time between the ends of two operations
    /// of any of them.
    pub(super) ns: f64,
    pub(super) p99_ns: Option<f64>,
    /// The longest single wait of any process.
    pub(super) longest_ns: Option<f64>,
    /// The largest share of turns of a process, divided by the smallest.
    pub(super) share: Option<f64>,
    /// Whether operations per second are shown, instead of the time of one.
    pub(super) throughput: bool,
}

impl Figures {
    /// The median of samples; `None` if there are none.
    pub(super) fn median(samples: Vec<f64>) -> Option<Self> {
        let some = !samples.is_empty();
        some.then(|| Self { ns: quantile(samples, 50), ..Self::default() })
    }

    /// The median and the 99th percentile of samples; `None` if there are none.
    pub(super) fn spread(samples: Vec<f64>) -> Option<Self> {
        let p99_ns = Some(quantile(samples.clone(), 99));
        Some(Self { p99_ns, ..Self::median(samples)? })
    }

    /// The same for waits, with the longest of them; `None` if there are none.
    pub(super) fn waits(samples: Vec<f64>) -> Option<Self> {
        let longest_ns = samples.iter().copied().reduce(f64::max);
        Some(Self { longest_ns, ..Self::spread(samples)? })
    }

    fn per_s(&self) -> Option<f64> {
        (self.throughput && self.ns > 0.0).then(|| 1e9 / self.ns)
    }
}

/// One line of the table. Times are nanoseconds for one operation.
#[derive(Debug, Default, Serialize)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) ours_ns: f64,
    /// What it was measured against.
    pub(super) against: &'static str,
    pub(super) peer_ns: Option<f64>,
    /// Our time divided by the peer's: below 1, ours is faster.
    pub(super) ratio: Option<f64>,
    pub(super) p99_ns: Option<f64>,
    pub(super) peer_p99_ns: Option<f64>,
    /// Operations of all processes together in a second.
    pub(super) per_s: Option<f64>,
    pub(super) peer_per_s: Option<f64>,
    /// The longest single wait of any process.
    pub(super) longest_ns: Option<f64>,
    pub(super) peer_longest_ns: Option<f64>,
    /// The largest share of turns of a process, divided by the smallest.
    pub(super) share: Option<f64>,
    pub(super) peer_share: Option<f64>,
    /// Bytes of private memory that the holder had, where the benchmark chooses them.
    pub(super) resident: Option<u64>,
    /// Why the peer was not measured.
    pub(super) note: Option<String>,
}

impl Line {
    pub(super) fn new(name: &str, against: &'static str, ours: Vec<f64>, peer: Vec<f64>) -> Self {
        let ours = Figures::median(ours).unwrap_or_default();
        Self::of(name, against, &ours, Figures::median(peer).as_ref())
    }

    pub(super) fn of(
        name: &str,
        against: &'static str,
        ours: &Figures,
        peer: Option<&Figures>,
    ) -> Self {
        let peer_ns = peer.map(|peer| peer.ns);
        Self {
            name: name.to_owned(),
            ours_ns: ours.ns,
            against,
            peer_ns,
            ratio: peer_ns.filter(|peer| *peer > 0.0).map(|peer| ours.ns / peer),
            p99_ns: ours.p99_ns,
            peer_p99_ns: peer.and_then(|peer| peer.p99_ns),
            per_s: ours.per_s(),
            peer_per_s: peer.and_then(Figures::per_s),
            longest_ns: ours.longest_ns,
            peer_longest_ns: peer.and_then(|peer| peer.longest_ns),
            share: ours.share,
            peer_share: peer.and_then(|peer| peer.share),
            resident: None,
            note: None,
        }
    }
}

type Cell = fn(&Line) -> Option<String>;

/// The figures of both sides in one cell.
fn pair(ours: Option<f64>, peer: Option<f64>, show: fn(f64) -> String) -> Option<String> {
    Some(match (ours.map(show)?, peer.map(show)) {
        (ours, Some(peer)) => format!("{ours}, {peer}"),
        (ours, None) => ours,
    })
}

/// Columns that only some benchmarks fill; one that is empty in all lines is left out.
const EXTRAS: [(&str, Cell); 4] = [
    ("P99, PEER'S", |line| pair(line.p99_ns, line.peer_p99_ns, nanos)),
    ("A SECOND, PEER'S", |line| pair(line.per_s, line.peer_per_s, count)),
    ("LONGEST WAIT, PEER'S", |line| pair(line.longest_ns, line.peer_longest_ns, nanos)),
    ("MAX/MIN SHARE, PEER'S", |line| pair(line.share, line.peer_share, ratio)),
];

/// Prints the table, and below it the reasons for missing figures.
pub(super) fn table(out: Out, lines: &[Line]) -> Result<(), Failure> {
    let extras: Vec<(&str, Cell)> = EXTRAS
        .into_iter()
        .filter(|(_, cell)| lines.iter().any(|line| cell(line).is_some()))
        .collect();
    let mut columns = vec![
        Column::Left("BENCHMARK"),
        Column::Right("OURS"),
        Column::Left("AGAINST"),
        Column::Right("PEER"),
        Column::Right("RATIO"),
    ];
    columns.extend(extras.iter().map(|(title, _)| Column::Right(title)));
    out.table(&columns, lines.iter().map(|line| row(line, &extras)).collect())?;
    notes(lines).into_iter().try_for_each(|note| out.line(&note))
}

/// The peers that were not measured, and why; each once.
pub(super) fn notes(lines: &[Line]) -> Vec<String> {
    let mut notes: Vec<String> = Vec::new();
    for line in lines {
        if let Some(why) = &line.note {
            let note = format!("{}: not measured: {why}", line.against);
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
    }
    notes
}

fn row(line: &Line, extras: &[(&str, Cell)]) -> Vec<String> {
    let or_none = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let mut row = vec![
        line.name.clone(),
        nanos(line.ours_ns),
        line.against.to_owned(),
        or_none(line.peer_ns.map(nanos)),
        or_none(line.ratio.map(ratio)),
    ];
    row.extend(extras.iter().map(|(_, cell)| or_none(cell(line))));
    row
}

/// A time as text for people.
pub(super) fn nanos(value: f64) -> String {
    match value {
        ..1e3 => format!("{value:.1} ns"),
        ..1e4 => format!("{:.2} us", value / 1e3),
        ..1e6 => format!("{:.1} us", value / 1e3),
        ..1e7 => format!("{:.2} ms", value / 1e6),
        _ => format!("{:.1} ms", value / 1e6),
    }
}

/// A number as text for people.
pub(super) fn count(value: f64) -> String {
    match value {
        ..10_000.0 => format!("{value:.0}"),
        ..1_000_000.0 => format!("{:.0} k", value / 1e3),
        _ => format!("{:.1} M", value / 1e6),
    }
}

fn ratio(value: f64) -> String {
    format!("{value:.2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_divides_medians_and_a_throughput_is_their_inverse() {
        let ours = Figures { throughput: true, ..Figures::median(vec![9.0, 50.0, 1e9]).unwrap() };
        let peer = Figures { throughput: true, ..Figures::median(vec![1.0, 100.0, 1e9]).unwrap() };
        let line = Line::of("name", "peer", &ours, Some(&peer));
        assert!((line.ratio.unwrap() - 0.5).abs() < 1e-9);
        assert!((line.per_s.unwrap() - 2e7).abs() < 1e-3);
        assert!((line.peer_per_s.unwrap() - 1e7).abs() < 1e-3);
        let alone = Line::of("name", "peer", &ours, None);
        assert_eq!((alone.peer_ns, alone.ratio, alone.peer_per_s), (None, None, None));
    }

    #[test]
    fn without_samples_there_are_no_figures() {
        assert!(Figures::median(Vec::new()).is_none());
        assert!(Figures::spread(Vec::new()).is_none());
        assert!(Figures::spread(vec![1.0]).unwrap().p99_ns.is_some());
        assert!(Figures::waits(Vec::new()).is_none());
        assert_eq!(Figures::waits(vec![1.0, 9.0, 2.0]).unwrap().longest_ns, Some(9.0));
    }

    #[test]
    fn text_for_people_has_few_digits_and_each_note_once() {
        assert_eq!(nanos(21.34), "21.3 ns");
        assert_eq!(nanos(8_406.0), "8.41 us");
        assert_eq!(nanos(812_000.0), "812.0 us");
        assert_eq!(nanos(1_411_500.0), "1.41 ms");
        assert_eq!(nanos(4.9e7), "49.0 ms");
        assert_eq!(count(4_712_000.0), "4.7 M");
        assert_eq!(count(271_000.0), "271 k");
        let missing = || Line { against: "x", note: Some("why".to_owned()), ..Line::default() };
        assert_eq!(notes(&[missing(), Line::default(), missing()]), ["x: not measured: why"]);
    }
}
