//! Every score is kept, as an integer.

use crate::overlap::{Member, OverlapCurve, check_counts, check_limit, key_of};
use crate::score::sealed::Sealed;
use crate::split::{Truth, by_class};
use crate::{Aupro, Bounded, Connectivity, Error, PixelFigures, ProCurve, Ranking, ScoredMap, pro};

/// The pixels of images that come one after the other, 4 bytes each; the maps and masks can be dropped.
///
/// ```
/// let mut pixels = metrics::ExactPixels::default();
/// let map = [0.1, 0.2, 0.8, 0.3];
/// pixels.add(&metrics::ScoredMap::new(2, 2, &map, Some(&[0, 0, 1, 0]))?)?;
/// let ranked = pixels.rank()?;
/// assert_eq!(ranked.ranking().auroc()?, 1.0);
/// assert_eq!(ranked.pro_curve(0.3)?.area(0.05)?, 1.0);
/// # Ok::<(), metrics::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct ExactPixels {
    /// Keys of the pixels outside all regions.
    background: Vec<u32>,
    members: Vec<Member>,
    /// Pixels of each region.
    sizes: Vec<u64>,
    images: usize,
}

impl ExactPixels {
    /// Adds an image; regions have eight neighbours.
    ///
    /// # Errors
    /// [`Error::NotFinitePixel`]; nothing is added then.
    pub fn add(&mut self, image: &ScoredMap<'_>) -> Result<(), Error> {
        image.check(self.images)?;
        let (_, background) = by_class(&[(image.scores(), Truth::of_mask(image.mask()))]);
        let (members, sizes) = pro::members(std::slice::from_ref(image), Connectivity::Eight);
        self.append(background, &members, &sizes);
        self.images += 1;
        Ok(())
    }

    /// Adds the images of another set, as from another thread.
    pub fn merge(&mut self, other: Self) {
        self.append(other.background, &other.members, &other.sizes);
        self.images += other.images;
    }

    fn append(&mut self, background: Vec<u32>, members: &[Member], sizes: &[u64]) {
        if self.background.is_empty() {
            self.background = background;
        } else {
            self.background.extend(background);
        }
        let before = self.sizes.len() as u64;
        self.members.extend(members.iter().map(|member| member + before));
        self.sizes.extend(sizes);
    }

    /// How many images were added.
    pub fn images(&self) -> usize {
        self.images
    }

    /// Sorts what was added.
    ///
    /// # Errors
    /// [`Error::Empty`] without images.
    pub fn rank(self) -> Result<RankedPixels, Error> {
        if self.images == 0 {
            return Err(Error::Empty { what: "images" });
        }
        let background = <f32 as Sealed>::sorted(self.background);
        let members = crate::sort::by_key(self.members, key_of);
        let positives = members.iter().map(|&member| key_of(member)).collect();
        Ok(RankedPixels { ranking: Ranking::from_sorted(positives, background), members, sizes: self.sizes })
    }
}

/// The sorted pixels of a set of images: one sort for all figures.
#[derive(Clone, Debug)]
pub struct RankedPixels {
    ranking: Ranking<f32>,
    /// Sorted.
    members: Vec<Member>,
    sizes: Vec<u64>,
}

impl RankedPixels {
    /// The pixels as elements: AUROC, AP, F1-max and what else a [`Ranking`] gives.
    pub fn ranking(&self) -> &Ranking<f32> {
        &self.ranking
    }

    /// How many regions there are in all masks.
    pub fn regions(&self) -> usize {
        self.sizes.len()
    }

    /// The PRO curve up to the false positive rate `limit`, in (0, 1].
    ///
    /// # Errors
    /// [`Error::Option`] for the limit, [`Error::NoRegion`], [`Error::NoBackground`].
    pub fn pro_curve(&self, limit: f64) -> Result<ProCurve, Error> {
        check_limit(limit)?;
        let background = self.ranking.sorted_negatives();
        check_counts(self.sizes.len(), background.len() as u64, "PRO")?;
        let count = background.len() as u64;
        let curve = OverlapCurve::from_sorted(background, count, &self.members, &self.sizes, limit);
        Ok(ProCurve::from_overlap(curve))
    }

    /// The usual figures, with AUPRO at each of `limits`; without error.
    ///
    /// # Errors
    /// [`Error::NoPositives`], [`Error::NoNegatives`], [`Error::Option`] for a limit.
    pub fn figures(&self, limits: &[f64]) -> Result<PixelFigures, Error> {
        let auroc = Bounded::exact(self.ranking.auroc()?);
        let best = self.ranking.f1_max()?;
        let mut aupro = Vec::with_capacity(limits.len());
        let highest = limits.iter().copied().reduce(f64::max);
        if let Some(highest) = highest {
            let curve = self.pro_curve(highest)?;
            for &limit in limits {
                aupro.push(Aupro { limit, area: Bounded::exact(curve.area(limit)?) });
            }
        }
        Ok(PixelFigures {
            auroc,
            average_precision: Bounded::exact(self.ranking.average_precision()?),
            f1_max: Bounded::exact(best.value),
            f1_threshold: best.threshold,
            fpr_at_95_tpr: Bounded::exact(self.ranking.fpr_at_tpr(0.95)?),
            aupro,
        })
    }
}

/// The score that a key stands for.
pub(super) fn score_of(key: u32) -> f32 {
    <f32 as Sealed>::from_key(key)
}
