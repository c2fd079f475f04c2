//! The discriminator: a transformer over patch features with one logit a patch.

use std::collections::BTreeMap;

use anomaly_core::Stream;
use candle_core::{Device, Tensor, Var};
use vit_ops::{AttentionOptions, Dropout, Gelu, Linear, attention, init, layer_norm};

use crate::Error;

/// Sizes of a discriminator.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sizes {
    /// Patches N of an image: each has a position of its own.
    pub(crate) patches: usize,
    /// Width D of their features.
    pub(crate) width: usize,
    pub(crate) blocks: usize,
    /// Divides `width`.
    pub(crate) heads: usize,
    pub(crate) hidden: usize,
    /// Added to the variance in the norms: 1e-5, other than in the backbone.
    pub(crate) norm_eps: f64,
}

const POSITIONS: &str = "positional_encodings";
const OUTPUT: &str = "output_layer.weight";

/// Parts of a block's parameters, by the end of their names in the reference's state dict.
const PARTS: [&str; 10] = [
    "layer_norm_1.weight",
    "layer_norm_1.bias",
    "attn.in_proj_weight",
    "attn.in_proj_bias",
    "attn.out_proj.weight",
    "attn.out_proj.bias",
    "linear.0.weight",
    "linear.0.bias",
    "linear.3.weight",
    "linear.3.bias",
];

fn name(block: usize, part: &str) -> String {
    format!("transformer_encoder.{block}.{part}")
}

impl Sizes {
    /// Names and shapes of all parameters.
    pub(crate) fn parameters(&self) -> Vec<(String, Vec<usize>)> {
        let &Self { patches, width, blocks, hidden, .. } = self;
        let shapes: [&[usize]; 10] = [
            &[width],
            &[width],
            &[3 * width, width],
            &[3 * width],
            &[width, width],
            &[width],
            &[hidden, width],
            &[hidden],
            &[width, hidden],
            &[width],
        ];
        let mut all = vec![(POSITIONS.to_owned(), vec![patches, width])];
        for block in 0..blocks {
            all.extend(PARTS.iter().zip(shapes).map(|(part, shape)| (name(block, part), shape.to_vec())));
        }
        all.push((OUTPUT.to_owned(), vec![1, width]));
        all
    }

    /// First values of a parameter, as PyTorch makes them.
    fn initial(
        &self,
        name: &str,
        shape: &[usize],
        stream: &mut Stream,
        device: &Device,
    ) -> Result<Tensor, Error> {
        let width = self.width;
        let constant = |value: f32| Ok(Tensor::full(value, shape, device)?);
        let Some((_, part)) = name.strip_prefix("transformer_encoder.").and_then(|rest| rest.split_once('.'))
        else {
            return Ok(if name == POSITIONS {
                init::normal(shape, 0.0, 1.0, stream, device)?
            } else {
                init::fan_in_uniform(shape, width, stream, device)?
            });
        };
        match part {
            "layer_norm_1.weight" => constant(1.0),
            "layer_norm_1.bias" | "attn.in_proj_bias" | "attn.out_proj.bias" => constant(0.0),
            "attn.in_proj_weight" => Ok(init::xavier_uniform(shape, (width, 3 * width), stream, device)?),
            "linear.3.weight" | "linear.3.bias" => {
                Ok(init::fan_in_uniform(shape, self.hidden, stream, device)?)
            }
            _ => Ok(init::fan_in_uniform(shape, width, stream, device)?),
        }
    }
}

/// A discriminator, ready to run. Of plain tensors it is frozen; of `Var`s it carries gradients to each.
#[derive(Debug)]
pub(crate) struct Discriminator {
    sizes: Sizes,
    positions: Tensor,
    blocks: Vec<Block>,
    output: Linear,
}

#[derive(Debug)]
struct Block {
    norm: (Tensor, Tensor),
    packed: Linear,
    projection: Linear,
    inner: Linear,
    outer: Linear,
}

/// Dropout of a training step: a rate, and where masks are drawn.
pub(crate) type Noise<'a> = (f64, &'a mut Stream);

