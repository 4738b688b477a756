//! Medians, and how far they can be trusted.
//!
//! Rounds of one process resemble each other more than those of another: it has other addresses,
//! other pages, another minute. So an interval draws processes first, then rounds within each.
//! Draws are pseudo-random with a fixed seed: the same file always gets the same verdict.

/// Draws for an interval.
const DRAWS: usize = 2000;
/// Part of the draws that lie within an interval.
const CONFIDENCE: f64 = 0.99;

/// The median; of nothing, not a number.
pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// A figure, and between what it lies with 99 % confidence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    pub low: f64,
    pub middle: f64,
    pub high: f64,
}

/// How `new` relates to `old`, each a list of processes with their rounds: the quotient of the
/// medians, with an interval.
pub fn quotient(old: &[Vec<f64>], new: &[Vec<f64>]) -> Option<Interval> {
    let all = |runs: &[Vec<f64>]| median(&runs.concat());
    let middle = all(new) / all(old);
    if !middle.is_finite() {
        return None;
    }
    let mut draw = Draw(0x9E37_79B9_7F4A_7C15);
    let mut quotients: Vec<f64> =
        (0..DRAWS).map(|_| median(&draw.resample(new)) / median(&draw.resample(old))).collect();
    quotients.retain(|quotient| quotient.is_finite());
    quotients.sort_by(f64::total_cmp);
    let at = |part: f64| quotients[((quotients.len() - 1) as f64 * part).round() as usize];
    let beyond = (1.0 - CONFIDENCE) / 2.0;
    Some(Interval { low: at(beyond), middle, high: at(1.0 - beyond) })
}

/// A generator of the xorshift family.
struct Draw(u64);

impl Draw {
    fn below(&mut self, len: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((u128::from(self.0) * len as u128) >> 64) as usize
    }

    /// As many processes, each with as many rounds, drawn with replacement.
    fn resample(&mut self, runs: &[Vec<f64>]) -> Vec<f64> {
        let mut drawn = Vec::new();
        for _ in runs {
            let run = &runs[self.below(runs.len())];
            drawn.extend(run.iter().map(|_| run[self.below(run.len())]));
        }
        drawn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_change_that_is_larger_than_the_noise_is_seen() {
        let old = vec![vec![100.0, 101.0, 99.0, 100.5]; 3];
        let new: Vec<Vec<f64>> = old.iter().map(|r| r.iter().map(|v| v * 1.2).collect()).collect();
        let interval = quotient(&old, &new).unwrap();
        assert!((interval.middle - 1.2).abs() < 1e-9);
        assert!(interval.low > 1.15 && interval.high < 1.25, "{interval:?}");
    }

    #[test]
    fn a_change_within_the_noise_has_a_wide_interval() {
        let old = vec![vec![60.0, 100.0, 140.0], vec![90.0, 70.0, 150.0]];
        let new = vec![vec![115.0, 65.0, 160.0], vec![170.0, 100.0, 80.0]];
        let interval = quotient(&old, &new).unwrap();
        assert!(interval.low < 1.0 && interval.high > 1.2, "{interval:?}");
    }

    #[test]
    fn processes_that_differ_widen_the_interval() {
        let old = vec![vec![100.0; 9]; 3];
        let new = vec![vec![100.0; 9], vec![130.0; 9], vec![130.0; 9]];
        let interval = quotient(&old, &new).unwrap();
        assert!(interval.low <= 1.0, "{interval:?}");
    }

    #[test]
    fn nothing_cannot_be_compared() {
        assert_eq!(quotient(&[], &[vec![1.0]]), None);
        assert_eq!(quotient(&[vec![0.0]], &[vec![1.0]]), None);
    }
}
