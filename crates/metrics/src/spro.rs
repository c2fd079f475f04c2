//! sPRO, the saturated per-region overlap (Bergmann et al. 2022, the `MVTec` LOCO definition).

use crate::overlap::{OverlapCurve, RegionPixels, check_limit, member};
use crate::score::check_scores;
use crate::score::sealed::Sealed;
use crate::{Error, ScoredMap};

/// How much of a defect has to be found for it to count as found whole.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Saturation {
    /// This share of its pixels, in (0, 1]; the product is truncated to whole pixels.
    Relative(f64),
    /// This many pixels, but at most all of them; truncated to whole pixels.
    Absolute(f64),
}

/// One defect of an image: one region, even where it is not connected. Channels of an image may overlap.
#[derive(Clone, Copy, Debug)]
pub struct Channel<'a> {
    /// Row-major mask of the image's size; a pixel above 0 belongs to the defect.
    pub mask: &'a [u8],
    /// How much of it has to be found.
    pub saturation: Saturation,
}

/// An image's anomaly map and its defects; without any the image is normal.
#[derive(Clone, Debug)]
pub struct ChannelMap<'a> {
    map: ScoredMap<'a>,
    channels: Vec<Channel<'a>>,
}

impl<'a> ChannelMap<'a> {
    /// A row-major `(height, width)` map with its defects.
    ///
    /// # Errors
    /// [`Error::Empty`] without pixels, [`Error::Shape`] if the map or a channel has another number of pixels.
    pub fn new(
        height: usize,
        width: usize,
        scores: &'a [f32],
        channels: Vec<Channel<'a>>,
    ) -> Result<Self, Error> {
        let map = ScoredMap::new(height, width, scores, None)?;
        for channel in &channels {
            if channel.mask.len() != scores.len() {
                return Err(Error::Shape { what: "channel", height, width, found: channel.mask.len() });
            }
        }
        Ok(Self { map, channels })
    }

    /// The map alone.
    pub(crate) fn map(&self) -> &ScoredMap<'a> {
        &self.map
    }

    /// The defects.
    pub(crate) fn channels(&self) -> &[Channel<'a>] {
        &self.channels
    }

    /// Whether the pixel belongs to no defect.
    pub(crate) fn is_background(&self, pixel: usize) -> bool {
        self.channels.iter().all(|channel| channel.mask[pixel] == 0)
    }
}