impl Discriminator {
    /// Of the reference's names. What else there is in `tensors` is not looked at.
    ///
    /// # Errors
    /// If a parameter is missing or has another shape.
    pub(crate) fn new(sizes: Sizes, tensors: impl Fn(&str) -> Option<Tensor>) -> Result<Self, Error> {
        let take = |name: &str, shape: &[usize]| -> Result<Tensor, Error> {
            let found = tensors(name);
            match found {
                Some(tensor) if tensor.dims() == shape => Ok(tensor),
                other => Err(Error::Parameter {
                    name: name.to_owned(),
                    expected: shape.to_vec(),
                    found: other.map(|tensor| tensor.dims().to_vec()),
                }),
            }
        };
        let mut taken = BTreeMap::new();
        for (name, shape) in sizes.parameters() {
            let tensor = take(&name, &shape)?;
            taken.insert(name, tensor);
        }
        let mut part = |name: &str| {
            taken.remove(name).ok_or_else(|| Error::Parameter {
                name: name.to_owned(),
                expected: Vec::new(),
                found: None,
            })
        };
        let mut blocks = Vec::with_capacity(sizes.blocks);
        for index in 0..sizes.blocks {
            let mut of = |end: &str| part(&name(index, end));
            blocks.push(Block {
                norm: (of("layer_norm_1.weight")?, of("layer_norm_1.bias")?),
                packed: Linear::new(of("attn.in_proj_weight")?, Some(of("attn.in_proj_bias")?))?,
                projection: Linear::new(of("attn.out_proj.weight")?, Some(of("attn.out_proj.bias")?))?,
                inner: Linear::new(of("linear.0.weight")?, Some(of("linear.0.bias")?))?,
                outer: Linear::new(of("linear.3.weight")?, Some(of("linear.3.bias")?))?,
            });
        }
        Ok(Self { sizes, positions: part(POSITIONS)?, blocks, output: Linear::new(part(OUTPUT)?, None)? })
    }

    /// Logits `(B, N)` of features `(B, N, D)`; with dropout in training only.
    ///
    /// # Errors
    /// If the features have another number of patches or another width.
    pub(crate) fn logits(&self, features: &Tensor, mut noise: Option<Noise<'_>>) -> Result<Tensor, Error> {
        let &Sizes { patches, width, heads, norm_eps, .. } = &self.sizes;
        if !features.dims3().is_ok_and(|(_, n, d)| (n, d) == (patches, width)) {
            return Err(Error::Features { expected: (patches, width), found: features.dims().to_vec() });
        }
        let mut x = features.broadcast_add(&self.positions)?;
        for block in &self.blocks {
            let mut options = AttentionOptions::new(heads);
            if let Some((rate, stream)) = &mut noise {
                options.dropout = Some(Dropout::drawn(*rate, stream));
            }
            let context = attention(&block.packed.forward(&x)?, &mut options)?.context;
            // No norm before the attention; the one after it is the block's only one.
            let attended = dropped(block.projection.forward(&context)?, &mut noise)?;
            x = layer_norm(&(x + attended)?, &block.norm.0, &block.norm.1, norm_eps)?;
            let hidden = dropped(block.inner.forward_gelu(&x, Gelu::Erf)?, &mut noise)?;
            x = (x + dropped(block.outer.forward(&hidden)?, &mut noise)?)?;
        }
        Ok(self.output.forward(&x)?.squeeze(2)?)
    }
}

fn dropped(x: Tensor, noise: &mut Option<Noise<'_>>) -> Result<Tensor, Error> {
    match noise {
        Some((rate, stream)) => Ok(Dropout::drawn(*rate, stream).apply(&x)?),
        None => Ok(x),
    }
}

/// A discriminator in training.
#[derive(Debug)]
pub(crate) struct Trained {
    sizes: Sizes,
    vars: Vec<(String, Var)>,
}

impl Trained {
    /// Fresh weights, drawn from `stream` parameter by parameter.
    pub(crate) fn new(sizes: Sizes, stream: &mut Stream, device: &Device) -> Result<Self, Error> {
        let vars = sizes
            .parameters()
            .into_iter()
            .map(|(name, shape)| {
                let first = sizes.initial(&name, &shape, stream, device)?;
                Ok((name, Var::from_tensor(&first)?))
            })
            .collect::<Result<_, Error>>()?;
        Ok(Self { sizes, vars })
    }

    /// Parameters by the reference's names.
    pub(crate) fn vars(&self) -> &[(String, Var)] {
        &self.vars
    }

    /// The network over the parameters as they are now, with a graph to each.
    pub(crate) fn network(&self) -> Result<Discriminator, Error> {
        let find = |name: &str| {
            self.vars.iter().find(|(own, _)| own == name).map(|(_, var)| var.as_tensor().clone())
        };
        Discriminator::new(self.sizes, find)
    }

    /// A frozen network with copies of the parameters.
    pub(crate) fn frozen(&self) -> Result<Discriminator, Error> {
        let copies: BTreeMap<String, Tensor> = self.named_tensors()?.into_iter().collect();
        Discriminator::new(self.sizes, |name| copies.get(name).cloned())
    }

    /// Copies of the parameters.
    pub(crate) fn named_tensors(&self) -> Result<Vec<(String, Tensor)>, Error> {
        self.vars.iter().map(|(name, var)| Ok((name.clone(), var.as_detached_tensor().copy()?))).collect()
    }

