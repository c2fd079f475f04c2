//! A case's configuration, as the table beside the cases lists it.

use conformance::{Case, UnitError};
use datasets::Selected;
use image_prep::Preprocess;
use serde::Deserialize;
use vit_backbone::{Family, VitConfig};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CaseConfig {
    image_size: Option<[usize; 2]>,
    patch_size: Option<[usize; 2]>,
    size: Option<[usize; 2]>,
    dim: Option<usize>,
    ff_dim: Option<usize>,
    num_layers: Option<usize>,
    num_heads: Option<usize>,
    in_channels: Option<usize>,
    num_classes: Option<usize>,
    layer_norm_eps: Option<f64>,
    #[serde(rename = "gelu")]
    _gelu: Option<OnlyErf>,
    dropout: Option<f64>,
    #[serde(rename = "mode")]
    _mode: Option<OnlyTrain>,
    #[serde(rename = "optimizer")]
    _optimizer: Option<OnlyAdam>,
    lr: Option<f64>,
    eps: Option<f64>,
    weight_decay: Option<f64>,
    betas: Option<[f64; 2]>,
    steps: Option<usize>,
    protocol: Option<Protocol>,
    class: Option<usize>,
    epochs: Option<usize>,
    eval_every: Option<usize>,
    min_delta: Option<f64>,
    threshold: Option<f64>,
    reg_covar: Option<f64>,
    n_train: Option<usize>,
    #[serde(rename = "sign_convention")]
    _sign_convention: Option<OnlyLargestPositive>,
    use_layers: Option<Vec<usize>>,
    k: Option<usize>,
    #[serde(rename = "metric")]
    _metric: Option<OnlySumSquared>,
    old_grid: Option<usize>,
    new_grid: Option<usize>,
    mean: Option<PerChannel>,
    std: Option<PerChannel>,
    #[serde(rename = "interpolation")]
    _interpolation: Option<OnlyBilinear>,
    dataset: Option<Dataset>,
    #[serde(rename = "grey_to_rgb")]
    _grey_to_rgb: Option<OnlyReplicate>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum OnlyErf {
    #[serde(rename = "erf")]
    Erf,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum OnlyTrain {
    #[serde(rename = "train")]
    Train,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum OnlyAdam {
    #[serde(rename = "adam")]
    Adam,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum OnlyLargestPositive {
    #[serde(rename = "largest_entry_positive")]
    LargestEntryPositive,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum OnlySumSquared {
    #[serde(rename = "sum_squared_l2")]
    SumSquaredL2,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum OnlyBilinear {
    #[serde(rename = "bilinear_u8_horizontal_first")]
    BilinearU8HorizontalFirst,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum OnlyReplicate {
    #[serde(rename = "replicate")]
    Replicate,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Protocol {
    Unimodal,
    Multimodal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Dataset {
    Fmnist,
    Cifar10,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum PerChannel {
    One(f32),
    Each([f32; 3]),
}

impl PerChannel {
    fn each(&self) -> [f32; 3] {
        match self {
            Self::One(value) => [*value; 3],
            Self::Each(values) => *values,
        }
    }
}

/// A getter for each key a unit can't do without.
macro_rules! needed {
    ($($key:ident: $kind:ty),* $(,)?) => {
        impl CaseConfig {
            $(pub(super) fn $key(&self) -> Result<$kind, UnitError> {
                self.$key.clone().ok_or_else(|| concat!(stringify!($key), ": missing").into())
            })*
        }
    };
}

needed! {
    size: [usize; 2],
    dim: usize,
    lr: f64,
    eps: f64,
    betas: [f64; 2],
    steps: usize,
    epochs: usize,
    eval_every: usize,
    min_delta: f64,
    threshold: f64,
    reg_covar: f64,
    use_layers: Vec<usize>,
    k: usize,
    old_grid: usize,
    new_grid: usize,
    dataset: Dataset,
    image_size: [usize; 2],
}

impl CaseConfig {
    pub(super) fn of(case: &Case) -> Result<Self, UnitError> {
        Ok(case.config()?)
    }

    pub(super) fn dropout(&self) -> f64 {
        self.dropout.unwrap_or(0.0)
    }

    pub(super) fn weight_decay(&self) -> f64 {
        self.weight_decay.unwrap_or(0.0)
    }

    /// Refuses a number of training rows other than the one stated, if one is.
    pub(super) fn check_rows(&self, found: usize) -> Result<(), UnitError> {
        match self.n_train {
            Some(stated) if stated != found => {
                Err(format!("n_train: is {stated}, but there are {found} training rows").into())
            }
            _ => Ok(()),
        }
    }

    /// What the protocol makes of the class numbers of both splits.
    pub(super) fn select(&self, train: &[usize], test: &[usize]) -> Result<Selected, UnitError> {
        let class = self.class.ok_or("class: missing")?;
        if let Some(classes) = self.num_classes
            && class >= classes
        {
            return Err(format!("class: expected below {classes}, found {class}").into());
        }
        Ok(match self.protocol.ok_or("protocol: missing")? {
            Protocol::Unimodal => datasets::unimodal(train, test, class),
            Protocol::Multimodal => datasets::multimodal(train, test, class),
        })
    }

    /// How pixels become numbers, without a resize.
    pub(super) fn normalisation(&self) -> Result<Preprocess, UnitError> {
        let mean = self.mean.as_ref().ok_or("mean: missing")?.each();
        let std = self.std.as_ref().ok_or("std: missing")?.each();
        Ok(Preprocess { resize: image_prep::Resize::keep(), crop: None, mean, std })
    }

    /// The network; `with_head` tells whether its weights have a classification head.
    pub(super) fn vit(&self, with_head: bool) -> Result<VitConfig, UnitError> {
        let needed = |value: Option<usize>, key: &str| value.ok_or_else(|| format!("{key}: missing"));
        if let Some(channels) = self.in_channels
            && channels != 3
        {
            return Err(format!("in_channels: expected 3, found {channels}").into());
        }
        let dim = self.dim()?;
        let depth = needed(self.num_layers, "num_layers")?;
        let heads = needed(self.num_heads, "num_heads")?;
        let mut config = VitConfig::new(Family::PytorchPretrainedVit, (dim, depth, heads), 1, 1);
        let patch = self.patch_size.ok_or("patch_size: missing")?;
        let size = self.image_size()?;
        config.patch = (patch[0], patch[1]);
        config.trained_size = (size[0], size[1]);
        config.mlp_hidden = needed(self.ff_dim, "ff_dim")?;
        if let Some(eps) = self.layer_norm_eps {
            config.norm_eps = eps;
        }
        if with_head {
            config.classes = Some(needed(self.num_classes, "num_classes")?);
        }
        Ok(config)
    }
}
