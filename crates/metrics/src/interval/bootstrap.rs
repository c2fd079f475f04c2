//! The spread of any figure, by drawing images again (Efron 1979), seeded.

use rayon::iter::{IntoParallelIterator, ParallelIterator};

use super::{Interval, check_level};
use crate::score::check_labelled;
use crate::{Error, Ranking, Score};

/// How to draw. Each class is drawn from by itself, as many as it has, so that a figure defined for the images is
/// defined for every draw. The result depends on the seed only, not on the number of threads.
///
/// ```
/// use metrics::{Bootstrap, Ranking};
///
/// let scores = [0.1_f32, 0.4, 0.35, 0.8, 0.7, 0.2];
/// let labels = [false, false, true, true, true, false];
/// let interval = Bootstrap::default().interval(&scores, &labels, |ranking| ranking.average_precision())?;
/// assert!(interval.low <= interval.value && interval.value <= interval.high);
/// # Ok::<(), metrics::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bootstrap {
    /// How many times all images are drawn.
    pub draws: usize,
    /// The confidence level, in (0, 1): the interval leaves out this share's complement of the draws, half at each end.
    pub level: f64,
    /// Where the draws start.
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self { draws: 2000, level: 0.95, seed: 0 }
    }
}

impl Bootstrap {
    /// The percentile interval of `figure`, which is asked for the given images and for every draw.
    ///
    /// # Errors
    /// As [`Ranking::new`] and as `figure`; [`Error::Option`] for a level outside (0, 1) or fewer than 2 draws.
    pub fn interval<S: Score>(
        &self,
        scores: &[S],
        labels: &[bool],
        figure: impl Fn(&Ranking<S>) -> Result<f64, Error> + Sync,
    ) -> Result<Interval, Error> {
        check_level(self.level)?;
        check_labelled(scores, labels)?;
        if self.draws < 2 {
            return Err(Error::Option { name: "draws", expected: "at least 2", found: self.draws as f64 });
        }
        let value = figure(&Ranking::new(scores, labels)?)?;
        let keys = |wanted| -> Vec<S::Key> {
            let of_class = scores.iter().zip(labels).filter(|&(_, &label)| label == wanted);
            of_class.map(|(score, _)| score.key()).collect()
        };
        let (positives, negatives) = (keys(true), keys(false));
        let draw = |number: usize| {
            let mut stream = Stream::of(self.seed, number as u64);
            let positives = stream.draw(&positives);
            figure(&Ranking::from_keys(positives, stream.draw(&negatives)))
        };
        let mut figures: Vec<f64> = (0..self.draws).into_par_iter().map(draw).collect::<Result<_, _>>()?;
        figures.sort_by(f64::total_cmp);
        let outside = (1.0 - self.level) / 2.0;
        let at = |share: f64| crate::threshold::interpolated(&figures, share);
        Ok(Interval { value, low: at(outside), high: at(1.0 - outside), level: self.level })
    }
}

/// `SplitMix64` (Steele, Lea and Flood 2014): any start gives a good stream, so that each draw has its own.
struct Stream(u64);

impl Stream {
    fn of(seed: u64, number: u64) -> Self {
        let mut seeds = Self(seed);
        Self(seeds.next() ^ Self(number).next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// As many as there are, each of any.
    fn draw<K: Copy>(&mut self, from: &[K]) -> Vec<K> {
        // The upper half of the product is below the number; the bias is that number over 2^64.
        let index = |random: u64| ((u128::from(random) * from.len() as u128) >> 64) as usize;
        (0..from.len()).map(|_| from[index(self.next())]).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::delong;

    fn images() -> (Vec<f32>, Vec<bool>) {
        let mut stream = Stream::of(3, 0);
        let labels: Vec<bool> = (0..200).map(|i| i % 4 == 0).collect();
        let noise = |stream: &mut Stream| {
            (0..4).map(|_| (stream.next() >> 40) as f32).sum::<f32>() / (1 << 24) as f32
        };
        let scores =
            labels.iter().map(|&label| noise(&mut stream) + f32::from(u8::from(label)) * 0.7).collect();
        (scores, labels)
    }

    #[test]
    fn a_seed_gives_one_interval_near_delongs() {
        let (scores, labels) = images();
        let bootstrap = Bootstrap { draws: 4000, ..Bootstrap::default() };
        let interval = bootstrap.interval(&scores, &labels, Ranking::auroc).unwrap();
        let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let again = alone.install(|| bootstrap.interval(&scores, &labels, Ranking::auroc).unwrap());
        assert_eq!(interval, again);
        let other = Bootstrap { seed: 1, ..bootstrap }.interval(&scores, &labels, Ranking::auroc).unwrap();
        assert_ne!(interval, other);
        let expected = delong(&scores, &labels).unwrap().interval(0.95).unwrap();
        assert_eq!(interval.value, expected.value);
        assert!((interval.low - expected.low).abs() < 0.01, "{interval:?} {expected:?}");
        assert!((interval.high - expected.high).abs() < 0.01, "{interval:?} {expected:?}");
    }

    #[test]
    fn what_has_no_interval_is_refused() {
        let (scores, labels) = images();
        let few = Bootstrap { draws: 1, ..Bootstrap::default() };
        assert!(matches!(
            few.interval(&scores, &labels, Ranking::auroc),
            Err(Error::Option { name: "draws", .. })
        ));
        let sure = Bootstrap { level: 1.0, ..Bootstrap::default() };
        assert!(matches!(
            sure.interval(&scores, &labels, Ranking::auroc),
            Err(Error::Option { name: "level", .. })
        ));
        let one_class = vec![false; labels.len()];
        let error = Bootstrap::default().interval(&scores, &one_class, Ranking::auroc).unwrap_err();
        assert!(matches!(error, Error::NoPositives { .. }));
    }
}
