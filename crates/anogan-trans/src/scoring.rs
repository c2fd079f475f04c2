//! Frozen networks, and what they say of images.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};

use crate::Error;
use crate::discriminator::{Discriminator, DiscriminatorConfig, Mode};
use crate::generator::{Generator, GeneratorConfig};
use crate::loss::{reconstruction, value};
use crate::trainer::networks;

/// Both networks, without graphs.
#[derive(Debug, Clone)]
pub(crate) struct Networks {
    pub(crate) generator: Generator,
    pub(crate) discriminator: Discriminator,
    device: Device,
}

/// What they say of B images.
pub(crate) struct Scored {
    /// Reconstructions, channels last.
    pub(crate) painted: Tensor,
    /// Mean squared difference of the three channels, `(B, S S)`.
    pub(crate) error: Tensor,
    /// Its mean over each image.
    pub(crate) pixel: Vec<f64>,
    /// Mean squared difference of each image's two feature vectors.
    pub(crate) feature: Vec<f64>,
    /// The feature vectors of images and reconstructions, `(B, nz)`.
    #[cfg_attr(not(feature = "conformance"), allow(dead_code))]
    pub(crate) features: [Tensor; 2],
}

impl Networks {
    /// With the tensors of a trainer.
    pub(crate) fn new(
        tensors: &HashMap<String, Tensor>,
        generator: &GeneratorConfig,
        discriminator: &DiscriminatorConfig,
        device: &Device,
    ) -> Result<Self, Error> {
        let (of_generator, of_discriminator) = networks(tensors);
        Ok(Self {
            generator: Generator::frozen(&of_generator, generator, device)?,
            discriminator: Discriminator::frozen(&of_discriminator, discriminator, device)?,
            device: device.clone(),
        })
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// Of images `(B, 3, S, S)`. In [`Mode::Batch`] the discriminator's running statistics take the images in, then the
    /// reconstructions, as in the reference.
    pub(crate) fn score(&mut self, images: &Tensor, mode: Mode) -> Result<Scored, Error> {
        let (scored, statistics) = self.judge(images, mode)?;
        for batch in statistics {
            self.discriminator.remember(&batch)?;
        }
        Ok(scored)
    }

    /// Of images `(B, 3, S, S)`, each by itself.
    pub(crate) fn score_each(&self, images: &Tensor) -> Result<Scored, Error> {
        Ok(self.judge(images, Mode::Running)?.0)
    }

    fn judge(
        &self,
        images: &Tensor,
        mode: Mode,
    ) -> Result<(Scored, [Vec<vit_ops::BatchStatistics>; 2]), Error> {
        let images = images.to_device(&self.device)?;
        let (batch, channels, height, width) = images.dims4()?;
        let real = images.permute((0, 2, 3, 1))?.contiguous()?;
        let painted = self.generator.forward(&images)?;
        let of_real = self.discriminator.forward(&real, mode)?;
        let of_painted = self.discriminator.forward(&painted, mode)?;
        let flat = |t: &Tensor| t.reshape((batch, height * width, channels));
        let error = vit_ops::squared_error(&flat(&painted)?, &flat(&real)?)?;
        let means = |t: &Tensor| -> Result<Vec<f64>, Error> {
            let rows = t.to_dtype(DType::F64)?.to_vec2::<f64>()?;
            Ok(rows.into_iter().map(|row| row.iter().sum::<f64>() / row.len() as f64).collect())
        };
        let features = [of_real.feature, of_painted.feature];
        let scored = Scored {
            pixel: means(&error)?,
            feature: means(&(&features[0] - &features[1])?.sqr()?)?,
            painted,
            error,
            features,
        };
        Ok((scored, [of_real.statistics, of_painted.statistics]))
    }

    /// The mean absolute difference of images `(B, 3, S, S)` and their reconstructions.
    pub(crate) fn reconstruction(&self, images: &Tensor) -> Result<f64, Error> {
        let images = images.to_device(&self.device)?;
        value(&reconstruction(&self.generator.forward(&images)?, &images.permute((0, 2, 3, 1))?)?)
    }
}

/// Values between 0 for the smallest and 1 for the largest; all 0 if they are equal. For display only: scores stay raw.
pub(crate) fn min_max(values: &[f64]) -> Vec<f64> {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let range = values.iter().copied().fold(f64::NEG_INFINITY, f64::max) - low;
    values.iter().map(|value| if range > 0.0 { (value - low) / range } else { 0.0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::min_max;

    #[test]
    fn display_values_run_from_0_to_1() {
        assert_eq!(min_max(&[2.0, 4.0, 3.0]), [0.0, 1.0, 0.5]);
        assert_eq!(min_max(&[7.0, 7.0]), [0.0, 0.0]);
        assert!(min_max(&[]).is_empty());
    }
}
