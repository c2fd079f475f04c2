//! Counts instead of scores.

mod bins;
mod state;

use bins::{Bins, Found, MOST_SHIFT, PREFIXES, prefix_of};

use super::sweep::{Group, Sweep, Totals};
use crate::regions::Regions;
use crate::score::sealed::Sealed;
use crate::spro::{ChannelMap, saturation_areas};
use crate::{Connectivity, Error, PixelFigures, ScoredMap};

/// Overlaps are counted in this share of a region, so that sums do not depend on their order.
const WHOLE_REGION: u64 = 1 << 32;

/// Sums of counts stay below what their types hold.
const MOST_PIXELS: u64 = 1 << 56;
const MOST_REGIONS: u64 = 1 << 31;

/// The pixels of images that come one after the other, counted in bins: memory does not grow with the number of images.
///
/// A bin holds the scores that agree in their leading bits (sign, exponent, and as many bits of the mantissa as there
/// are bins for), so its width is a share of the score: no range is needed beforehand and no outlier stretches it. With
/// the usual number of bins scores are told apart that differ by 1 part in 4096 at worst, and by 1 part in 100 000 if
/// they spread over a thousandfold range. If they take few leading values, every score has its own bin.
///
/// Each figure comes with the bound that the counts guarantee ([`Bounded`](crate::Bounded)); it is 0 where every score
/// has its own bin, but for AUPRO, whose overlaps are rounded to 2^-32 of a region.
///
/// The state depends on the images only, neither on their order nor on how they were shared out among threads or
/// processes ([`merge`](Self::merge), [`to_bytes`](Self::to_bytes)).
///
/// ```
/// let mut pixels = metrics::StreamedPixels::default();
/// let map = [0.1, 0.2, 0.8, 0.3];
/// pixels.add(&metrics::ScoredMap::new(2, 2, &map, Some(&[0, 0, 1, 0]))?)?;
/// let figures = pixels.figures(&[0.3])?;
/// assert!(figures.auroc.contains(1.0));
/// assert!(figures.aupro[0].area.contains(1.0));
/// # Ok::<(), metrics::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamedPixels {
    most_bins: usize,
    /// Whether a score with these leading 16 bits was seen.
    seen: Vec<bool>,
    prefixes: usize,
    background: Bins<u64>,
    anomalous: Bins<Found>,
    images: u64,
    regions: u64,
    background_pixels: u64,
    anomalous_pixels: u64,
}

impl Default for StreamedPixels {
    fn default() -> Self {
        Self::with(Self::USUAL_BINS)
    }
}

impl StreamedPixels {
    /// The number of bins of [`StreamedPixels::default`]: 2^21, at most 50 MB.
    pub const USUAL_BINS: usize = 1 << 21;

    /// With at most `most_bins` bins, each taking 8 bytes and those with anomalous pixels 24.
    ///
    /// # Errors
    /// [`Error::Option`] for fewer than 65 536, which is one for each value of the leading 16 bits.
    pub fn with_bins(most_bins: usize) -> Result<Self, Error> {
        if most_bins < PREFIXES {
            let (expected, found) = ("at least 65536", most_bins as f64);
            return Err(Error::Option { name: "most_bins", expected, found });
        }
        Ok(Self::with(most_bins))
    }

    fn with(most_bins: usize) -> Self {
        Self {
            most_bins,
            seen: vec![false; PREFIXES],
            prefixes: 0,
            background: Bins::new(),
            anomalous: Bins::new(),
            images: 0,
            regions: 0,
            background_pixels: 0,
            anomalous_pixels: 0,
        }
    }

    /// Adds an image; regions have eight neighbours.
    ///
    /// # Errors
    /// [`Error::NotFinitePixel`], [`Error::Option`] beyond 2^31 regions or 2^56 pixels; nothing is added then.
    pub fn add(&mut self, image: &ScoredMap<'_>) -> Result<(), Error> {
        image.check(self.images as usize)?;
        let regions = image
            .mask()
            .filter(|_| image.is_anomalous())
            .map(|mask| Regions::of_mask(mask, image.height(), image.width(), Connectivity::Eight));
        let Some(regions) = regions else {
            self.make_room(image.scores().len() as u64, 0, 0)?;
            self.see(image.scores());
            self.background.count(image.scores());
            return Ok(());
        };
        let anomalous: u64 = regions.sizes.iter().sum();
        let background = image.scores().len() as u64 - anomalous;
        self.make_room(background, anomalous, regions.sizes.len() as u64)?;
        self.see(image.scores());
        let mut keys: Vec<Vec<u32>> =
            regions.sizes.iter().map(|&size| Vec::with_capacity(size as usize)).collect();
        for (&score, &label) in image.scores().iter().zip(&regions.labels) {
            match label.checked_sub(1) {
                None => *self.background.at(score.key()) += 1,
                Some(region) => {
                    self.anomalous.at(score.key()).pixels += 1;
                    keys[region as usize].push(score.key());
                }
            }
        }
        for (keys, size) in keys.into_iter().zip(regions.sizes) {
            self.cover(keys, size);
        }
        Ok(())
    }

