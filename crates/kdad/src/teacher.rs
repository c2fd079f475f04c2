//! The frozen teacher's tokens, computed once an image.

use std::sync::Arc;

use anomaly_core::{
    ConfigError, ContentKey, FeatureSource, FeatureStore, MethodConfig, MethodError, Precision,
};
use candle_core::Tensor;
use image_prep::{Filter, IMAGENET_MEAN, IMAGENET_STD, Preprocess};
use vit_backbone::{Outputs, Vit};

use crate::network::{NORM_EPS, Sizes};
use crate::{Config, Error, StudentKind};

/// The teacher with the size of its images.
#[derive(Debug, Clone)]
pub(crate) struct Teacher {
    pub(crate) vit: Arc<Vit>,
    pub(crate) image_size: usize,
    pub(crate) preprocess: Preprocess,
}

impl Teacher {
    /// Checks that the settings fit the backbone, and fills in the image size.
    pub(crate) fn new(config: &mut Config, vit: Arc<Vit>) -> Result<Self, Error> {
        let refuse = |field: &str, problem: String| {
            Err(Error::Config(ConfigError::field(Config::METHOD, field, problem)))
        };
        let size = *config.image_size.get_or_insert(vit.config().trained_size.0);
        let (ph, pw) = vit.patch();
        if size == 0 || !size.is_multiple_of(ph) || !size.is_multiple_of(pw) {
            return refuse(
                "image_size",
                format!("expected a multiple of the patch, {ph} x {pw}, found {size}"),
            );
        }
        if config.student == StudentKind::Vit && !vit.dim().is_multiple_of(config.heads) {
            let problem =
                format!("expected a divisor of the backbone's width {}, found {}", vit.dim(), config.heads);
            return refuse("heads", problem);
        }
        // Fails here rather than in the first batch if the position table can't be brought to this grid.
        vit.position_table(size, size)?;
        // Lanczos and ImageNet's statistics whatever the backbone, as the reference has it.
        let preprocess = Preprocess::square(size, Filter::Lanczos, IMAGENET_MEAN, IMAGENET_STD);
        Ok(Self { vit, image_size: size, preprocess })
    }

    /// The sizes of a student of this teacher.
    pub(crate) fn student(&self, config: &Config) -> Sizes {
        let (rows, columns) = self.vit.grid(self.image_size, self.image_size);
        Sizes {
            kind: config.student,
            patch: self.vit.patch(),
            patches: rows * columns,
            dim: self.vit.dim(),
            hidden: config.hidden_dim,
            layers: config.layers,
            heads: config.heads,
            norm_eps: NORM_EPS,
        }
    }

    /// The normed patch tokens `(B, N, D)` of images `(B, 3, S, S)`.
    pub(crate) fn tokens(&self, images: &Tensor) -> Result<Tensor, Error> {
        let features = self.vit.forward(&images.to_device(self.vit.device())?, &Outputs::norm())?;
        let reason = "the forward pass left out what it was asked for";
        let normed =
            features.norm.as_ref().ok_or(vit_backbone::Error::NoSuchOutput { output: "norm", reason })?;
        Ok(features.patches(normed)?.contiguous()?)
    }

    /// The same for `images`, from `store` as far as it has them. `load` is given the places in `images` of those that are
    /// missing, and gives their pixels; their tokens are kept from then on, if there is room.
    pub(crate) fn once(
        &self,
        store: &dyn FeatureStore,
        precision: Precision,
        images: &[ContentKey],
        load: &mut dyn FnMut(&[usize]) -> Result<Tensor, MethodError>,
    ) -> Result<Tensor, MethodError> {
        let compute = &mut |places: &[usize]| Ok(self.tokens(&load(places)?)?);
        self.source(precision)?.once(store, images, self.vit.device(), compute)
    }

    /// All that these depend on but the image.
    pub(crate) fn source(&self, precision: Precision) -> Result<FeatureSource, Error> {
        Ok(FeatureSource {
            weights: self.vit.identity().sha256.clone(),
            output: self.output()?,
            preprocess: serde_json::to_string(&self.preprocess)?,
            precision,
        })
    }

    /// What is taken from the backbone and how it is computed, for the feature store.
    fn output(&self) -> Result<String, Error> {
        Ok(format!(
            "kdad: patches of the final norm; {}; vit-backbone {}, image-prep {}, on the {}",
            serde_json::to_string(self.vit.config())?,
            vit_backbone::REVISION,
            image_prep::REVISION,
            if self.vit.device().is_cpu() { "host" } else { "GPU" },
        ))
    }
}

/// The images of `pixels` `(B, 3, S, S)` at `places`.
pub(crate) fn chosen(pixels: &Tensor, places: &[usize]) -> Result<Tensor, Error> {
    let places: Vec<u32> = places.iter().map(|place| *place as u32).collect();
    Ok(pixels.index_select(&Tensor::new(places, pixels.device())?, 0)?)
}
