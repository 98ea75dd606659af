//! Several measurements of one thing.
//!
//! Owns: what their median is. Of an even number it lies between the two in the middle, everywhere.

use super::results::{Row, Sample};

/// Least, median and greatest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub least: f64,
    pub median: f64,
    pub most: f64,
}

impl Spread {
    /// None of no values.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (&least, &most) = (values.first()?, values.last()?);
        let (lower, upper) = (values.get((values.len() - 1) / 2)?, values.get(values.len() / 2)?);
        Some(Spread { least, median: f64::midpoint(*lower, *upper), most })
    }

    /// Of a row's samples.
    #[must_use]
    pub fn over(row: &Row, what: impl Fn(&Sample) -> f64) -> Option<Spread> {
        Spread::of(row.samples.iter().map(what))
    }

    /// Of those of a row's samples that have it.
    #[must_use]
    pub fn of_known(row: &Row, what: impl Fn(&Sample) -> Option<f64>) -> Option<Spread> {
        Spread::of(row.samples.iter().filter_map(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_two() {
        let of = |values: &[f64]| Spread::of(values.iter().copied()).map(|s| [s.least, s.median, s.most]);
        assert_eq!(of(&[4.0, 1.0, 3.0, 2.0]), Some([1.0, 2.5, 4.0]));
        assert_eq!(of(&[3.0, 1.0]), Some([1.0, 2.0, 3.0]));
        assert_eq!(of(&[5.0, 9.0, 1.0]), Some([1.0, 5.0, 9.0]));
        assert_eq!(of(&[4.0]), Some([4.0, 4.0, 4.0]));
        assert_eq!(of(&[]), None);
    }
}
