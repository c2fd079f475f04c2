//! Anomalies made in feature space: which patches are distorted, and how.
//!
//! Paper, section 3.2; the details are the reference's. Every operation starts from the clean features, and what it
//! draws is a value of its own ([`Draw`]), so that draws can be given as well as made.

use anomaly_core::{Stream, Streams};
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::features::PatchFeatures;
use crate::{Amount, Error};

/// One way to distort features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Noise on every patch.
    NoiseAll,
    /// Noise on randomly chosen patches.
    Random,
    /// Noise on the patches that one head attends to most.
    Attention,
    /// The most attended patches replaced by random ones of the same image.
    CopyOut,
    /// The most attended patches in another order.
    Shuffle,
    /// Randomly chosen patches in another order.
    RandomShuffle,
}

impl Operation {
    /// Whether it adds noise; the others move patches.
    pub(crate) fn adds_noise(self) -> bool {
        matches!(self, Self::NoiseAll | Self::Random | Self::Attention)
    }

    /// Whether it looks at the class token's attention.
    pub(crate) fn needs_attention(self) -> bool {
        matches!(self, Self::Attention | Self::CopyOut | Self::Shuffle)
    }
}

/// Which anomalies a training step makes besides noise on every patch (the reference's `fake_feature_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FakeFeatures {
    /// None: for whole images that differ.
    Base,
    /// Noise on random patches: for defects of parts and surfaces.
    Random,
    /// Noise on attended patches.
    Attn,
    /// Attended patches replaced by random ones.
    CopyOut,
    /// Attended patches in another order.
    Shuffle,
    /// Random patches in another order.
    Randshuffle,
    /// `random` and `copy_out`, each by itself.
    CopyOutAndRandom,
    /// `attn` and `copy_out`.
    CopyOutAndAttn,
    /// `random` and `shuffle`: for parts that are in the wrong place or missing.
    ShuffleAndRandom,
    /// `attn` and `shuffle`.
    ShuffleAndAttn,
    /// `random` and `randshuffle`.
    RandshuffleAndRandom,
    /// `attn` and `randshuffle`.
    RandshuffleAndAttn,
}

impl FakeFeatures {
    /// The operations after noise on every patch, in the reference's order: the one with noise first.
    pub fn operations(self) -> &'static [Operation] {
        use Operation::{Attention, CopyOut, Random, RandomShuffle, Shuffle};
        match self {
            Self::Base => &[],
            Self::Random => &[Random],
            Self::Attn => &[Attention],
            Self::CopyOut => &[CopyOut],
            Self::Shuffle => &[Shuffle],
            Self::Randshuffle => &[RandomShuffle],
            Self::CopyOutAndRandom => &[Random, CopyOut],
            Self::CopyOutAndAttn => &[Attention, CopyOut],
            Self::ShuffleAndRandom => &[Random, Shuffle],
            Self::ShuffleAndAttn => &[Attention, Shuffle],
            Self::RandshuffleAndRandom => &[Random, RandomShuffle],
            Self::RandshuffleAndAttn => &[Attention, RandomShuffle],
        }
    }

    /// Whether one of them looks at the class token's attention.
    pub fn needs_attention(self) -> bool {
        self.operations().iter().any(|operation| operation.needs_attention())
    }
}

/// What one operation draws for a batch of B images with N patches of width D.
#[derive(Debug, Clone, Default)]
pub(crate) struct Draw {
    /// `(B, N, D)`, at its final deviation; only where the operation adds noise, and looked at only where it does.
    pub(crate) noise: Option<Tensor>,
    /// How many patches of each image are distorted; not for noise on all.
    pub(crate) counts: Vec<usize>,
    /// Which head's attention counts in each image; only where attention does.
    pub(crate) heads: Vec<usize>,
    /// An order of each image's N patches: its first are distorted or, for `copy_out`, are the sources.
    pub(crate) patches: Vec<Vec<usize>>,
    /// An order of the distorted patches of each image, for the operations that change it.
    pub(crate) orders: Vec<Vec<usize>>,
}

/// Distorted features.
#[derive(Debug)]
pub(crate) struct Fake {
    /// `(B, N, D)`.
    pub(crate) features: Tensor,
    /// Which patches are distorted, `(B, N)` row-major, 1 = yes. A patch that was moved onto itself counts.
    pub(crate) labels: Vec<u8>,
}

/// Where draws come from: the choice of patches from one stream, each image's noise from a stream of its own whose seed
/// is drawn, so that the noise can be made by all cores.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) choices: Stream,
    /// Standard deviation of the noise.
    pub(crate) deviation: f64,
    /// At most this many patches are moved.
    pub(crate) most: Amount,
}

