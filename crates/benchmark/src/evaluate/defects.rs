//! AU-sPRO of data sets that say how much of each defect has to be found (MVTec LOCO AD).

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use anomaly_core::DataError;
use image_prep::{MapFilter, Mask};
use metrics::{Channel, ChannelMap, Saturation, SproPixels};

use super::Scores;
use crate::Error;
use crate::test_set::TestSet;

/// False positive rate up to which AU-sPRO is taken, as its publication does.
const LIMIT: f64 = 0.05;

/// The defects of one image, at the size it is stored in.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Defects {
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// As logical or structural; none for a normal image.
    pub(crate) kind: Option<String>,
    pub(crate) regions: Vec<Region>,
}

/// One defect.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Region {
    /// 0 or 1.
    pub(crate) mask: Mask,
    pub(crate) saturation: Saturation,
}

impl Defects {
    /// From the stored masks of one image: each value of each of them is one defect, which `table` explains.
    pub(crate) fn new(
        (height, width): (usize, usize),
        kind: Option<String>,
        stored: &[Mask],
        table: &[datasets::Saturation],
    ) -> Result<Self, DataError> {
        let mut regions = Vec::new();
        for stored in stored {
            let values: BTreeSet<u8> = stored.data.iter().copied().filter(|&value| value > 0).collect();
            for value in values {
                let row = table.iter().find(|row| row.pixel_value == value).ok_or_else(|| {
                    let known: Vec<String> = table.iter().map(|row| row.pixel_value.to_string()).collect();
                    let expected = format!("one of the values in defects_config.json: {}", known.join(", "));
                    DataError::new(Error::unfit("a mask", expected, format!("the value {value}")))
                })?;
                let data = stored.data.iter().map(|&found| u8::from(found == value)).collect();
                let threshold = row.saturation_threshold;
                let saturation = if row.relative_saturation {
                    Saturation::Relative(threshold)
                } else {
                    Saturation::Absolute(threshold)
                };
                let mask = Mask::new(stored.height, stored.width, data).map_err(DataError::new)?;
                regions.push(Region { mask, saturation });
            }
        }
        Ok(Self { height, width, kind, regions })
    }
}

/// AU-sPRO up to [`LIMIT`] for each kind of defect, over its images and all normal ones, at their stored size; empty
/// without maps or where the data set has no table.
pub(crate) fn au_spro(scores: &Scores, test: &dyn TestSet) -> Result<BTreeMap<String, f64>, Error> {
    let mut areas = BTreeMap::new();
    if scores.maps.is_empty() {
        return Ok(areas);
    }
    // One kind after the other, so that the pixels of the normal images are in memory once.
    let kinds: BTreeSet<String> = (0..test.len()).filter_map(|index| test.graded_defect(index)).collect();
    for kind in kinds {
        let mut pixels = SproPixels::default();
        for (index, map) in scores.maps.iter().enumerate() {
            if test.anomalous(index) && test.graded_defect(index).as_ref() != Some(&kind) {
                continue;
            }
            let Some(defects) = test.defects(index)? else { continue };
            let (from, to) = ((map.height, map.width), (defects.height, defects.width));
            let map = image_prep::upsample_maps(&map.data, from, to, MapFilter::Bilinear)?;
            let regions = defects.regions.iter();
            let channels = regions
                .map(|Region { mask, saturation }| Channel { mask: &mask.data, saturation: *saturation });
            let channels = channels.collect();
            pixels.add(&ChannelMap::new(defects.height, defects.width, &map, channels)?)?;
        }
        areas.insert(kind, pixels.curve(LIMIT)?.area(LIMIT)?);
    }
    Ok(areas)
}
