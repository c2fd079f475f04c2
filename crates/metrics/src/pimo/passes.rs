//! The shared false positive rate from images that come one after the other, in two passes.

use std::collections::BTreeMap;

use super::PimoCurve;
use super::thresholds::{Reached, at_least, check_count, spaced};
use crate::state_bytes::{Reader, write};
use crate::{Error, ScoredMap};

const RANGE_MAGIC: &[u8; 8] = b"vitadpr1";
const RATES_MAGIC: &[u8; 8] = b"vitadpm1";

/// Sums of counts stay below what their type holds.
const MOST_PIXELS: u64 = 1 << 56;

/// First pass over a set of images for PIMO: how far the scores of the normal ones reach, which fixes the thresholds.
///
/// Three passes over the images, each holding one of them at a time, give what [`Pimo`](crate::Pimo) gives from all maps
/// at once, to the last bit: this one, [`PimoRates`] for the shared false positive rate, and
/// [`PimoWindow::area`](crate::PimoWindow::area) for the anomalous images. The states of the first two depend on the
/// images only, neither on their order nor on how they were shared out among threads or processes.
///
/// ```
/// use metrics::{PimoRange, ScoredMap};
/// let maps = [[0.1, 0.2, 0.3, 0.4], [0.2, 0.1, 0.9, 0.35]];
/// let images = [
///     ScoredMap::new(2, 2, &maps[0], None)?,
///     ScoredMap::new(2, 2, &maps[1], Some(&[0, 0, 1, 0]))?,
/// ];
/// let mut range = PimoRange::default();
/// images.iter().try_for_each(|image| range.add(image))?;
/// let mut rates = range.rates(1000)?;
/// images.iter().try_for_each(|image| rates.add(image))?;
/// let window = rates.curve()?.window(0.25, 1.0, false)?;
/// assert_eq!(window.area(&images[0])?, None);
/// assert_eq!(window.area(&images[1])?, Some(1.0));
/// # Ok::<(), metrics::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct PimoRange {
    low: f32,
    high: f32,
    normal: u64,
    anomalous: u64,
}

impl Default for PimoRange {
    fn default() -> Self {
        Self { low: f32::INFINITY, high: f32::NEG_INFINITY, normal: 0, anomalous: 0 }
    }
}

impl PimoRange {
    /// Adds an image; an anomalous one is counted only.
    ///
    /// # Errors
    /// [`Error::NotFinitePixel`]; nothing is added then.
    pub fn add(&mut self, image: &ScoredMap<'_>) -> Result<(), Error> {
        image.check(self.images() as usize)?;
        self.add_finite(image);
        Ok(())
    }

    pub(super) fn add_finite(&mut self, image: &ScoredMap<'_>) {
        if image.is_anomalous() {
            self.anomalous += 1;
        } else {
            self.normal += 1;
            // -0.0 and +0.0 are the same score; adding +0.0 makes them the same bits.
            self.low = image.scores().iter().copied().fold(self.low, f32::min) + 0.0;
            self.high = image.scores().iter().copied().fold(self.high, f32::max) + 0.0;
        }
    }

    /// Adds the images of another range, as from another thread.
    pub fn merge(&mut self, other: &Self) {
        self.low = self.low.min(other.low);
        self.high = self.high.max(other.high);
        self.normal = self.normal.saturating_add(other.normal);
        self.anomalous = self.anomalous.saturating_add(other.anomalous);
    }

    /// How many images were added.
    pub fn images(&self) -> u64 {
        self.normal.saturating_add(self.anomalous)
    }

    /// The second pass, over `num_thresholds` thresholds (usually 300 000), linearly spaced in f32 from the lowest to the
    /// highest score of the normal images.
    ///
    /// # Errors
    /// [`Error::NoPositives`] without an anomalous image, [`Error::NoNegatives`] without a normal one,
    /// [`Error::ConstantNormals`] if all pixels of those have one score, [`Error::Option`] for fewer than 2 thresholds or
    /// more than 2^24.
    pub fn rates(&self, num_thresholds: usize) -> Result<PimoRates, Error> {
        check_count(num_thresholds)?;
        if self.normal == 0 {
            return Err(Error::NoNegatives { metric: "PIMO" });
        }
        if self.anomalous == 0 {
            return Err(Error::NoPositives { metric: "PIMO" });
        }
        if self.low == self.high {
            return Err(Error::ConstantNormals { value: self.low.into() });
        }
        Ok(PimoRates {
            thresholds: spaced(self.low, self.high, num_thresholds),
            expected: self.clone(),
            seen: Self::default(),
            by_size: BTreeMap::new(),
        })
    }

