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
        self.check()?;
        check_labelled(scores, labels)?;
        let value = figure(&Ranking::new(scores, labels)?)?;
        let classes = Classes::of(scores, labels);
        self.percentiles(value, |number| figure(&classes.drawn(self.seed, number)))
    }

    /// The percentile interval of how much `figure` is higher for `second` than for `first`: two scores of the same
    /// images. Each draw takes the same images for both.
    ///
    /// # Errors
    /// As [`Bootstrap::interval`], for either.
    pub fn difference<S: Score>(
        &self,
        first: &[S],
        second: &[S],
        labels: &[bool],
        figure: impl Fn(&Ranking<S>) -> Result<f64, Error> + Sync,
    ) -> Result<Interval, Error> {
        self.check()?;
        check_labelled(first, labels)?;
        check_labelled(second, labels)?;
        let value = figure(&Ranking::new(second, labels)?)? - figure(&Ranking::new(first, labels)?)?;
        let (first, second) = (Classes::of(first, labels), Classes::of(second, labels));
        // One stream draws the same places from equally many.
        let drawn =
            |number| Ok(figure(&second.drawn(self.seed, number))? - figure(&first.drawn(self.seed, number))?);
        self.percentiles(value, drawn)
    }

    /// The percentile interval of the mean of `values`, which are drawn again: of differences between pairs, say.
    ///
    /// ```
    /// let interval = metrics::Bootstrap::default().mean(&[0.01, 0.03, 0.02])?;
    /// assert!(interval.low >= 0.01 && interval.high <= 0.03);
    /// # Ok::<(), metrics::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Option`] for a level outside (0, 1), fewer than 2 draws, or fewer than 2 values;
    /// [`Error::NotFinite`] for a value that is not finite.
    pub fn mean(&self, values: &[f64]) -> Result<Interval, Error> {
        self.check()?;
        if values.len() < 2 {
            return Err(Error::Option { name: "values", expected: "at least 2", found: values.len() as f64 });
        }
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            return Err(Error::NotFinite { index, value: values[index] });
        }
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        self.percentiles(mean(values), |number| Ok(mean(&Stream::of(self.seed, number as u64).draw(values))))
    }

    fn check(&self) -> Result<(), Error> {
        check_level(self.level)?;
        if self.draws < 2 {
            return Err(Error::Option { name: "draws", expected: "at least 2", found: self.draws as f64 });
        }
        Ok(())
    }

    /// The interval that the draws' figures give, each by its number.
    fn percentiles(
        &self,
        value: f64,
        drawn: impl Fn(usize) -> Result<f64, Error> + Sync + Send,
    ) -> Result<Interval, Error> {
        let mut figures: Vec<f64> = (0..self.draws).into_par_iter().map(drawn).collect::<Result<_, _>>()?;
        figures.sort_by(f64::total_cmp);
        let outside = (1.0 - self.level) / 2.0;
        let at = |share: f64| crate::threshold::interpolated(&figures, share);
        Ok(Interval { value, low: at(outside), high: at(1.0 - outside), level: self.level })
    }
}

/// The scores of both classes.
struct Classes<S: Score> {
    positives: Vec<S::Key>,
    negatives: Vec<S::Key>,
}

impl<S: Score> Classes<S> {
    fn of(scores: &[S], labels: &[bool]) -> Self {
        let keys = |wanted| -> Vec<S::Key> {
            let of_class = scores.iter().zip(labels).filter(|&(_, &label)| label == wanted);
            of_class.map(|(score, _)| score.key()).collect()
        };
        Self { positives: keys(true), negatives: keys(false) }
    }

    fn drawn(&self, seed: u64, number: usize) -> Ranking<S> {
        let mut stream = Stream::of(seed, number as u64);
        let positives = stream.draw(&self.positives);
        Ranking::from_keys(positives, stream.draw(&self.negatives))
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
    fn the_difference_of_two_scores_of_the_same_images_is_surer_than_either() {
        let (scores, labels) = images();
        let bootstrap = Bootstrap::default();
        let none = bootstrap.difference(&scores, &scores, &labels, Ranking::auroc).unwrap();
        assert_eq!((none.value, none.low, none.high), (0.0, 0.0, 0.0));
        let mut stream = Stream::of(5, 0);
        let noisier: Vec<f32> = scores
            .iter()
            .map(|score| score + 0.2 * ((stream.next() >> 40) as f32 / (1 << 24) as f32))
            .collect();
        let one = bootstrap.interval(&scores, &labels, Ranking::auroc).unwrap();
        let other = bootstrap.interval(&noisier, &labels, Ranking::auroc).unwrap();
        let both = bootstrap.difference(&scores, &noisier, &labels, Ranking::auroc).unwrap();
        assert!((both.value - (other.value - one.value)).abs() < 1e-15);
        assert!(both.high - both.low < (one.high - one.low) / 2.0, "{both:?} {one:?}");
    }

    #[test]
    fn the_mean_of_pairs_has_the_interval_of_its_standard_error() {
        let mut stream = Stream::of(9, 0);
        let mut unit =
            || (0..12).map(|_| (stream.next() >> 11) as f64 / (1_u64 << 53) as f64).sum::<f64>() - 6.0;
        let values: Vec<f64> = (0..400).map(|_| unit()).collect();
        let interval = Bootstrap { draws: 4000, ..Bootstrap::default() }.mean(&values).unwrap();
        // 1.96 standard errors to each side.
        assert!((interval.high - interval.value - 0.098).abs() < 0.012, "{interval:?}");
        assert!((interval.value - interval.low - 0.098).abs() < 0.012, "{interval:?}");
        assert!(matches!(Bootstrap::default().mean(&[1.0]), Err(Error::Option { name: "values", .. })));
        assert!(matches!(
            Bootstrap::default().mean(&[1.0, f64::NAN]),
            Err(Error::NotFinite { index: 1, .. })
        ));
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
