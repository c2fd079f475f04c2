//! The alternating step.

use std::collections::{BTreeMap, HashMap};

use anomaly_core::{Stream, Streams};
use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};
use optim::{Adam, AdamOptions, Optimizer, ParameterGroup};

use crate::config::{LatentGradient, RunningUpdates};
use crate::discriminator::{self, Discriminator, DiscriminatorConfig, Mode};
use crate::generator::{self, Generator, GeneratorConfig};
use crate::loss::{latent, reconstruction, value, verdict};
use crate::parameters::Parameters;
use crate::{Config, Error};

/// What a step does, as far as it is a matter of choice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepRule {
    pub(crate) adversarial: f64,
    pub(crate) reconstruction: f64,
    /// 0 leaves the term out everywhere.
    pub(crate) latent: f64,
    /// How often the latent loss reaches the generator.
    pub(crate) latent_times: f64,
    pub(crate) discriminator_latent: bool,
    pub(crate) updates: RunningUpdates,
    pub(crate) adam: AdamOptions,
}

impl StepRule {
    fn of(config: &Config) -> Self {
        Self {
            adversarial: config.adversarial_weight,
            reconstruction: config.reconstruction_weight,
            latent: config.latent_weight,
            latent_times: match config.latent_gradient {
                LatentGradient::Once => 1.0,
                LatentGradient::Twice => 2.0,
            },
            discriminator_latent: config.discriminator_latent,
            updates: config.running_updates,
            adam: AdamOptions {
                learning_rate: config.learning_rate,
                beta1: config.beta1,
                beta2: config.beta2,
                ..AdamOptions::default()
            },
        }
    }
}

/// The losses of a step, before the weights moved. The generator's terms are weighted.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StepLosses {
    /// Adversarial, reconstruction and latent loss together.
    pub generator: f64,
    /// Weighted adversarial loss.
    pub adversarial: f64,
    /// Weighted mean absolute difference of images and reconstructions.
    pub reconstruction: f64,
    /// Weighted mean squared difference of the feature vectors; 0 if it is left out.
    pub latent: f64,
    /// The discriminator's loss.
    pub discriminator: f64,
    /// Its part for the images.
    pub discriminator_real: f64,
    /// Its part for the reconstructions.
    pub discriminator_fake: f64,
    /// For each image, the probability of being real; then for each reconstruction.
    pub probabilities: Vec<f32>,
}

/// Both networks and both optimisers.
pub struct Trainer {
    pub(crate) generator: Generator,
    pub(crate) discriminator: Discriminator,
    generator_vars: Vec<(String, Var)>,
    discriminator_vars: Vec<(String, Var)>,
    generator_adam: Adam,
    discriminator_adam: Adam,
    rule: StepRule,
    device: Device,
}

impl std::fmt::Debug for Trainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trainer").field("rule", &self.rule).finish_non_exhaustive()
    }
}

/// What a step found, before anything moved.
pub(crate) struct Found {
    pub(crate) losses: StepLosses,
    pub(crate) generator: GradStore,
    pub(crate) discriminator: GradStore,
    /// The reconstructions, channels last.
    #[cfg_attr(not(feature = "conformance"), allow(dead_code))]
    pub(crate) painted: Tensor,
}

const GENERATOR: &str = "generator.";
const DISCRIMINATOR: &str = "discriminator.";
const GENERATOR_ADAM: &str = "generator-adam.";
const DISCRIMINATOR_ADAM: &str = "discriminator-adam.";

impl Trainer {
    /// Fresh networks, drawn from the streams `generator` and `discriminator`.
    ///
    /// # Errors
    /// If a setting is out of range.
    pub fn new(config: &Config, streams: &Streams, device: &Device) -> Result<Self, Error> {
        anomaly_core::MethodConfig::validate(config)?;
        let mut first: Stream = streams.stream("generator");
        let mut second: Stream = streams.stream("discriminator");
        Self::of(
            generator::trained(Parameters::drawn(&mut first, device), &GeneratorConfig::of(config))?,
            discriminator::trained(Parameters::drawn(&mut second, device), &DiscriminatorConfig::of(config))?,
            StepRule::of(config),
            device,
        )
    }

