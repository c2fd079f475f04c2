//! A case's configuration, as the table beside the cases lists it.

use std::collections::BTreeMap;

use conformance::{Case, UnitError};
use serde::Deserialize;
use vit_ops::SsimOptions;

use crate::architecture::{Architecture, Norms, RegisterKind, Tap};
use crate::config::VarianceGradient;
use crate::optimizer::OptimizerKind;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CaseConfig {
    module: Option<Module>,
    img_height: Option<usize>,
    img_width: Option<usize>,
    channels: Option<usize>,
    patch_size: Option<usize>,
    embed_dim: Option<usize>,
    num_heads: Option<usize>,
    key_dim: Option<usize>,
    hidden_units: Option<Vec<usize>>,
    grid: Option<[usize; 2]>,
    #[serde(rename = "activation")]
    _activation: Option<OnlyErf>,
    block_norm_eps: Option<f64>,
    latent_norm_eps: Option<f64>,
    bn_eps: Option<f64>,
    bn_momentum: Option<f64>,
    dropout: Option<f64>,
    num_register: Option<usize>,
    #[serde(rename = "register_position")]
    _register_position: Option<OnlyEnd>,
    register_kind: Option<CaseRegisters>,
    decoder_filters: Option<Vec<usize>>,
    decoder_kernel: Option<usize>,
    decoder_stride: Option<usize>,
    stages: Option<usize>,
    #[serde(rename = "bn_mode")]
    _bn_mode: Option<OnlyTrain>,
    variance_gradient: Option<VarianceGradient>,
    lambda_mse: Option<f64>,
    lambda_ssim: Option<f64>,
    lambda_gmdn_vtadl: Option<f64>,
    lambda_gmdn_mixture: Option<f64>,
    k1: Option<f64>,
    k2: Option<f64>,
    sigma: Option<f64>,
    filter_size: Option<usize>,
    max_val: Option<f64>,
    data_range: Option<f64>,
    #[serde(rename = "border")]
    _border: Option<OnlySymmetric>,
    #[serde(rename = "map_border")]
    _map_border: Option<OnlySymmetric>,
    optimizer: Option<CaseOptimizer>,
    optimizer_config: Option<OptimizerConfig>,
    optimizers: Option<BTreeMap<OptimizerKindKey, OptimizerConfig>>,
    default_schedule: Option<ScheduleConfig>,
    learning_rate: Option<f64>,
    warmup_learning_rate: Option<f64>,
    warmup_steps: Option<u64>,
    steps: Option<usize>,
    threshold_l1: Option<f64>,
    threshold_ssim: Option<f64>,
    gaussians: Option<usize>,
    tap: Option<Tap>,
    // The noise is given, already scaled.
    #[serde(rename = "noise_std")]
    _noise_std: Option<f64>,
    clamp_min: Option<f64>,
    mixture_var_floor: Option<f64>,
    #[serde(rename = "map_upsample")]
    _map_upsample: Option<OnlyAligned>,
    map_gaussian_sigma: Option<f64>,
    map_gaussian_truncate: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Module {
    PatchEmbedding,
    Encoder,
    Decoder,
    Autoencoder,
    Gmdn,
    Optimizers,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OnlyErf {
    GeluErf,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OnlyEnd {
    End,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OnlyTrain {
    Train,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OnlySymmetric {
    Symmetric,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OnlyAligned {
    BilinearAlignCorners,
}

/// Where a case has its registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CaseRegisters {
    None,
    Input,
    Learned,
}

/// The optimisers of training steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum CaseOptimizer {
    Adam,
    AdamW,
}

/// The six optimisers as keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum OptimizerKindKey {
    Adam,
    AdamW,
    Sgd,
    RmsProp,
    Adagrad,
    Adadelta,
}

impl OptimizerKindKey {
    pub(super) fn kind(self) -> (&'static str, OptimizerKind) {
        match self {
            Self::Adam => ("adam", OptimizerKind::Adam),
            Self::AdamW => ("adamw", OptimizerKind::AdamW),
            Self::Sgd => ("sgd", OptimizerKind::Sgd),
            Self::RmsProp => ("rmsprop", OptimizerKind::RmsProp),
            Self::Adagrad => ("adagrad", OptimizerKind::Adagrad),
            Self::Adadelta => ("adadelta", OptimizerKind::Adadelta),
        }
    }
}

/// An optimiser's settings.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OptimizerConfig {
    pub(super) beta1: Option<f64>,
    pub(super) beta2: Option<f64>,
    pub(super) eps: Option<f64>,
    pub(super) rho: Option<f64>,
    pub(super) momentum: Option<f64>,
    pub(super) weight_decay: Option<f64>,
    pub(super) initial_accumulator: Option<f64>,
    pub(super) centered: Option<bool>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ScheduleConfig {
    pub(super) learning_rate: f64,
    pub(super) warmup_learning_rate: f64,
    pub(super) warmup_steps: u64,
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
    patch_size: usize,
    embed_dim: usize,
    learning_rate: f64,
    warmup_learning_rate: f64,
    warmup_steps: u64,
    steps: usize,
    threshold_l1: f64,
    threshold_ssim: f64,
    gaussians: usize,
    mixture_var_floor: f64,
    clamp_min: f64,
    map_gaussian_sigma: f64,
    map_gaussian_truncate: f64,
    lambda_gmdn_vtadl: f64,
    lambda_gmdn_mixture: f64,
    optimizer: CaseOptimizer,
    optimizer_config: OptimizerConfig,
    optimizers: BTreeMap<OptimizerKindKey, OptimizerConfig>,
    default_schedule: ScheduleConfig,
}

impl CaseConfig {
    pub(super) fn of(case: &Case) -> Result<Self, UnitError> {
        let config: Self = case.config()?;
        let module = match case.unit.as_str() {
            "patch_embedding" => Some(Module::PatchEmbedding),
            "encoder" => Some(Module::Encoder),
            "decoder" => Some(Module::Decoder),
            "autoencoder" | "gradients" | "train_step" => Some(Module::Autoencoder),
            "gmdn" => Some(Module::Gmdn),
            "optimizers" => Some(Module::Optimizers),
            _ => None,
        };
        if config.module.is_some() && config.module != module {
            return Err(format!("module: {:?} is none of unit {}", config.module, case.unit).into());
        }
        if config.channels.unwrap_or(3) != 3 {
            return Err(format!("channels: expected 3, found {:?}", config.channels).into());
        }
        if config.dropout.unwrap_or(0.0) != 0.0 {
            return Err(format!("dropout: expected 0, found {:?}", config.dropout).into());
        }
        config.check_registers(case)?;
        Ok(config)
    }

    /// Registers must be where the configuration says, and as many.
    fn check_registers(&self, case: &Case) -> Result<(), UnitError> {
        let given = ["in.registers", "in.registers_0"].into_iter().find(|name| case.has(name));
        let found = match (given, case.has("w.registers")) {
            (Some(_), _) => CaseRegisters::Input,
            (None, true) => CaseRegisters::Learned,
            (None, false) => CaseRegisters::None,
        };
        if let Some(kind) = self.register_kind
            && kind != found
        {
            return Err(format!("register_kind: is {kind:?}, but the tensors say {found:?}").into());
        }
        let count = match (given, found) {
            (Some(name), _) => case.input(name)?.shape.get(1).copied(),
            (None, CaseRegisters::Learned) => case.input("w.registers")?.shape.get(1).copied(),
            _ => Some(0),
        };
        match (self.num_register, count) {
            (Some(stated), count) if Some(stated) != count => {
                Err(format!("num_register: is {stated}, but the tensors have {count:?}").into())
            }
            _ => Ok(()),
        }
    }

    /// Factors of squared error and dissimilarity; the reference's where a case states none.
    pub(super) fn lambdas(&self) -> (f64, f64) {
        (self.lambda_mse.unwrap_or(5.0), self.lambda_ssim.unwrap_or(0.5))
    }

    /// The window of SSIM. The constants are those of its authors: no other ones occur.
    pub(super) fn window(&self) -> Result<SsimOptions, UnitError> {
        let size = self.filter_size.unwrap_or(11);
        if size.is_multiple_of(2) {
            return Err(format!("filter_size: expected an odd number, found {size}").into());
        }
        if self.k1.unwrap_or(0.01) != 0.01 || self.k2.unwrap_or(0.03) != 0.03 {
            return Err(format!("k1, k2: expected 0.01, 0.03, found {:?}, {:?}", self.k1, self.k2).into());
        }
        Ok(SsimOptions {
            radius: size / 2,
            sigma: self.sigma.unwrap_or(1.5),
            range: self.max_val.or(self.data_range).unwrap_or(1.0),
            ..SsimOptions::default()
        })
    }

    pub(super) fn grid(&self) -> Result<(usize, usize), UnitError> {
        if let Some([rows, columns]) = self.grid {
            return Ok((rows, columns));
        }
        let (height, width) = (self.img_height, self.img_width);
        let (Some(height), Some(width)) = (height, width) else {
            return Err("img_height, img_width: missing".into());
        };
        match self.patch_size()? {
            patch if patch > 0 && height % patch == 0 && width % patch == 0 => {
                Ok((height / patch, width / patch))
            }
            patch => Err(format!("patch_size: {height} x {width} is no multiple of {patch}").into()),
        }
    }

    /// The part of the network that the case has; what it doesn't has no size.
    pub(super) fn architecture(&self) -> Result<Architecture, UnitError> {
        let filters = self.decoder_filters.clone().unwrap_or_default();
        if self.stages.is_some_and(|stages| stages != filters.len()) {
            return Err(
                format!("stages: is {:?}, but there are {} filters", self.stages, filters.len()).into()
            );
        }
        let dim = self.embed_dim()?;
        let default = Norms::default();
        Ok(Architecture {
            grid: self.grid()?,
            patch: self.patch_size.unwrap_or(1),
            dim,
            heads: self.num_heads.unwrap_or(1),
            key_dim: self.key_dim.unwrap_or(dim),
            hidden: self.hidden_units.clone().unwrap_or_default(),
            registers: self.num_register.unwrap_or(0),
            register_kind: RegisterKind::Learned,
            filters,
            kernel: self.decoder_kernel.unwrap_or(2),
            stride: self.decoder_stride.unwrap_or(2),
            norms: Norms {
                block_eps: self.block_norm_eps.unwrap_or(default.block_eps),
                latent_eps: self.latent_norm_eps.unwrap_or(default.latent_eps),
                batch_eps: self.bn_eps.unwrap_or(default.batch_eps),
                batch_kept: self.bn_momentum.unwrap_or(default.batch_kept),
                gradient: self.variance_gradient.unwrap_or_default().into(),
            },
            gaussians: self.gaussians.unwrap_or(0),
            tap: self.tap.unwrap_or_default(),
        })
    }
}
