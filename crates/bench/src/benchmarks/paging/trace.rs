//! Traces: sequences of references to pages, generated from published shapes.
//!
//! A trace is the same in every run. All sizes are fractions of one number of pages, so that a small trace has the
//! same shape as a large one.

use commonhold_console::random::Random;

/// The size of the traces.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    /// The number of pages; the sizes of the simulated memories are fractions of it.
    pub(super) pages: usize,
    pub(super) references: usize,
}

/// A trace: its name, and the function that generates it.
pub(super) type Shape = (&'static str, fn(Scale) -> Vec<u32>);

pub(super) const SHAPES: [Shape; 6] = [
    ("zipf", zipf),
    ("loop", endless_loop),
    ("scans", scans),
    ("phases", phases),
    ("stack", stack),
    ("shift", shift),
];

/// Independent references, the n-th most popular page with a weight of n^-0.9. Exponents found in practice are
/// from 0.64 to 0.83 (Breslau et al., "Web caching and Zipf-like distributions", 1999); that of YCSB is 0.99
/// (Cooper et al., 2010).
fn zipf(scale: Scale) -> Vec<u32> {
    let (weights, mut random) = (Zipf::new(scale.pages, 0.9), Random::new(1));
    (0..scale.references).map(|_| weights.draw(&mut random)).collect()
}

/// All pages in order, again and again. Each memory is smaller than the loop, the largest by a sixteenth. This is the
/// case in which LRU always evicts the page that is needed next (Smaragdakis, Kaplan and Wilson, "EELRU", 1999).
fn endless_loop(scale: Scale) -> Vec<u32> {
    (0..scale.references).map(|at| page(at % scale.pages)).collect()
}

/// A fifth of the pages is hot, some hotter than others. Now and then there is a scan of pages that are used once,
/// while the hot ones stay in use, like a database that reads a table (Johnson and Shasha, "2Q", 1994; Megiddo and
/// Modha, "ARC", 2003).
fn scans(scale: Scale) -> Vec<u32> {
    let hot = scale.pages / 5;
    let (weights, mut random) = (Zipf::new(hot, 0.6), Random::new(2));
    let mut cold = (hot..4 * scale.pages).cycle();
    let mut trace = Vec::new();
    while trace.len() < scale.references {
        trace.extend((0..4 * hot).map(|_| weights.draw(&mut random)));
        for once in cold.by_ref().take(scale.pages / 4) {
            trace.push(page(once));
            if random.below(2) == 0 {
                trace.push(weights.draw(&mut random));
            }
        }
    }
    trace.truncate(scale.references);
    trace
}

/// Working sets of different sizes. Each is used at random for an exponentially distributed time, then another one
/// (Denning and Kahn, "A study of program locality and lifetime functions", 1975). One reference in a hundred goes
/// to any page.
fn phases(scale: Scale) -> Vec<u32> {
    let mut random = Random::new(3);
    let mut trace = Vec::new();
    while trace.len() < scale.references {
        let size = scale.pages / 20 + below(&mut random, scale.pages / 5);
        let start = below(&mut random, scale.pages);
        let time = whole(-unit(&mut random).ln() * 1.5 * float(scale.pages)) + 1;
        for _ in 0..time {
            let any = random.below(100) == 0;
            let at = if any { 0 } else { start };
            let at = at + below(&mut random, if any { scale.pages } else { size });
            trace.push(page(at % scale.pages));
        }
    }
    trace.truncate(scale.references);
    trace
}

/// Each reference goes to the page that was used d pages ago; the probability that d is more than k falls as k^-0.55.
/// This is the LRU stack model (Spirn and Denning, "Experiments with program locality", 1972). A smaller d is always
/// at least as likely as a larger one, so no policy that knows only the past does better than LRU.
fn stack(scale: Scale) -> Vec<u32> {
    const EXPONENT: f64 = 0.55;
    let mut random = Random::new(4);
    let least = float(scale.pages).powf(-EXPONENT);
    let mut stack: Vec<u32> = (0..scale.pages).map(page).collect();
    let mut refer = || {
        let part = least + (1.0 - least) * unit(&mut random);
        let distance = whole(part.powf(-1.0 / EXPONENT)).clamp(1, scale.pages);
        if let Some(top) = stack.get_mut(..distance) {
            top.rotate_right(1);
        }
        stack.first().copied().unwrap_or(0)
    };
    (0..scale.references).map(|_| refer()).collect()
}

/// In turns, a working set that is used at random, and a loop over other pages, four tenths of all. What a policy
/// keeps in one phase, it must give up in the other. This trace is not published; it combines two published ones from
/// above. It separates policies that adapt from policies that are good on a steady trace only.
fn shift(scale: Scale) -> Vec<u32> {
    let mut random = Random::new(5);
    let (set, around, turn) = (scale.pages * 3 / 10, scale.pages * 4 / 10, 5 * scale.pages);
    let (mut trace, mut start) = (Vec::new(), 0);
    while trace.len() < scale.references {
        trace.extend((0..turn).map(|_| page(start + below(&mut random, set))));
        trace.extend((0..turn).map(|at| page(2 * set + at % around)));
        start = (start + scale.pages / 6) % set;
    }
    trace.truncate(scale.references);
    trace
}

/// Random ranks, with a weight of rank^-exponent each.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(ranks: usize, exponent: f64) -> Self {
        let sum = |sum: &mut f64, rank| {
            *sum += float(rank).powf(-exponent);
            Some(*sum)
        };
        Self((1..=ranks).scan(0.0, sum).collect())
    }

    fn draw(&self, random: &mut Random) -> u32 {
        let at = unit(random) * self.0.last().copied().unwrap_or(0.0);
        page(self.0.partition_point(|sum| *sum < at))
    }
}

/// A random number above 0, and up to 1.
fn unit(random: &mut Random) -> f64 {
    let number = u32::try_from(random.next() >> 32).unwrap_or(u32::MAX);
    (f64::from(number) + 1.0) / (f64::from(u32::MAX) + 1.0)
}

fn below(random: &mut Random, bound: usize) -> usize {
    let number = random.below(u64::try_from(bound).unwrap_or(u64::MAX));
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn page(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
const fn float(number: usize) -> f64 {
    number as f64
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "never negative, and saturates"
)]
const fn whole(number: f64) -> usize {
    number as usize
}
