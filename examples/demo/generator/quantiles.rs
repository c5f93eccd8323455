//! Distributions that are known by a few of their quantiles.

use super::super::rng::Rng;

/// A positive quantity, known at some quantiles and log-uniform between them.
///
/// What clouds publish about themselves are such lists, and what they measure spans orders of
/// magnitude, so that straight lines on a logarithmic scale fit best.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quantiles(pub(super) &'static [(f64, f64)]);

impl Quantiles {
    /// Draws a value.
    pub(super) fn draw(self, rng: &mut Rng) -> f64 {
        let at = rng.unit();
        for (&(low_at, low), &(high_at, high)) in self.segments() {
            if at < high_at {
                let share = (at - low_at) / (high_at - low_at);
                return low * (high / low).powf(share);
            }
        }
        self.0.last().map_or(0.0, |&(_, value)| value)
    }

    /// Returns the mean of what [`Quantiles::draw`] draws.
    pub(super) fn mean(self) -> f64 {
        self.segments()
            .map(|(&(low_at, low), &(high_at, high))| {
                (high_at - low_at) * (high - low) / (high / low).ln()
            })
            .sum()
    }

    fn segments(self) -> impl Iterator<Item = (&'static (f64, f64), &'static (f64, f64))> {
        self.0.iter().zip(self.0.iter().skip(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_have_the_quantiles_and_the_mean() {
        let quantiles = Quantiles(&[(0.0, 1.0), (0.5, 27.0), (0.9, 653.0), (1.0, 2659.0)]);
        let mut rng = Rng::new(1, "test");
        let mut values: Vec<f64> = (0..100_000).map(|_| quantiles.draw(&mut rng)).collect();
        values.sort_by(f64::total_cmp);
        assert!((26.0..28.0).contains(&values[50_000]));
        assert!((640.0..666.0).contains(&values[90_000]));
        let mean = values.iter().sum::<f64>() / 1e5;
        assert!((mean / quantiles.mean() - 1.0).abs() < 0.02);
    }
}
