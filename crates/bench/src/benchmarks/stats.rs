//! Statistics of samples.

/// The `percent` quantile; 0 if there are no values.
pub(super) fn quantile(mut values: Vec<f64>, percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get(last * percent / 100).copied().unwrap_or(0.0)
}

/// The largest number of turns of a process divided by the smallest, over all rounds. A round has one number for each
/// process. A process without a turn counts as if it had one.
pub(super) fn share(rounds: &[Vec<u64>]) -> f64 {
    let processes = rounds.iter().map(Vec::len).max().unwrap_or(0);
    let of = |process| rounds.iter().filter_map(|round| round.get(process)).sum::<u64>();
    let totals: Vec<u64> = (0..processes).map(of).collect();
    let most = totals.iter().copied().max().unwrap_or(0).max(1);
    float(most) / float(totals.iter().copied().min().unwrap_or(0).max(1))
}

/// Nanoseconds from the end of one operation to the end of the next, if there were `count` in all.
pub(super) fn each(nanos: u64, count: u64) -> f64 {
    float(nanos) / float(count.max(1))
}

/// A number as a float; exact below 2^53.
#[allow(clippy::cast_precision_loss, reason = "no measurement is that exact")]
pub(super) const fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(one: f64, two: f64) -> bool {
        (one - two).abs() < 1e-9
    }

    #[test]
    fn quantiles_are_of_the_sorted_values() {
        let values: Vec<f64> = (1..=101).rev().map(f64::from).collect();
        assert!(same(quantile(values.clone(), 50), 51.0));
        assert!(same(quantile(values, 99), 100.0));
        assert!(same(quantile(Vec::new(), 50), 0.0));
    }

    #[test]
    fn a_share_is_of_the_whole_run_and_not_of_a_round() {
        assert!(same(share(&[vec![10, 30], vec![30, 10]]), 1.0));
        assert!(same(share(&[vec![10, 30], vec![10, 30]]), 3.0));
        assert!(same(share(&[vec![0, 30], vec![30, 0]]), 1.0));
        assert!(same(share(&[vec![10, 30], vec![10, 10]]), 2.0));
    }

    #[test]
    fn a_process_without_a_turn_makes_the_share_large_but_not_infinite() {
        assert!(same(share(&[vec![0, 700]]), 700.0));
        assert!(same(share(&[vec![0, 0]]), 1.0));
        assert!(same(share(&[]), 1.0));
        assert!(same(each(900, 0), 900.0));
        assert!(same(each(900, 3), 300.0));
    }
}