    /// Networks with the weights of [`Trainer::named_tensors`], and fresh optimisers.
    ///
    /// # Errors
    /// If a setting is out of range, or a tensor is missing or of another shape.
    pub fn from_tensors(
        config: &Config,
        tensors: &HashMap<String, Tensor>,
        device: &Device,
    ) -> Result<Self, Error> {
        anomaly_core::MethodConfig::validate(config)?;
        let (of_generator, of_discriminator) = networks(tensors);
        Self::of(
            generator::trained(Parameters::trained(&of_generator, device), &GeneratorConfig::of(config))?,
            discriminator::trained(
                Parameters::trained(&of_discriminator, device),
                &DiscriminatorConfig::of(config),
            )?,
            StepRule::of(config),
            device,
        )
    }

    pub(crate) fn of(
        (generator, generator_vars): (Generator, Vec<(String, Var)>),
        (discriminator, discriminator_vars): (Discriminator, Vec<(String, Var)>),
        rule: StepRule,
        device: &Device,
    ) -> Result<Self, Error> {
        let adam = |vars: &[(String, Var)]| Adam::new(vec![ParameterGroup::new(vars.to_vec())], rule.adam);
        Ok(Self {
            generator_adam: adam(&generator_vars)?,
            discriminator_adam: adam(&discriminator_vars)?,
            generator,
            discriminator,
            generator_vars,
            discriminator_vars,
            rule,
            device: device.clone(),
        })
    }

    /// Where it computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Sets the learning rate of both optimisers.
    pub fn set_learning_rate(&mut self, rate: f64) {
        self.generator_adam.set_learning_rate(rate);
        self.discriminator_adam.set_learning_rate(rate);
    }

    /// One step on `images` `(B, 3, S, S)`, with `noise` of the same shape added to what the generator sees. The losses
    /// are those before it.
    ///
    /// # Errors
    /// If the images are of another size, or a parameter got no gradient.
    pub fn step(&mut self, images: &Tensor, noise: Option<&Tensor>) -> Result<StepLosses, Error> {
        let found = self.find(images, noise)?;
        self.apply(&found)?;
        Ok(found.losses)
    }

    /// Losses and gradients of a step; the running statistics move.
    ///
    /// The reference passes images and reconstructions through the discriminator five times a step with the same weights,
    /// and goes backward through the generator twice. Here each is done once: the discriminator sees reconstructions
    /// cut off from the generator, what the losses say of them comes back as their gradient, and one backward
    /// pass carries it on through the generator.
    pub(crate) fn find(&mut self, images: &Tensor, noise: Option<&Tensor>) -> Result<Found, Error> {
        let rule = self.rule;
        let images = images.to_device(&self.device)?;
        let real = images.permute((0, 2, 3, 1))?.contiguous()?;
        let painted = match noise {
            Some(noise) => self.generator.forward(&(&images + noise.to_device(&self.device)?)?)?,
            None => self.generator.forward(&images)?,
        };
        let leaf = Var::from_tensor(&painted.detach())?;
        let of_real = self.discriminator.forward(&real, Mode::Batch)?;
        let of_painted = self.discriminator.forward(leaf.as_tensor(), Mode::Batch)?;

        let adversarial = (verdict(&of_painted.probability, true)? * rule.adversarial)?;
        let mut on_leaf = adversarial.clone();
        let mut latent_value = 0.0;
        if rule.latent > 0.0 {
            let once = (latent(&of_painted.feature, &of_real.feature.detach())? * rule.latent)?;
            latent_value = value(&once)?;
            on_leaf = (on_leaf + (once * rule.latent_times)?)?;
        }
        let of_leaf = on_leaf.backward()?;
        let arriving =
            of_leaf.get(&leaf).ok_or_else(|| Error::NoGradient("the reconstruction".to_owned()))?;
        let difference = (reconstruction(&painted, &real)? * rule.reconstruction)?;
        let generator = (&difference + (&painted * arriving.detach())?.sum_all()?)?.backward()?;

        let discriminator_real = verdict(&of_real.probability, true)?;
        let discriminator_fake = verdict(&of_painted.probability, false)?;
        let mut against = (&discriminator_real + &discriminator_fake)?;
        if rule.latent > 0.0 && rule.discriminator_latent {
            against = (against + (latent(&of_painted.feature, &of_real.feature)? * rule.latent)?)?;
        }
        let discriminator = against.backward()?;

        let both = [&of_real.statistics, &of_painted.statistics];
        let order: &[usize] = match rule.updates {
            RunningUpdates::Two => &[0, 1],
            RunningUpdates::Five => &[0, 1, 0, 1, 1],
        };
        for &which in order {
            self.discriminator.remember(both[which])?;
        }

        let (adversarial, reconstruction) = (value(&adversarial)?, value(&difference)?);
        let mut probabilities = of_real.probability.to_vec1::<f32>()?;
        probabilities.extend(of_painted.probability.to_vec1::<f32>()?);
        let losses = StepLosses {
            generator: adversarial + reconstruction + latent_value,
            adversarial,
            reconstruction,
            latent: latent_value,
            discriminator: value(&against)?,
            discriminator_real: value(&discriminator_real)?,
            discriminator_fake: value(&discriminator_fake)?,
            probabilities,
        };
        Ok(Found { losses, generator, discriminator, painted: painted.detach() })
    }