impl Source {
    /// What `operation` draws for features `(B, N, D)` with `heads` heads of attention.
    pub(crate) fn draw(&mut self, operation: Operation, features: &PatchFeatures) -> Result<Draw, Error> {
        let (batch, patches, width) = features.features.dims3()?;
        let heads = features.attention.as_ref().map_or(0, Attention::heads);
        if operation.needs_attention() && heads == 0 {
            return Err(Error::NoAttention(operation));
        }
        let mut draw = Draw::default();
        // For the two operations with noise the reference does not heed the limit.
        let most = if operation.adds_noise() { patches } else { self.most.of(patches) };
        for _ in 0..batch {
            if operation.needs_attention() {
                draw.heads.push(self.choices.below(heads));
            }
            if operation == Operation::NoiseAll {
                continue;
            }
            let count = 1 + self.choices.below(most);
            draw.counts.push(count);
            if matches!(operation, Operation::Random | Operation::CopyOut | Operation::RandomShuffle) {
                draw.patches.push(self.choices.permutation(patches));
            }
            if matches!(operation, Operation::Shuffle | Operation::RandomShuffle) {
                draw.orders.push(self.choices.permutation(count));
            }
        }
        if operation.adds_noise() {
            let touched = draw.touched(operation, features)?;
            draw.noise = Some(self.noise(&touched, (batch, patches, width), features.features.device())?);
        }
        Ok(draw)
    }

    /// Noise for the patches with label 1; zeros elsewhere.
    fn noise(
        &mut self,
        labels: &[u8],
        (batch, patches, width): (usize, usize, usize),
        device: &Device,
    ) -> Result<Tensor, Error> {
        let seed = |choices: &mut Stream| u64::from(choices.next_u32()) << 32 | u64::from(choices.next_u32());
        let seeds: Vec<u64> = (0..batch).map(|_| seed(&mut self.choices)).collect();
        let deviation = self.deviation;
        let mut noise = vec![0.0_f32; batch * patches * width];
        noise.par_chunks_mut(patches * width).zip(labels.par_chunks(patches)).zip(&seeds).for_each(
            |((image, labels), seed)| {
                let mut stream = Streams::new(*seed).stream("noise");
                for (patch, _) in image.chunks_mut(width).zip(labels).filter(|(_, label)| **label == 1) {
                    for value in patch {
                        *value = (deviation * f64::from(stream.normal())) as f32;
                    }
                }
            },
        );
        Ok(Tensor::from_vec(noise, (batch, patches, width), device)?)
    }
}

impl Draw {
    /// The distorted features.
    pub(crate) fn apply(&self, operation: Operation, clean: &PatchFeatures) -> Result<Fake, Error> {
        let labels = self.touched(operation, clean)?;
        let features = if operation.adds_noise() {
            self.noised(operation, &labels, &clean.features)?
        } else {
            self.moved(operation, clean)?
        };
        Ok(Fake { features, labels })
    }

    /// Which patches are distorted, `(B, N)`.
    fn touched(&self, operation: Operation, clean: &PatchFeatures) -> Result<Vec<u8>, Error> {
        let (batch, patches, _) = clean.features.dims3()?;
        if operation == Operation::NoiseAll {
            return Ok(vec![1; batch * patches]);
        }
        let mut labels = vec![0; batch * patches];
        for image in 0..batch {
            for patch in self.chosen(operation, clean, image)? {
                labels[image * patches + patch] = 1;
            }
        }
        Ok(labels)
    }

    /// The distorted patches of one image, in the order that pairs them with their sources.
    fn chosen(&self, operation: Operation, clean: &PatchFeatures, image: usize) -> Result<Vec<usize>, Error> {
        let patches = clean.features.dim(1)?;
        let count = *self.counts.get(image).ok_or(Error::Draws { operation, what: "number of patches" })?;
        let order = if operation.needs_attention() {
            let attention = clean.attention.as_ref().ok_or(Error::NoAttention(operation))?;
            let head = *self.heads.get(image).ok_or(Error::Draws { operation, what: "head" })?;
            attention.most_attended(image, head).ok_or(Error::Draws { operation, what: "head" })?
        } else {
            self.patches.get(image).cloned().ok_or(Error::Draws { operation, what: "order of patches" })?
        };
        let chosen: Vec<usize> = order.into_iter().take(count).collect();
        if chosen.len() != count || chosen.iter().any(|patch| *patch >= patches) {
            return Err(Error::Draws { operation, what: "order of patches" });
        }
        Ok(chosen)
    }