    /// Adds an image with defect channels: each is one region, found whole when its saturation area is, so that AUPRO
    /// becomes AU-sPRO. Add all images of a set in one of the two ways.
    ///
    /// # Errors
    /// As [`StreamedPixels::add`], and those of [`saturation_areas`]; nothing is added then.
    pub fn add_channels(&mut self, image: &ChannelMap<'_>) -> Result<(), Error> {
        let map = image.map();
        map.check(self.images as usize)?;
        let capacities = saturation_areas(std::slice::from_ref(image))?;
        let is_background: Vec<bool> =
            (0..map.scores().len()).map(|pixel| image.is_background(pixel)).collect();
        let background = is_background.iter().filter(|&&is| is).count() as u64;
        let anomalous = is_background.len() as u64 - background;
        self.make_room(background, anomalous, capacities.len() as u64)?;
        self.see(map.scores());
        for (&score, &is_background) in map.scores().iter().zip(&is_background) {
            if is_background {
                *self.background.at(score.key()) += 1;
            } else {
                self.anomalous.at(score.key()).pixels += 1;
            }
        }
        for (channel, capacity) in image.channels().iter().zip(capacities) {
            let members = map.scores().iter().zip(channel.mask).filter(|&(_, &sample)| sample > 0);
            self.cover(members.map(|(score, _)| score.key()).collect(), capacity);
        }
        Ok(())
    }

    /// Adds the images of another state with the same number of bins, as from another thread.
    ///
    /// # Errors
    /// [`Error::Option`] if the numbers of bins differ, or beyond 2^31 regions or 2^56 pixels; nothing is added then.
    pub fn merge(&mut self, other: &Self) -> Result<(), Error> {
        if self.most_bins != other.most_bins {
            let (expected, found) = ("the same in all states that are merged", other.most_bins as f64);
            return Err(Error::Option { name: "most_bins", expected, found });
        }
        self.make_room(other.background_pixels, other.anomalous_pixels, other.regions)?;
        // One of them is counted already.
        self.images = self.images + other.images - 1;
        for prefix in (0..PREFIXES).filter(|&prefix| other.seen[prefix]) {
            self.open(prefix);
        }
        self.background.merge(&other.background);
        self.anomalous.merge(&other.anomalous);
        Ok(())
    }

    /// How many images were added.
    pub fn images(&self) -> u64 {
        self.images
    }

    /// How many regions they have.
    pub fn regions(&self) -> u64 {
        self.regions
    }

    /// The widest bin as a share of its scores; 0 if every score has its own.
    pub fn resolution(&self) -> f64 {
        match self.background.shift() {
            0 => 0.0,
            // There are 23 bits behind the leading one.
            shift => (f64::from(shift) - 23.0).exp2(),
        }
    }

    /// The usual figures, with AUPRO at each of `limits`, in (0, 1].
    ///
    /// # Errors
    /// [`Error::Empty`] without images, [`Error::NoPositives`], [`Error::NoNegatives`], [`Error::Option`] for a limit.
    pub fn figures(&self, limits: &[f64]) -> Result<PixelFigures, Error> {
        if self.images == 0 {
            return Err(Error::Empty { what: "images" });
        }
        let totals = Totals {
            positives: self.anomalous_pixels,
            negatives: self.background_pixels,
            regions: self.regions,
        };
        let mut sweep = Sweep::new(totals, limits)?;
        let is_one_score = self.background.shift() == 0;
        for prefix in (0..PREFIXES).rev().filter(|&prefix| self.seen[prefix]) {
            for bin in (0..self.background.bins_per_prefix()).rev() {
                let negatives = self.background.get(prefix, bin);
                let found = self.anomalous.get(prefix, bin);
                if negatives == 0 && found == Found::default() {
                    continue;
                }
                sweep.push(&Group {
                    lowest: self.background.lowest(prefix, bin),
                    positives: found.pixels,
                    negatives,
                    overlap: found.overlap as f64 / WHOLE_REGION as f64,
                    is_one_score,
                });
            }
        }
        Ok(sweep.finish(1.0 / WHOLE_REGION as f64))
    }

    /// Counts an image and its pixels, if there is room for them.
    fn make_room(&mut self, background: u64, anomalous: u64, regions: u64) -> Result<(), Error> {
        let pixels = self.background_pixels + self.anomalous_pixels + background + anomalous;
        if pixels > MOST_PIXELS || self.regions + regions > MOST_REGIONS {
            let expected = "at most 2^56 pixels and 2^31 regions in all";
            return Err(Error::Option { name: "images", expected, found: pixels as f64 });
        }
        self.background_pixels += background;
        self.anomalous_pixels += anomalous;
        self.regions += regions;
        self.images += 1;
        Ok(())
    }

    /// Makes bins for the scores.
    fn see(&mut self, scores: &[f32]) {
        let mut last = PREFIXES;
        for score in scores {
            let prefix = prefix_of(score.key());
            // Neighbours often agree.
            if prefix != last {
                last = prefix;
                self.open(prefix);
            }
        }
    }

    /// Makes bins for scores with these leading bits, if need be by making all bins wider.
    fn open(&mut self, prefix: usize) {
        if self.seen[prefix] {
            return;
        }
        self.seen[prefix] = true;
        self.prefixes += 1;
        let shift = shift_for(self.prefixes, self.most_bins);
        self.background.widen(shift);
        self.anomalous.widen(shift);
    }

    /// Spreads a region over the bins of its pixels, from the highest score down: after the first k of `capacity`
    /// pixels, k / `capacity` of it is covered, rounded down.
    fn cover(&mut self, keys: Vec<u32>, capacity: u64) {
        let keys = crate::sort::by_key(keys, |key| key);
        let mut covered = 0;
        for (count, &key) in (1..=capacity).zip(keys.iter().rev()) {
            let now = (u128::from(count) * u128::from(WHOLE_REGION) / u128::from(capacity)) as u64;
            self.anomalous.at(key).overlap += now - covered;
            covered = now;
        }
    }
}

/// By how many bits keys are shortened so that there are enough bins.
fn shift_for(prefixes: usize, most_bins: usize) -> u32 {
    (0..MOST_SHIFT).find(|shift| prefixes << (MOST_SHIFT - shift) <= most_bins).unwrap_or(MOST_SHIFT)
}