/// Refuses no images and bad scores.
fn check(images: &[ChannelMap<'_>]) -> Result<(), Error> {
    let maps: Vec<ScoredMap<'_>> = images.iter().map(|image| image.map).collect();
    ScoredMap::check_all(&maps)
}

/// The saturation area of each channel in pixels, in the order of the images and their channels.
///
/// # Errors
/// [`Error::Saturation`] for an area of 0, [`Error::Option`] for a threshold outside its range.
pub fn saturation_areas(images: &[ChannelMap<'_>]) -> Result<Vec<u64>, Error> {
    let channels = images.iter().flat_map(|image| &image.channels);
    let area_of = |(index, channel): (usize, &Channel<'_>)| {
        let area = channel.mask.iter().filter(|&&m| m > 0).count() as u64;
        let (threshold, wanted) = match channel.saturation {
            Saturation::Relative(share) if share > 0.0 && share <= 1.0 => (share, share * area as f64),
            Saturation::Absolute(pixels) if pixels > 0.0 && pixels.is_finite() => {
                (pixels, pixels.min(area as f64))
            }
            Saturation::Relative(found) => {
                let expected = "more than 0 and at most 1";
                return Err(Error::Option { name: "relative saturation", expected, found });
            }
            Saturation::Absolute(found) => {
                return Err(Error::Option { name: "absolute saturation", expected: "more than 0", found });
            }
        };
        match wanted as u64 {
            0 => Err(Error::Saturation { channel: index, area, threshold }),
            saturation => Ok(saturation),
        }
    };
    channels.enumerate().map(area_of).collect()
}

/// Mean saturated overlap of all channels over the false positive rate of the pixels outside the union of their
/// image's channels. Exact: a point per distinct score.
#[derive(Clone, Debug)]
pub struct SproCurve(OverlapCurve);

impl SproCurve {
    /// The curve of all `images` up to the false positive rate `limit`, in (0, 1]; see [`SproPixels`] for images that
    /// come one after the other. For the LOCO figures call it once with the images of logical defects and once with
    /// those of structural ones, each time together with all good images.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::NotFinitePixel`], [`Error::NoRegion`] without a channel, [`Error::NoBackground`],
    /// those of [`saturation_areas`], or [`Error::Option`] for the limit.
    pub fn new(images: &[ChannelMap<'_>], limit: f64) -> Result<Self, Error> {
        check_limit(limit)?;
        check(images)?;
        let capacities = saturation_areas(images)?;
        let mut pixels = SproPixels::default();
        for image in images {
            pixels.keep(image);
        }
        pixels.pixels.capacities = capacities;
        pixels.curve(limit)
    }

    /// AU-sPRO: the area under the curve from 0 to the false positive rate `limit`, divided by `limit`, in [0, 1].
    /// Published figures use 0.05.
    ///
    /// # Errors
    /// [`Error::Option`] for a limit outside (0, 1] or beyond the one the curve was made for.
    pub fn area(&self, limit: f64) -> Result<f64, Error> {
        self.0.area(limit)
    }

    /// False positive rate and mean saturated overlap, both rising, from (0, 0) to just beyond the curve's limit;
    /// straight pieces have only their ends.
    pub fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        self.0.points()
    }
}

/// The pixels of images that come one after the other, for a [`SproCurve`]: 4 bytes for each, 8 for each pixel of a
/// channel; maps and masks may be dropped.
#[derive(Debug, Default)]
pub struct SproPixels {
    pixels: RegionPixels,
    /// Channels of the images so far.
    regions: u32,
}

impl SproPixels {
    /// Takes one image's pixels.
    ///
    /// # Errors
    /// [`Error::NotFinitePixel`] and those of [`saturation_areas`], whose channel counts from the image's first; nothing
    /// is kept then.
    pub fn add(&mut self, image: &ChannelMap<'_>) -> Result<(), Error> {
        let one = std::slice::from_ref(image);
        check(one)?;
        let capacities = saturation_areas(one)?;
        self.keep(image);
        self.pixels.capacities.extend(capacities);
        Ok(())
    }

    /// The curve of all images so far up to the false positive rate `limit`, in (0, 1].
    ///
    /// # Errors
    /// [`Error::NoRegion`] without a channel, [`Error::NoBackground`], [`Error::Option`] for the limit.
    pub fn curve(mut self, limit: f64) -> Result<SproCurve, Error> {
        check_limit(limit)?;
        self.pixels.background_count = self.pixels.background.len() as u64;
        OverlapCurve::new(self.pixels, limit, "sPRO").map(SproCurve)
    }

    fn keep(&mut self, image: &ChannelMap<'_>) {
        let scores = image.map.scores();
        // Numbers of regions go on where the last image's ended.
        let first = self.regions;
        for (number, channel) in (first..).zip(&image.channels) {
            let members = scores.iter().zip(channel.mask).filter(|&(_, &m)| m > 0);
            self.pixels.members.extend(members.map(|(score, _)| member(score.key(), number)));
        }
        self.regions += image.channels.len() as u32;
        let background = scores.iter().enumerate().filter(|&(pixel, _)| image.is_background(pixel));
        self.pixels.background.extend(background.map(|(_, score)| score.key()));
    }
}

/// sPRO at a fixed threshold.
#[derive(Clone, Debug, PartialEq)]
pub struct SproAt {
    /// Saturated overlap of each channel, in [0, 1], in the order of the images and their channels.
    pub per_channel: Vec<f64>,
    /// Share of the pixels outside all channels with score > threshold.
    pub false_positive_rate: f64,
}

/// Overlaps and false positive rate of the decision score > threshold.
///
/// # Errors
/// As [`SproCurve::new`], and [`Error::NotFinite`] for the threshold.
pub fn spro_at(images: &[ChannelMap<'_>], threshold: f32) -> Result<SproAt, Error> {
    check(images)?;
    check_scores(&[threshold])?;
    let saturations = saturation_areas(images)?;
    if saturations.is_empty() {
        return Err(Error::NoRegion { metric: "sPRO" });
    }
    let (mut found, mut false_positives, mut background) = (Vec::new(), 0_u64, 0_u64);
    for image in images {
        let scores = image.map.scores();
        for channel in &image.channels {
            let hit = scores.iter().zip(channel.mask).filter(|&(&score, &m)| m > 0 && score > threshold);
            found.push(hit.count() as u64);
        }
        for (_, &score) in scores.iter().enumerate().filter(|&(pixel, _)| image.is_background(pixel)) {
            background += 1;
            false_positives += u64::from(score > threshold);
        }
    }
    if background == 0 {
        return Err(Error::NoBackground { metric: "sPRO" });
    }
    let share = |(&found, &saturation): (&u64, &u64)| (found as f64 / saturation as f64).min(1.0);
    Ok(SproAt {
        per_channel: found.iter().zip(&saturations).map(share).collect(),
        false_positive_rate: false_positives as f64 / background as f64,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn overlap_saturates() {
        let scores = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4];
        let mask = [1, 0, 1, 1, 0, 0];
        let channel = |saturation| Channel { mask: &mask, saturation };
        let image = |saturation| [ChannelMap::new(2, 3, &scores, vec![channel(saturation)]).unwrap()];
        let at = |saturation| spro_at(&image(saturation), 0.65).unwrap();
        assert_eq!(at(Saturation::Relative(0.7)).per_channel, [1.0]);
        assert_eq!(at(Saturation::Absolute(9.0)).per_channel, [2.0 / 3.0]);
        assert_eq!(at(Saturation::Absolute(9.0)).false_positive_rate, 1.0 / 3.0);
        let points: Vec<_> =
            SproCurve::new(&image(Saturation::Absolute(2.0)), 1.0).unwrap().points().collect();
        assert_eq!(points[..3], [(0.0, 0.0), (0.0, 0.5), (1.0 / 3.0, 0.5)]);
        assert_eq!(points[3], (1.0 / 3.0, 1.0));
    }

    #[test]
    fn an_area_of_nothing_is_refused() {
        let (scores, mask) = ([0.0, 1.0], [1, 0]);
        let areas = |saturation| {
            let channels = vec![Channel { mask: &mask, saturation }];
            saturation_areas(&[ChannelMap::new(1, 2, &scores, channels).unwrap()])
        };
        assert_eq!(areas(Saturation::Absolute(1.0)).unwrap(), [1]);
        assert!(matches!(
            areas(Saturation::Relative(0.5)),
            Err(Error::Saturation { channel: 0, area: 1, .. })
        ));
        assert!(matches!(areas(Saturation::Relative(1.5)), Err(Error::Option { .. })));
        assert!(matches!(areas(Saturation::Absolute(0.0)), Err(Error::Option { .. })));
        let normal = ChannelMap::new(1, 2, &scores, vec![]).unwrap();
        assert!(matches!(SproCurve::new(&[normal], 0.3), Err(Error::NoRegion { .. })));
        let short = Channel { mask: &mask[..1], saturation: Saturation::Absolute(1.0) };
        assert!(matches!(ChannelMap::new(1, 2, &scores, vec![short]), Err(Error::Shape { .. })));
    }

    #[test]
    fn image_after_image_gives_the_same_curve() {
        let (scores, first, second) =
            ([[0.9, 0.1, 0.7, 0.3], [0.2, 0.8, 0.6, 0.4]], [1, 1, 0, 0], [0, 1, 1, 0]);
        let channel = |mask| Channel { mask, saturation: Saturation::Relative(0.5) };
        let images = [
            ChannelMap::new(2, 2, &scores[0], vec![channel(&first), channel(&second)]).unwrap(),
            ChannelMap::new(2, 2, &scores[1], vec![channel(&second)]).unwrap(),
            ChannelMap::new(2, 2, &scores[1], vec![]).unwrap(),
        ];
        let mut pixels = SproPixels::default();
        for image in &images {
            pixels.add(image).unwrap();
        }
        let (whole, added) = (SproCurve::new(&images, 1.0).unwrap(), pixels.curve(1.0).unwrap());
        assert_eq!(added.points().collect::<Vec<_>>(), whole.points().collect::<Vec<_>>());
        assert_eq!(added.area(0.5).unwrap(), whole.area(0.5).unwrap());
        assert!(matches!(SproPixels::default().curve(0.3), Err(Error::NoRegion { .. })));
    }
}