    /// Moves the weights of both networks; both gradients are of the weights before.
    pub(crate) fn apply(&mut self, found: &Found) -> Result<(), Error> {
        for (optimizer, gradients) in [
            (&mut self.generator_adam, &found.generator),
            (&mut self.discriminator_adam, &found.discriminator),
        ] {
            if let Some(name) = optimizer.missing_gradients(gradients).into_iter().next() {
                return Err(Error::NoGradient(name));
            }
            optimizer.step(gradients)?;
        }
        Ok(())
    }

    /// The parameters of the generator and of the discriminator, by the reference's names.
    #[cfg_attr(not(feature = "conformance"), allow(dead_code))]
    pub(crate) fn vars(&self) -> [&[(String, Var)]; 2] {
        [&self.generator_vars, &self.discriminator_vars]
    }

    /// Copies of all weights and running statistics, `generator.<name>` and `discriminator.<name>` with the reference's
    /// names; what the reference's state holds without using it, only if it was given.
    ///
    /// # Errors
    /// If the device cannot copy.
    pub fn named_tensors(&self) -> Result<BTreeMap<String, Tensor>, Error> {
        let mut all = BTreeMap::new();
        for (prefix, vars) in [(GENERATOR, &self.generator_vars), (DISCRIMINATOR, &self.discriminator_vars)] {
            for (name, var) in vars {
                all.insert(format!("{prefix}{name}"), var.as_tensor().detach().copy()?);
            }
        }
        for (name, tensor) in self.generator.dead() {
            all.insert(format!("{GENERATOR}{name}"), tensor.clone());
        }
        for (name, tensor) in self.discriminator.running(&self.device)? {
            all.insert(format!("{DISCRIMINATOR}{name}"), tensor);
        }
        Ok(all)
    }

    /// All that the next step depends on: [`Trainer::named_tensors`] and both optimisers' state.
    pub(crate) fn state(&self) -> Result<BTreeMap<String, Tensor>, Error> {
        let mut all = self.named_tensors()?;
        for (prefix, adam) in
            [(GENERATOR_ADAM, &self.generator_adam), (DISCRIMINATOR_ADAM, &self.discriminator_adam)]
        {
            for (name, tensor) in adam.state_tensors()? {
                all.insert(format!("{prefix}{name}"), tensor);
            }
        }
        Ok(all)
    }

    /// Goes on from [`Trainer::state`].
    pub(crate) fn load_state(&mut self, tensors: &BTreeMap<String, Tensor>) -> Result<(), Error> {
        let tensor = |name: String| tensors.get(&name).ok_or(Error::MissingWeight(name));
        for (prefix, vars) in [(GENERATOR, &self.generator_vars), (DISCRIMINATOR, &self.discriminator_vars)] {
            for (name, var) in vars {
                var.set(tensor(format!("{prefix}{name}"))?)?;
            }
        }
        let part = |prefix| {
            tensors.iter().filter_map(move |(name, tensor)| {
                Some((name.strip_prefix(prefix)?.to_owned(), tensor.clone()))
            })
        };
        self.discriminator.set_running(&part(DISCRIMINATOR).collect())?;
        self.generator_adam.load_state_tensors(part(GENERATOR_ADAM).collect())?;
        self.discriminator_adam.load_state_tensors(part(DISCRIMINATOR_ADAM).collect())?;
        Ok(())
    }
}

/// The tensors of `named_tensors` by network.
pub(crate) fn networks(
    tensors: &HashMap<String, Tensor>,
) -> (HashMap<String, Tensor>, HashMap<String, Tensor>) {
    let part = |prefix: &str| {
        tensors
            .iter()
            .filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor.clone())))
            .collect()
    };
    (part(GENERATOR), part(DISCRIMINATOR))
}
