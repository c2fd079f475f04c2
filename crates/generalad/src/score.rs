//! From logits to scores and maps.

use candle_core::Tensor;
use image_prep::PatchMaps;

use crate::{Amount, Config, Error};

/// The mean of the highest logits of each image, from logits `(B, N)`.
pub(crate) fn image_scores(logits: &[Vec<f32>], top_k: Amount) -> Vec<f64> {
    let score = |logits: &Vec<f32>| {
        let mut sorted = logits.clone();
        sorted.sort_unstable_by(|a, b| b.total_cmp(a));
        let count = top_k.of(sorted.len());
        sorted[..count].iter().map(|logit| f64::from(*logit)).sum::<f64>() / count as f64
    };
    logits.iter().map(score).collect()
}

/// Logits `(B, N)` on the host, row by row.
pub(crate) fn rows(logits: &Tensor) -> Result<Vec<Vec<f32>>, Error> {
    Ok(logits.to_vec2::<f32>()?)
}

/// How logits of a grid of patches become a map of the network's input size.
pub(crate) fn maps(config: &Config, grid: (usize, usize)) -> Result<PatchMaps, Error> {
    let to = (config.image_size, config.image_size);
    Ok(PatchMaps::smoothed(grid, to, config.smoothing_sigma, config.smoothing_radius)?)
}

#[cfg(test)]
mod tests {
    use super::image_scores;
    use crate::Amount;

    #[test]
    fn the_score_is_the_mean_of_the_highest() {
        let logits = [vec![1.0, -3.0, 5.0, 2.0], vec![-1.0, -1.0, -2.0, -4.0]];
        assert_eq!(image_scores(&logits, Amount::Of(2)), [3.5, -1.0]);
        assert_eq!(image_scores(&logits, Amount::All), [1.25, -2.0]);
        assert_eq!(image_scores(&logits, Amount::Of(9)), [1.25, -2.0]);
        assert_eq!(image_scores(&logits, Amount::Of(1)), [5.0, -1.0]);
    }
}
