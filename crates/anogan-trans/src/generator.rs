//! The generator: a U-Net of attention blocks whose skips pass through attention blocks too.

mod blocks;
mod fusion;
mod scales;
mod swin;

use std::collections::HashMap;

use candle_core::{Device, Tensor, Var};

use crate::Error;
use crate::parameters::Parameters;
use crate::sizes::{DEPTH, HEADS, WINDOW};
use fusion::Fusion;

pub use blocks::AttentionKind;
#[cfg(feature = "conformance")]
pub(crate) use blocks::GlobalLayer;
pub(crate) use blocks::{AttentionBlock, AttentionStyle};
pub use scales::HeadLayout;
pub(crate) use scales::{DecoderStage, Embedding, EncoderStage, Head};
#[cfg(feature = "conformance")]
pub(crate) use scales::{Expand, Merge};
#[cfg(feature = "conformance")]
pub(crate) use swin::{SwinBlock, WindowAttention, window_on};

/// Sizes and kinds of a generator.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GeneratorConfig {
    /// Side of the images in pixels.
    pub(crate) size: usize,
    /// Channels of the images.
    pub(crate) channels: usize,
    /// Channels of what it paints.
    pub(crate) outputs: usize,
    pub(crate) patch: usize,
    pub(crate) dim: usize,
    pub(crate) attention: AttentionKind,
    pub(crate) heads: usize,
    pub(crate) window: usize,
    pub(crate) fusion: bool,
    pub(crate) layout: HeadLayout,
}

impl GeneratorConfig {
    pub(crate) fn of(config: &crate::Config) -> Self {
        Self {
            size: config.image_size,
            channels: 3,
            outputs: 3,
            patch: config.patch_size,
            dim: config.dim,
            attention: config.attention,
            heads: HEADS,
            window: WINDOW,
            fusion: config.skip_fusion,
            layout: config.head,
        }
    }
}

/// The generator. Its tensors have graphs, if it is trained.
#[derive(Debug, Clone)]
pub(crate) struct Generator {
    embedding: Embedding,
    /// Of levels 0 and 1; that of level 2 is the identity.
    skips: [AttentionBlock; 2],
    fusions: Option<[Fusion; 2]>,
    encoder: [EncoderStage; DEPTH],
    bottom: EncoderStage,
    bottom_up: scales::Expand,
    decoder: [DecoderStage; DEPTH],
    head: Head,
    /// What the reference's state holds and never uses.
    dead: Vec<(String, Tensor)>,
}

/// Embeddings of smaller images, and norms beside all three: made by the reference, and left aside in its forward pass.
fn is_dead(name: &str) -> bool {
    ["inc.bn.", "inc2.", "inc4."].iter().any(|prefix| name.starts_with(prefix))
}

impl Generator {
    /// With weights of `parameters`, under the reference's names.
    pub(crate) fn new(parameters: &mut Parameters<'_>, config: &GeneratorConfig) -> Result<Self, Error> {
        let GeneratorConfig { size, channels, patch, dim, attention, heads, window, .. } = *config;
        if patch == 0 {
            let expected = "an even number from 2 on".to_owned();
            return Err(Error::Size { what: "patch size", expected, found: patch.to_string() });
        }
        let style = AttentionStyle { kind: attention, heads, window };
        let side = |level: usize| (size / patch) >> level;
        let grid = |level: usize| (side(level), side(level));
        let width = |level: usize| dim << level;
        if size == 0 || side(0) == 0 || !side(0).is_multiple_of(1 << DEPTH) {
            let expected = format!("a multiple of {} patches of {patch} pixels", 1 << DEPTH);
            return Err(Error::Size { what: "image size", expected, found: size.to_string() });
        }
        let p = parameters;
        let embedding = Embedding::new(p, "inc", (size, patch), (channels, dim))?;
        let mut skip = |level: usize| {
            AttentionBlock::new(p, &format!("skip.{level}.0"), width(level), grid(level), style)
        };
        let skips = [skip(0)?, skip(1)?];
        let fusions = if config.fusion {
            let mut fusion = |level: usize| Fusion::new(p, &format!("skip.{level}.fusion"), level, dim);
            Some([fusion(0)?, fusion(1)?])
        } else {
            None
        };
        let mut down = |level: usize| {
            EncoderStage::new(p, &format!("down.{level}"), width(level), grid(level), style, false)
        };
        let encoder = [down(0)?, down(1)?, down(2)?];
        let bottom = EncoderStage::new(p, "bottom.0", width(DEPTH), grid(DEPTH), style, true)?;
        let bottom_up = scales::Expand::new(p, "bottom.1", width(DEPTH), grid(DEPTH))?;
        let mut up = |stage: usize| {
            let level = DEPTH - 1 - stage;
            DecoderStage::new(p, &format!("up.{stage}"), width(level), grid(level), style)
        };
        let decoder = [up(0)?, up(1)?, up(2)?];
        let painted = (channels, config.outputs);
        let head = Head::new(p, "", dim / 2, (size, patch), painted, config.layout)?;
        let dead = p.others(is_dead);
        Ok(Self { embedding, skips, fusions, encoder, bottom, bottom_up, decoder, head, dead })
    }

