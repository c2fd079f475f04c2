//! What the frozen backbone says of an image's patches, computed once where a feature store keeps it.

use std::collections::BTreeSet;
use std::sync::Arc;

use anomaly_core::{
    ConfigError, ContentKey, FeatureKey, FeatureSource, FeatureStore, MethodConfig, MethodError, Precision,
};
use candle_core::Tensor;
use image_prep::Preprocess;
use vit_backbone::{Outputs, Vit};

use crate::anomalies::Attention;
use crate::{Config, Error};

/// Features of a batch of B images.
#[derive(Debug, Clone)]
pub(crate) struct PatchFeatures {
    /// `(B, N, D)`: patches row by row; channels of the layers one after the other, in the order of the blocks.
    pub(crate) features: Tensor,
    /// The class token's attention to the patches; only if it is wanted.
    pub(crate) attention: Option<Attention>,
}

/// The frozen backbone and what is read from it.
#[derive(Debug, Clone)]
pub(crate) struct Extractor {
    vit: Arc<Vit>,
    /// Blocks counted from 0, ascending, each once.
    layers: Vec<usize>,
    /// The block whose attention is read, if any is.
    attention_of: Option<usize>,
    /// Everything besides weights, precision and image that features depend on.
    preprocess: String,
    origin: String,
}

/// Where features of one image are kept.
struct Keys {
    features: FeatureKey,
    attention: Option<FeatureKey>,
}

impl Extractor {
    /// What `config` asks of `vit` for images prepared so.
    pub(crate) fn new(config: &Config, vit: Arc<Vit>, preprocess: &Preprocess) -> Result<Self, Error> {
        let wrong =
            |field: &str, problem: String| Error::Config(ConfigError::field(Config::METHOD, field, problem));
        let depth = vit.depth();
        if let Some(layer) = config.layers.iter().find(|layer| **layer > depth) {
            return Err(wrong("layers", format!("expected blocks 1 to {depth}, found {layer}")));
        }
        let written = if config.layers.is_empty() { vec![depth] } else { config.layers.clone() };
        let layers: BTreeSet<usize> = written.iter().map(|layer| layer - 1).collect();
        let attention_of =
            if config.fake_features.needs_attention() { written.last().map(|l| l - 1) } else { None };
        if attention_of.is_some() && !vit.config().class_token {
            let name = &vit.identity().name;
            let expected = "expected one that looks at no attention (`base`, `random`, `randshuffle`, `randshuffle_and_random`)";
            return Err(wrong(
                "fake_features",
                format!("{expected}, found a backbone without class token, `{name}`"),
            ));
        }
        let (height, width) = (config.image_size, config.image_size);
        let (rows, columns) = vit.grid(height, width);
        if rows * columns == 0 {
            let (ph, pw) = vit.patch();
            return Err(wrong(
                "image_size",
                format!("expected at least one patch of {ph} x {pw}, found {height}"),
            ));
        }
        // Fails here rather than in the first batch if the position table can't be brought to this grid.
        vit.position_table(height, width)?;
        let device = if vit.device().is_cpu() { "host" } else { "GPU" };
        let origin = format!(
            "{}; vit-backbone {}, image-prep {}, on the {device}",
            serde_json::to_string(vit.config())?,
            vit_backbone::REVISION,
            image_prep::REVISION,
        );
        let preprocess = serde_json::to_string(preprocess)?;
        Ok(Self { layers: layers.into_iter().collect(), attention_of, preprocess, origin, vit })
    }

    pub(crate) fn vit(&self) -> &Arc<Vit> {
        &self.vit
    }

    /// Width D of the features.
    pub(crate) fn width(&self) -> usize {
        self.layers.len() * self.vit.dim()
    }

    /// Rows and columns of patches.
    pub(crate) fn grid(&self, config: &Config) -> (usize, usize) {
        self.vit.grid(config.image_size, config.image_size)
    }

    /// Numbers that an image's features hold.
    pub(crate) fn numbers_an_image(&self, config: &Config) -> usize {
        let (rows, columns) = self.grid(config);
        let heads = if self.attention_of.is_some() { self.vit.config().heads } else { 0 };
        rows * columns * (self.width() + heads)
    }

    /// Features `(B, N, D)` and, if it is wanted, attention `(B, H, N)` of images `(B, 3, H, W)`.
    pub(crate) fn compute(&self, pixels: &Tensor) -> Result<(Tensor, Option<Tensor>), Error> {
        let wanted =
            Outputs { class_attention_of: self.attention_of, ..Outputs::normed_blocks(self.layers.clone()) };
        let found = self.vit.forward(&pixels.to_device(self.vit.device())?, &wanted)?;
        let features = side_by_side(&found.normed_blocks, found.prefix_tokens)?;
        let attention = found.class_attention.map(|all| of_patches(&all, found.prefix_tokens)).transpose()?;
        Ok((features, attention))
    }