    fn noised(&self, operation: Operation, labels: &[u8], clean: &Tensor) -> Result<Tensor, Error> {
        let noise = self.noise.as_ref().ok_or(Error::Draws { operation, what: "noise" })?;
        if noise.dims() != clean.dims() {
            return Err(Error::Draws { operation, what: "noise" });
        }
        if operation == Operation::NoiseAll {
            return Ok((clean + noise)?);
        }
        let (batch, patches, _) = clean.dims3()?;
        let mask: Vec<f32> = labels.iter().map(|label| f32::from(*label)).collect();
        let mask = Tensor::from_vec(mask, (batch, patches, 1), clean.device())?;
        Ok((clean + noise.broadcast_mul(&mask)?)?)
    }

    /// Patches replaced by patches of the same image, all taken from the clean features.
    fn moved(&self, operation: Operation, clean: &PatchFeatures) -> Result<Tensor, Error> {
        let (batch, patches, width) = clean.features.dims3()?;
        let mut sources: Vec<u32> = (0..batch * patches).map(|at| at as u32).collect();
        for image in 0..batch {
            let chosen = self.chosen(operation, clean, image)?;
            let wrong = || Error::Draws { operation, what: "order of the distorted patches" };
            for (rank, patch) in chosen.iter().enumerate() {
                let source = if operation == Operation::CopyOut {
                    self.patches.get(image).and_then(|order| order.get(rank)).copied()
                } else {
                    let order = self.orders.get(image).and_then(|order| order.get(rank));
                    order.and_then(|other| chosen.get(*other)).copied()
                };
                let source = source.filter(|source| *source < patches).ok_or_else(wrong)?;
                sources[image * patches + patch] = (image * patches + source) as u32;
            }
        }
        let sources = Tensor::from_vec(sources, batch * patches, clean.features.device())?;
        let flat = clean.features.reshape((batch * patches, width))?;
        Ok(flat.index_select(&sources, 0)?.reshape((batch, patches, width))?)
    }
}

/// The class token's attention to the patches, on the host.
#[derive(Debug, Clone)]
pub(crate) struct Attention {
    /// `(B, H, N)` row-major.
    values: Vec<f32>,
    heads: usize,
    patches: usize,
}

impl Attention {
    /// Of a tensor `(B, H, N)`.
    pub(crate) fn new(tensor: &Tensor) -> Result<Self, Error> {
        let (_, heads, patches) = tensor.dims3()?;
        Ok(Self { values: tensor.flatten_all()?.to_vec1::<f32>()?, heads, patches })
    }

    pub(crate) fn heads(&self) -> usize {
        self.heads
    }