    /// With given weights that stay.
    pub(crate) fn frozen(
        tensors: &HashMap<String, Tensor>,
        config: &GeneratorConfig,
        device: &Device,
    ) -> Result<Self, Error> {
        Self::new(&mut Parameters::frozen(tensors, device), config)
    }

    /// Images `(B, nc, S, S)` to their reconstructions with the channels last, `(B, S, S, nc)`; no bound is put on them.
    pub(crate) fn forward(&self, images: &Tensor) -> Result<Tensor, Error> {
        self.forward_seen(images, &mut |_, _| ())
    }

    /// The same; `look` sees what is on the way by its name: `embed`, `skip.N`, `down.N`, `bottom`, `up.N`, `expand`.
    pub(crate) fn forward_seen(
        &self,
        images: &Tensor,
        look: &mut dyn FnMut(&str, &Tensor),
    ) -> Result<Tensor, Error> {
        let mut levels = vec![self.embedding.forward(images)?];
        look("embed", &levels[0]);
        for (level, stage) in self.encoder.iter().enumerate() {
            let merged = stage.forward(&levels[level])?;
            look(&format!("down.{level}"), &merged);
            levels.push(merged);
        }
        let mut skips = Vec::with_capacity(DEPTH);
        for (level, attention) in self.skips.iter().enumerate() {
            // The tap is in front of the stage's own attention block.
            let tap = match &self.fusions {
                None => levels[level].clone(),
                Some(fusions) => fusions[level].forward(&levels)?,
            };
            skips.push(attention.forward(&tap)?);
        }
        skips.push(levels[2].clone());
        for (level, skip) in skips.iter().enumerate() {
            look(&format!("skip.{level}"), skip);
        }
        let mut x = self.bottom_up.forward(&self.bottom.forward(&levels[DEPTH])?)?;
        drop(levels);
        look("bottom", &x);
        for (stage, decoder) in self.decoder.iter().enumerate() {
            let Some(skip) = skips.pop() else { break };
            x = decoder.forward(&x, &skip)?;
            look(&format!("up.{stage}"), &x);
        }
        let expanded = self.head.expand(&x)?;
        look("expand", &expanded);
        self.head.paint(&expanded)
    }

    /// What the reference's state holds and never uses, as it was given.
    pub(crate) fn dead(&self) -> &[(String, Tensor)] {
        &self.dead
    }
}