    /// The same as [`PatchFeatures`].
    pub(crate) fn features(&self, pixels: &Tensor) -> Result<PatchFeatures, Error> {
        let (features, attention) = self.compute(pixels)?;
        let attention = attention.map(|attention| Attention::new(&attention)).transpose()?;
        Ok(PatchFeatures { features, attention })
    }

    fn keys(&self, image: ContentKey) -> Keys {
        let source = |what: String| FeatureSource {
            weights: self.vit.identity().sha256.clone(),
            output: format!("{what}; {}", self.origin),
            preprocess: self.preprocess.clone(),
            precision: match self.vit.precision() {
                vit_backbone::Precision::F32 => Precision::F32,
                vit_backbone::Precision::Bf16x3 => Precision::Bf16x3,
                vit_backbone::Precision::Bf16 => Precision::Bf16,
            },
        };
        let key = |what: String| source(what).key(image);
        Keys {
            features: key(format!("patches of normed blocks {:?}", self.layers)),
            attention: self.attention_of.map(|block| key(format!("class attention of block {block}"))),
        }
    }

    /// Whether all features of `image` are kept in `store`.
    pub(crate) fn is_kept(&self, store: &dyn FeatureStore, image: ContentKey) -> Result<bool, MethodError> {
        let Keys { features, attention } = self.keys(image);
        let attention = attention.map_or(Ok(true), |key| Ok::<_, MethodError>(store.get(&key)?.is_some()))?;
        Ok(attention && store.get(&features)?.is_some())
    }

    /// Features of `images`, from `store` as far as it has them. `load` is given the places in `images` of those that are
    /// missing, and gives their pixels; their features are kept from then on, if there is room.
    pub(crate) fn features_once(
        &self,
        store: &dyn FeatureStore,
        images: &[ContentKey],
        load: &mut dyn FnMut(&[usize]) -> Result<Tensor, MethodError>,
    ) -> Result<PatchFeatures, MethodError> {
        let keys: Vec<Keys> = images.iter().map(|image| self.keys(*image)).collect();
        let mut rows: Vec<Option<(Tensor, Option<Tensor>)>> = Vec::with_capacity(keys.len());
        for Keys { features, attention } in &keys {
            let kept = match (store.get(features)?, attention) {
                (Some(features), None) => Some((features, None)),
                (Some(features), Some(key)) => store.get(key)?.map(|attention| (features, Some(attention))),
                (None, _) => None,
            };
            rows.push(kept);
        }
        let missing: Vec<usize> = (0..keys.len()).filter(|at| rows[*at].is_none()).collect();
        if !missing.is_empty() {
            let (features, attention) = self.compute(&load(&missing)?)?;
            let row = |all: &Tensor, at: usize| all.get(at).map_err(Error::from);
            for (from, at) in missing.into_iter().enumerate() {
                let features = store.keep(&keys[at].features, &row(&features, from)?)?;
                let attention = match (&attention, &keys[at].attention) {
                    (Some(all), Some(key)) => Some(store.keep(key, &row(all, from)?)?),
                    _ => None,
                };
                rows[at] = Some((features, attention));
            }
        }
        let (features, attention): (Vec<Tensor>, Vec<Option<Tensor>>) = rows.into_iter().flatten().unzip();
        let attention: Option<Vec<Tensor>> = attention.into_iter().collect();
        Ok(self.stacked(&features, attention.filter(|_| self.attention_of.is_some()).as_deref())?)
    }

    fn stacked(&self, features: &[Tensor], attention: Option<&[Tensor]>) -> Result<PatchFeatures, Error> {
        let device = self.vit.device();
        let attention = attention.map(|rows| Attention::new(&Tensor::stack(rows, 0)?)).transpose()?;
        Ok(PatchFeatures { features: Tensor::stack(features, 0)?.to_device(device)?, attention })
    }
}

/// The patches of normed tokens `(B, prefix + N, C)`, channels side by side: `(B, N, layers * C)`.
pub(crate) fn side_by_side(normed: &[Tensor], prefix: usize) -> Result<Tensor, Error> {
    let patches = normed
        .iter()
        .map(|tokens| tokens.narrow(1, prefix, tokens.dim(1)?.saturating_sub(prefix)))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Tensor::cat(&patches, 2)?.contiguous()?)
}

/// Attention `(B, H, prefix + N)` to the patches alone, not brought back to a sum of 1: `(B, H, N)`.
pub(crate) fn of_patches(attention: &Tensor, prefix: usize) -> Result<Tensor, Error> {
    Ok(attention.narrow(2, prefix, attention.dim(2)?.saturating_sub(prefix))?.contiguous()?)
}