    /// The state, for [`PimoRange::from_bytes`] in another process: `vitadpr1`, then lowest and highest score of the
    /// normal images as f32 and the numbers of normal and anomalous images as u64, little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = RANGE_MAGIC.to_vec();
        self.write(&mut bytes);
        bytes
    }

    /// A state that [`PimoRange::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`Error::State`] for bytes that are no such state.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let mut rest = Reader::new(bytes);
        if rest.take(RANGE_MAGIC.len())? != RANGE_MAGIC {
            return Err(rest.wrong("the letters vitadpr1"));
        }
        let range = Self::read(&mut rest)?;
        if rest.is_at_end() { Ok(range) } else { Err(rest.wrong("the end")) }
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.low.to_le_bytes());
        bytes.extend(self.high.to_le_bytes());
        bytes.extend(self.normal.to_le_bytes());
        bytes.extend(self.anomalous.to_le_bytes());
    }

    fn read(rest: &mut Reader<'_>) -> Result<Self, Error> {
        let (low, high) = (f32::from_le_bytes(rest.array()?), f32::from_le_bytes(rest.array()?));
        let range = Self { low, high, normal: rest.number()?, anomalous: rest.number()? };
        let is_one = match range.normal {
            0 => (low, high) == (f32::INFINITY, f32::NEG_INFINITY),
            _ => low.is_finite() && high.is_finite() && low <= high,
        };
        if is_one { Ok(range) } else { Err(rest.wrong("a range of finite scores")) }
    }

    fn describe(&self) -> String {
        let Self { low, high, normal, anomalous } = self;
        format!("{normal} normal images with scores from {low} to {high} and {anomalous} anomalous ones")
    }
}

/// Second pass over the same images for PIMO, see [`PimoRange`]: how many pixels of the normal ones reach each threshold.
///
/// Memory: 4 bytes a threshold, and 8 for each number of pixels that normal images have, whatever the number of images.
#[derive(Clone, Debug, PartialEq)]
pub struct PimoRates {
    /// Ascending.
    thresholds: Vec<f32>,
    /// What the first pass saw.
    expected: PimoRange,
    seen: PimoRange,
    by_size: BTreeMap<u64, Counts>,
}

/// Normal images with one number of pixels.
#[derive(Clone, Debug, PartialEq)]
struct Counts {
    images: u64,
    /// How many of their pixels reach exactly k thresholds.
    reaching: Vec<u64>,
}

impl PimoRates {
    /// Adds an image; an anomalous one is counted only.
    ///
    /// # Errors
    /// [`Error::NotFinitePixel`]; nothing is added then.
    pub fn add(&mut self, image: &ScoredMap<'_>) -> Result<(), Error> {
        image.check(self.seen.images() as usize)?;
        self.add_finite(image);
        Ok(())
    }

    pub(super) fn add_finite(&mut self, image: &ScoredMap<'_>) {
        self.seen.add_finite(image);
        if image.is_anomalous() {
            return;
        }
        let bins = self.thresholds.len() + 1;
        let counts = self.by_size.entry(image.scores().len() as u64);
        let counts = counts.or_insert_with(|| Counts { images: 0, reaching: vec![0; bins] });
        counts.images += 1;
        let reached = Reached::new(&self.thresholds);
        for &score in image.scores() {
            counts.reaching[reached.by(score)] += 1;
        }
    }

    /// Adds the images of another state with the same first pass, as from another thread.
    ///
    /// # Errors
    /// [`Error::OtherImages`] if the first passes differ, [`Error::Option`] if the numbers of thresholds do or beyond 2^56
    /// pixels; nothing is added then.
    pub fn merge(&mut self, other: &Self) -> Result<(), Error> {
        if self.expected != other.expected {
            return Err(Error::OtherImages {
                metric: "PIMO",
                expected: self.expected.describe(),
                found: other.expected.describe(),
            });
        }
        if self.thresholds.len() != other.thresholds.len() {
            let (expected, found) = ("the same in all states that are merged", other.thresholds.len() as f64);
            return Err(Error::Option { name: "num_thresholds", expected, found });
        }
        let pixels = self.pixels() + other.pixels();
        if pixels > MOST_PIXELS {
            let (expected, found) = ("at most 2^56 pixels in all", pixels as f64);
            return Err(Error::Option { name: "images", expected, found });
        }
        self.seen.merge(&other.seen);
        for (&size, other) in &other.by_size {
            match self.by_size.get_mut(&size) {
                None => {
                    self.by_size.insert(size, other.clone());
                }
                Some(counts) => {
                    counts.images += other.images;
                    counts.reaching.iter_mut().zip(&other.reaching).for_each(|(sum, &more)| *sum += more);
                }
            }
        }
        Ok(())
    }