/// A generator in training, and its variables by name.
pub(crate) fn trained(
    mut parameters: Parameters<'_>,
    config: &GeneratorConfig,
) -> Result<(Generator, Vec<(String, Var)>), Error> {
    let generator = Generator::new(&mut parameters, config)?;
    Ok((generator, parameters.into_vars()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{AttentionKind, GeneratorConfig, HeadLayout, trained};
    use crate::parameters::Parameters;
    use anomaly_core::Streams;
    use candle_core::{Device, Tensor};

    fn config(patch: usize, fusion: bool, layout: HeadLayout) -> GeneratorConfig {
        let (size, channels, outputs, dim) = (32, 3, 3, 8);
        let attention = AttentionKind::Swintf;
        GeneratorConfig {
            size,
            channels,
            outputs,
            patch,
            dim,
            attention,
            heads: 4,
            window: 2,
            fusion,
            layout,
        }
    }

    #[test]
    fn the_published_size_has_the_reference_s_parameters_less_the_dead_ones() {
        let published = GeneratorConfig { dim: 64, ..config(2, false, HeadLayout::Pixels) };
        let mut stream = Streams::new(0).stream("init");
        let count = |config: &GeneratorConfig, stream: &mut _| -> usize {
            let (_, vars) = trained(Parameters::drawn(stream, &Device::Cpu), config).unwrap();
            vars.iter().map(|(_, var)| var.elem_count()).sum()
        };
        assert_eq!(count(&published, &mut stream), 12_554_182 - 18_066);
        let with_4 = GeneratorConfig { patch: 4, ..published };
        assert_eq!(count(&with_4, &mut stream), 12_549_039 - 22_674);
    }

    #[test]
    fn every_level_joins_the_skips_if_they_are_fused() {
        let mut stream = Streams::new(1).stream("init");
        let fused = config(2, true, HeadLayout::Pixels);
        let (generator, vars) = trained(Parameters::drawn(&mut stream, &Device::Cpu), &fused).unwrap();
        let images = vit_ops::init::normal((2, 3, 32, 32), 0., 1., &mut stream, &Device::Cpu).unwrap();
        let painted = generator.forward(&images).unwrap();
        assert_eq!(painted.dims(), [2, 32, 32, 3]);
        let gradients = painted.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        for (name, var) in &vars {
            assert!(gradients.get(var).is_some(), "{name}");
        }
        assert!(vars.iter().any(|(name, _)| name.starts_with("skip.1.fusion.")));
    }

    #[test]
    fn each_token_paints_its_square_unless_the_reference_s_scramble_is_wanted() {
        let painted = |patch, layout| {
            let mut stream = Streams::new(2).stream("init");
            let config = config(patch, false, layout);
            let (generator, _) = trained(Parameters::drawn(&mut stream, &Device::Cpu), &config).unwrap();
            let images = vit_ops::init::normal((1, 3, 32, 32), 0., 1., &mut stream, &Device::Cpu).unwrap();
            generator.forward(&images).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        assert_eq!(painted(2, HeadLayout::Pixels), painted(2, HeadLayout::Scrambled));
        let (pixels, scrambled) = (painted(4, HeadLayout::Pixels), painted(4, HeadLayout::Scrambled));
        assert_ne!(pixels, scrambled);
        // 16 tokens a row, 2 x 2 pixels each: token (r, c) is at rows 2 r and 2 r + 1; in memory it is 4 pixels in a row.
        for (row, column) in [(0, 0), (3, 5), (15, 15)] {
            for sub in 0..4 {
                let right = ((2 * row + sub / 2) * 32 + 2 * column + sub % 2) * 3;
                let flat = ((row * 16 + column) * 4 + sub) * 3;
                assert_eq!(pixels[right..right + 3], scrambled[flat..flat + 3]);
            }
        }
    }

    #[test]
    fn sizes_that_cannot_be_halved_three_times_are_refused() {
        let mut stream = Streams::new(0).stream("init");
        let odd = GeneratorConfig { size: 24, ..config(2, false, HeadLayout::Pixels) };
        let refused = trained(Parameters::drawn(&mut stream, &Device::Cpu), &odd).unwrap_err().to_string();
        assert!(refused.contains("24") && refused.contains("multiple"), "{refused}");
        let missing = std::collections::HashMap::<String, Tensor>::new();
        let parameters = Parameters::trained(&missing, &Device::Cpu);
        let refused = trained(parameters, &config(2, false, HeadLayout::Pixels)).unwrap_err().to_string();
        assert!(refused.contains("inc.Emb.0.proj.weight"), "{refused}");
    }
}