    /// All patches of an image by how much `head` attends to them, the most first; of equal ones the earlier first.
    fn most_attended(&self, image: usize, head: usize) -> Option<Vec<usize>> {
        if head >= self.heads {
            return None;
        }
        let start = (image * self.heads + head) * self.patches;
        let weights = self.values.get(start..start + self.patches)?;
        let mut order: Vec<usize> = (0..self.patches).collect();
        order.sort_by(|a, b| weights[*b].total_cmp(&weights[*a]));
        Some(order)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use anomaly_core::Streams;
    use candle_core::{Device, Tensor};

    use super::{Attention, Draw, FakeFeatures, Operation, Source};
    use crate::features::PatchFeatures;
    use crate::{Amount, Error};

    /// Two images of five patches of width 2; patch p of image i is (10 i + p, -p). Head 0 attends to later patches more.
    fn clean() -> PatchFeatures {
        let values: Vec<f32> = (0..10_u8)
            .flat_map(|at| [f32::from(at / 5) * 10.0 + f32::from(at % 5), -f32::from(at % 5)])
            .collect();
        let weights: Vec<f32> =
            (0..20_u8).map(|at| f32::from(if at / 5 % 2 == 0 { at % 5 } else { 4 - at % 5 })).collect();
        let attention = Tensor::from_vec(weights, (2, 2, 5), &Device::Cpu).unwrap();
        PatchFeatures {
            features: Tensor::from_vec(values, (2, 5, 2), &Device::Cpu).unwrap(),
            attention: Some(Attention::new(&attention).unwrap()),
        }
    }

    fn first(features: &Tensor) -> Vec<Vec<f32>> {
        features.narrow(2, 0, 1).unwrap().squeeze(2).unwrap().to_vec2::<f32>().unwrap()
    }

    const ALL: [Operation; 6] = [
        Operation::NoiseAll,
        Operation::Random,
        Operation::Attention,
        Operation::CopyOut,
        Operation::Shuffle,
        Operation::RandomShuffle,
    ];

    fn source(seed: u64) -> Source {
        Source { choices: Streams::new(seed).stream("anomalies"), deviation: 0.5, most: Amount::Of(3) }
    }

    #[test]
    fn shuffled_patches_are_those_attended_most_in_the_order_drawn() {
        let draw = Draw {
            counts: vec![3, 2],
            heads: vec![0, 1],
            orders: vec![vec![1, 2, 0], vec![1, 0]],
            ..Draw::default()
        };
        let fake = draw.apply(Operation::Shuffle, &clean()).unwrap();
        // Image 0, head 0: patches 4, 3, 2 receive patches 3, 2, 4. Image 1, head 1: 0 and 1 change places.
        assert_eq!(first(&fake.features), [[0., 1., 4., 2., 3.], [11., 10., 12., 13., 14.]]);
        assert_eq!(fake.labels, [0, 0, 1, 1, 1, 1, 1, 0, 0, 0]);
    }

    #[test]
    fn copies_come_from_the_clean_features() {
        let draw = Draw {
            counts: vec![2, 1],
            heads: vec![1, 0],
            patches: vec![vec![1, 0, 2, 3, 4], vec![4, 0, 1, 2, 3]],
            ..Draw::default()
        };
        let fake = draw.apply(Operation::CopyOut, &clean()).unwrap();
        // Patches 0 and 1 receive 1 and 0: no chain. A patch copied onto itself is labelled all the same.
        assert_eq!(first(&fake.features), [[1., 0., 2., 3., 4.], [10., 11., 12., 13., 14.]]);
        assert_eq!(fake.labels, [1, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn untouched_patches_keep_their_bits_and_touched_ones_are_as_many_as_drawn() {
        let clean = clean();
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..40 {
            for operation in ALL {
                let draw = source(seed).draw(operation, &clean).unwrap();
                let fake = draw.apply(operation, &clean).unwrap();
                let (old, new) =
                    (clean.features.to_vec3::<f32>().unwrap(), fake.features.to_vec3::<f32>().unwrap());
                for image in 0..2 {
                    let labels = &fake.labels[image * 5..][..5];
                    let touched: usize = labels.iter().map(|label| usize::from(*label)).sum();
                    let wanted = if operation == Operation::NoiseAll { 5 } else { draw.counts[image] };
                    assert_eq!(touched, wanted, "{operation:?}");
                    assert!(operation.adds_noise() || touched <= 3, "{operation:?}");
                    seen.insert((operation.adds_noise(), touched));
                    for patch in (0..5).filter(|patch| labels[*patch] == 0) {
                        assert_eq!(old[image][patch], new[image][patch], "{operation:?}");
                    }
                }
            }
        }
        // Noise on any number up to all, the others up to the limit.
        assert!((1..=5).all(|count| seen.contains(&(true, count))));
        assert!((1..=3).all(|count| seen.contains(&(false, count))));
    }

    #[test]
    fn one_stream_gives_one_draw_and_its_noise_has_the_deviation() {
        let wide = PatchFeatures {
            features: Tensor::zeros((2, 5, 2000), candle_core::DType::F32, &Device::Cpu).unwrap(),
            attention: None,
        };
        let noise = |seed| {
            let noise = source(seed).draw(Operation::NoiseAll, &wide).unwrap().noise.unwrap();
            noise.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let (one, again, other) = (noise(1), noise(1), noise(2));
        assert_eq!(one, again);
        assert_ne!(one, other);
        assert_ne!(one[..2000], one[10_000..12_000]);
        let mean_square = one.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / one.len() as f64;
        assert!((mean_square.sqrt() - 0.5).abs() < 0.02, "{mean_square}");
    }

    #[test]
    fn attention_that_is_not_there_is_named() {
        let without = PatchFeatures { attention: None, ..clean() };
        for operation in ALL {
            let drawn = source(0).draw(operation, &without);
            assert_eq!(
                matches!(drawn, Err(Error::NoAttention(_))),
                operation.needs_attention(),
                "{operation:?}"
            );
        }
        let short = Draw { counts: vec![9, 9], patches: vec![vec![0; 5]; 2], ..Draw::default() };
        assert!(matches!(short.apply(Operation::RandomShuffle, &clean()), Err(Error::Draws { .. })));
    }

    #[test]
    fn the_reference_s_words_name_the_operations() {
        let of =
            |word: &str| serde_json::from_str::<FakeFeatures>(&format!("{word:?}")).unwrap().operations();
        assert_eq!(of("base"), []);
        assert_eq!(of("shuffle_and_random"), [Operation::Random, Operation::Shuffle]);
        assert_eq!(of("copy_out_and_attn"), [Operation::Attention, Operation::CopyOut]);
        assert_eq!(of("randshuffle"), [Operation::RandomShuffle]);
        assert!(serde_json::from_str::<FakeFeatures>("\"noise\"").is_err());
        assert!(!FakeFeatures::RandshuffleAndRandom.needs_attention());
        assert!(FakeFeatures::RandshuffleAndAttn.needs_attention());
    }
}