    /// The rate that the normal images share, at each threshold.
    ///
    /// # Errors
    /// [`Error::OtherImages`] if this pass saw not as many images as the first or another range of scores.
    pub fn curve(self) -> Result<PimoCurve, Error> {
        if self.seen != self.expected {
            return Err(Error::OtherImages {
                metric: "PIMO",
                expected: self.expected.describe(),
                found: self.seen.describe(),
            });
        }
        let images = self.seen.normal as f64;
        let is_one_size = self.by_size.len() == 1;
        let mut shared_fpr = vec![0.0; self.thresholds.len()];
        for (size, Counts { images: of_size, mut reaching }) in self.by_size {
            at_least(&mut reaching);
            // One division of integers: equal rates come out equal however the pixels are spread over the images.
            let divisor = if is_one_size { (size * of_size) as f64 } else { size as f64 };
            for (rate, count) in shared_fpr.iter_mut().zip(reaching) {
                *rate += count as f64 / divisor;
            }
        }
        if !is_one_size {
            for rate in &mut shared_fpr {
                *rate /= images;
            }
        }
        Ok(PimoCurve { thresholds: self.thresholds, shared_fpr })
    }

    fn pixels(&self) -> u64 {
        self.by_size.iter().map(|(size, counts)| size * counts.images).sum()
    }

    /// The state, for [`PimoRates::from_bytes`] in another process.
    ///
    /// Little-endian: `vitadpm1`, the number of thresholds as u64, what the first and what this pass saw as in
    /// [`PimoRange::to_bytes`], the number of sizes as u64; for each size, rising, the size and the number of images as
    /// u64, and how many pixels reach exactly 0, 1, 2, … thresholds as numbers of 7 bits a byte, the highest bit saying
    /// that more follow.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = RATES_MAGIC.to_vec();
        bytes.extend((self.thresholds.len() as u64).to_le_bytes());
        self.expected.write(&mut bytes);
        self.seen.write(&mut bytes);
        bytes.extend((self.by_size.len() as u64).to_le_bytes());
        for (size, counts) in &self.by_size {
            bytes.extend(size.to_le_bytes());
            bytes.extend(counts.images.to_le_bytes());
            counts.reaching.iter().for_each(|&count| write(&mut bytes, count));
        }
        bytes
    }

    /// A state that [`PimoRates::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`Error::State`] for bytes that are no such state: another format, cut short, too long, or counts that contradict
    /// each other.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let mut rest = Reader::new(bytes);
        if rest.take(RATES_MAGIC.len())? != RATES_MAGIC {
            return Err(rest.wrong("the letters vitadpm1"));
        }
        let count = usize::try_from(rest.number()?).map_err(|_| rest.wrong("a number of thresholds"))?;
        let expected = PimoRange::read(&mut rest)?;
        let wrong = |_| rest.wrong("2 to 2^24 thresholds between the scores of normal images");
        let mut rates = expected.rates(count).map_err(wrong)?;
        rates.seen = PimoRange::read(&mut rest)?;
        let mut next = 1;
        let (mut images, mut pixels) = (0_u64, 0_u64);
        for _ in 0..rest.number()? {
            let (size, of_size) = (rest.number()?, rest.number()?);
            let of_all = size.checked_mul(of_size).and_then(|more| pixels.checked_add(more));
            pixels =
                of_all.filter(|&all| all <= MOST_PIXELS).ok_or_else(|| rest.wrong("at most 2^56 pixels"))?;
            if size < next || of_size == 0 {
                return Err(rest.wrong("rising sizes of at least one image each"));
            }
            next = size + 1;
            images += of_size;
            let reaching = (0..=count).map(|_| rest.variable()).collect::<Result<Vec<u64>, Error>>()?;
            let sum = reaching.iter().try_fold(0_u64, |sum, &more| sum.checked_add(more));
            if sum != Some(size * of_size) {
                return Err(rest.wrong("as many counts as pixels"));
            }
            rates.by_size.insert(size, Counts { images: of_size, reaching });
        }
        if images != rates.seen.normal {
            return Err(rest.wrong("as many images as were seen"));
        }
        if rest.is_at_end() { Ok(rates) } else { Err(rest.wrong("the end")) }
    }
}