    /// Sets the parameters.
    ///
    /// # Errors
    /// If one is missing or has another shape.
    pub(crate) fn load(&self, tensors: impl Fn(&str) -> Option<Tensor>) -> Result<(), Error> {
        let sizes = self.sizes;
        // Looks at all of them before one is changed.
        Discriminator::new(sizes, &tensors)?;
        for (name, var) in &self.vars {
            if let Some(tensor) = tensors(name) {
                var.set(&tensor.detach().to_device(var.device())?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use anomaly_core::Streams;
    use candle_core::{Device, Tensor};
    use vit_ops::init;

    use super::{Discriminator, Sizes, Trained};
    use crate::Error;

    const SIZES: Sizes = Sizes { patches: 9, width: 8, blocks: 2, heads: 2, hidden: 12, norm_eps: 1e-5 };

    fn features(seed: u64) -> Tensor {
        init::normal((3, 9, 8), 0.0, 1.0, &mut Streams::new(seed).stream("x"), &Device::Cpu).unwrap()
    }

    fn trained() -> Trained {
        Trained::new(SIZES, &mut Streams::new(0).stream("init"), &Device::Cpu).unwrap()
    }

    #[test]
    fn first_values_are_pytorch_s() {
        let trained = trained();
        let values = |name: &str| {
            let (_, var) = trained.vars().iter().find(|(own, _)| own == name).unwrap();
            var.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let largest = |name: &str| values(name).into_iter().fold(0.0_f32, |a, b| a.max(b.abs()));
        assert!(largest("positional_encodings") > 1.5);
        assert!(values("transformer_encoder.1.layer_norm_1.weight").iter().all(|v| *v == 1.0));
        for zero in ["layer_norm_1.bias", "attn.in_proj_bias", "attn.out_proj.bias"] {
            assert_eq!(largest(&format!("transformer_encoder.0.{zero}")), 0.0);
        }
        for (name, bound) in [
            ("transformer_encoder.0.attn.in_proj_weight", (6.0_f32 / 32.0).sqrt()),
            ("transformer_encoder.0.attn.out_proj.weight", 8_f32.sqrt().recip()),
            ("transformer_encoder.0.linear.0.weight", 8_f32.sqrt().recip()),
            ("transformer_encoder.0.linear.0.bias", 8_f32.sqrt().recip()),
            ("transformer_encoder.0.linear.3.weight", 12_f32.sqrt().recip()),
            ("transformer_encoder.0.linear.3.bias", 12_f32.sqrt().recip()),
            ("output_layer.weight", 8_f32.sqrt().recip()),
        ] {
            let found = largest(name);
            assert!(found <= bound && found > 0.6 * bound, "{name}: {found} {bound}");
        }
        assert_eq!(trained.vars().len(), 2 + 2 * 10);
    }

    #[test]
    fn every_parameter_gets_a_gradient_and_the_frozen_network_says_the_same() {
        let trained = trained();
        let network = trained.network().unwrap();
        let logits = network.logits(&features(1), None).unwrap();
        assert_eq!(logits.dims(), [3, 9]);
        let gradients = logits.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        for (name, var) in trained.vars() {
            assert!(gradients.get(var).is_some(), "{name}");
        }
        let frozen = trained.frozen().unwrap().logits(&features(1), None).unwrap();
        let difference = (logits.detach() - &frozen).unwrap().abs().unwrap().flatten_all().unwrap();
        assert!(difference.max(0).unwrap().to_scalar::<f32>().unwrap() < 1e-5);
        assert!(!frozen.track_op());
    }

    #[test]
    fn dropout_changes_training_and_a_rate_of_zero_nothing() {
        let network = trained().network().unwrap();
        let logits = |rate: Option<f64>| {
            let mut stream = Streams::new(3).stream("dropout");
            let noise = rate.map(|rate| (rate, &mut stream));
            network.logits(&features(1), noise).unwrap().to_vec2::<f32>().unwrap()
        };
        assert_eq!(logits(None), logits(Some(0.0)));
        assert_ne!(logits(None), logits(Some(0.3)));
        assert_eq!(logits(Some(0.3)), logits(Some(0.3)));
    }

    #[test]
    fn patches_see_each_other_and_their_place() {
        let frozen = trained().frozen().unwrap();
        let x = features(2);
        let logits = |x: &Tensor| frozen.logits(x, None).unwrap().to_vec2::<f32>().unwrap();
        let moved = Tensor::cat(&[x.narrow(1, 1, 8).unwrap(), x.narrow(1, 0, 1).unwrap()], 1).unwrap();
        let (here, there) = (logits(&x), logits(&moved));
        assert!((here[0][1] - there[0][0]).abs() > 1e-4);
    }

    #[test]
    fn missing_parameters_and_other_features_are_named() {
        let missing = Discriminator::new(SIZES, |_| None).unwrap_err();
        assert!(matches!(&missing, Error::Parameter { found: None, .. }), "{missing}");
        let refused = trained().frozen().unwrap().logits(&features(0).narrow(1, 0, 4).unwrap(), None);
        let message = refused.unwrap_err().to_string();
        assert!(message.contains("(B, 9, 8)") && message.contains("[3, 4, 8]"), "{message}");
        let trained = trained();
        assert!(trained.load(|_| None).is_err());
    }
}
