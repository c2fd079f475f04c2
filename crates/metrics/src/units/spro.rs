//! Unit `spro`: saturated overlap of channels.

use conformance::{Case, HostTensor, Outputs, UnitError};

use super::config::Config;
use super::set::{maps, masks, one, scalar, sets};
use crate::{Channel, ChannelMap, Saturation, SproCurve, saturation_areas, spro_at};

pub(super) fn run(case: &Case) -> Result<Outputs, UnitError> {
    let config: Config = case.config()?;
    let mut outputs = Outputs::new();
    for set in sets(case, &config) {
        let (maps, channels) = (maps(set.input("maps")?)?, masks(set.input("channel_masks")?)?);
        let image_of = set.input("channel_image")?.to_usize_vec()?;
        let thresholds = set.input("saturation_threshold")?.to_f64_vec()?;
        let relative = set.input("saturation_is_relative")?.to_i64_vec()?;
        let lengths = [image_of.len(), thresholds.len(), relative.len()];
        if lengths != [channels.count; 3] {
            return Err(
                format!("expected {} entries per channel tensor, found {lengths:?}", channels.count).into()
            );
        }
        if let Some(image) = image_of.iter().find(|&&image| image >= maps.count) {
            return Err(format!("a channel belongs to image {image}, expected one of {}", maps.count).into());
        }
        let channel = |index: usize| Channel {
            mask: channels.plane(index),
            saturation: match relative[index] {
                0 => Saturation::Absolute(thresholds[index]),
                _ => Saturation::Relative(thresholds[index]),
            },
        };
        let of_image = |image: usize| {
            let image_of = &image_of;
            (0..channels.count).filter(move |&index| image_of[index] == image)
        };
        let images = (0..maps.count)
            .map(|image| {
                let own = of_image(image).map(channel).collect();
                ChannelMap::new(maps.height, maps.width, maps.plane(image), own)
            })
            .collect::<Result<Vec<_>, _>>();
        // Results come image by image; the file has its channels in its own order.
        let order: Vec<usize> = (0..maps.count).flat_map(of_image).collect();
        let shape = [order.len()];
        let images = || images.as_ref().map_err(crate::Error::clone);
        let mut record = |metric: &str, figure| set.record(&mut outputs, metric, figure);
        let areas = images().and_then(|images| saturation_areas(images));
        let areas = areas.map(|areas| in_order(&order, areas.into_iter().map(|area| area as i64)));
        record("saturation_area", areas.map(|areas| HostTensor::i64(shape, areas)))?;
        let threshold = scalar(set.input("threshold")?)?;
        let at = images().and_then(|images| spro_at(images, threshold));
        record("fpr_at_threshold", at.clone().map(|at| one(at.false_positive_rate)))?;
        let overlaps = at.map(|at| HostTensor::f64(shape, in_order(&order, at.per_channel)));
        record("spro_per_channel_at_threshold", overlaps)?;
        let curve = images().and_then(|images| SproCurve::new(images, 1.0));
        for (written, limit) in set.limits("au_spro_")? {
            if !config.limits.is_empty() && !config.limits.contains(&limit) {
                return Err(format!("`au_spro_{written}` is not among the configuration's limits").into());
            }
            let area = curve.as_ref().map_err(crate::Error::clone).and_then(|curve| curve.area(limit));
            record(&format!("au_spro_{written}"), area.map(one))?;
        }
    }
    Ok(outputs)
}

/// `values[i]` at position `order[i]`.
fn in_order<T: Copy>(order: &[usize], values: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut placed: Vec<(usize, T)> = order.iter().copied().zip(values).collect();
    placed.sort_unstable_by_key(|&(position, _)| position);
    placed.into_iter().map(|(_, value)| value).collect()
}
