//! Where cells compute.

use std::str::FromStr;

use candle_core::{DType, Device, Tensor};

use crate::Error;

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// A GPU if this program and this machine have one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU with this number, or an error.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = Error;

    /// Reads `auto`, `cpu`, `cuda` or `cuda:N`.
    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "auto" => return Ok(Self::Auto),
            "cpu" => return Ok(Self::Cpu),
            "cuda" => return Ok(Self::Cuda(0)),
            _ => {}
        }
        let number = text.strip_prefix("cuda:").and_then(|number| number.parse().ok());
        number.map(Self::Cuda).ok_or_else(|| Error::Device {
            device: text.to_owned(),
            problem: "expected `auto`, `cpu`, `cuda` or `cuda:N`".to_owned(),
        })
    }
}

impl std::fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl DeviceChoice {
    /// The device, and what it is: `Cpu` or `Cuda`, never `Auto`. Where `Auto` falls back to the CPU though the
    /// program was built for GPUs, it warns.
    ///
    /// # Errors
    /// [`Error::Device`] if a GPU was asked for and can't be had; `Auto` then gives the CPU.
    pub fn open(self) -> Result<(Device, Self), Error> {
        let (device, found, why) = self.choose()?;
        if let Some(why) = why {
            tracing::warn!("{why}");
        }
        Ok((device, found))
    }

    /// What [`DeviceChoice::open`] would give, and why it is not a GPU where `Auto` might have been one.
    ///
    /// # Errors
    /// As [`DeviceChoice::open`].
    pub fn resolve(self) -> Result<(Self, Option<String>), Error> {
        self.choose().map(|(_, found, why)| (found, why))
    }

    fn choose(self) -> Result<(Device, Self, Option<String>), Error> {
        match self {
            Self::Cpu => Ok((Device::Cpu, Self::Cpu, None)),
            Self::Cuda(number) => Ok((cuda(number)?, self, None)),
            Self::Auto => Ok(match cuda(0) {
                Ok(device) => (device, Self::Cuda(0), None),
                // A program without the feature never promised a GPU.
                Err(_) if !cfg!(feature = "cuda") => (Device::Cpu, Self::Cpu, None),
                Err(why) => (Device::Cpu, Self::Cpu, Some(format!("{why}; computing on the CPU"))),
            }),
        }
    }
}

/// How many GPUs this process may use, as the driver and `CUDA_VISIBLE_DEVICES` say.
pub fn gpu_count() -> usize {
    let there = std::fs::read_dir("/proc/driver/nvidia/gpus").map_or(0, Iterator::count);
    visible(there, std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref())
}

/// Of so many GPUs those that a list of numbers or names lets through; a list ends at its first word that is none.
fn visible(there: usize, list: Option<&str>) -> usize {
    let Some(list) = list else { return there };
    let is_one =
        |word: &str| word.parse().map_or_else(|_| word.starts_with("GPU-"), |number: usize| number < there);
    list.split(',').take_while(|word| is_one(word.trim())).count().min(there)
}

/// A GPU that computes.
fn cuda(number: usize) -> Result<Device, Error> {
    let failed = |problem: String| Error::Device { device: format!("cuda:{number}"), problem };
    if !cfg!(feature = "cuda") {
        return Err(failed(
            "this program was built without the feature `cuda` (docs/gpu.md); take `cpu` or `auto`"
                .to_owned(),
        ));
    }
    let device = Device::new_cuda(number).map_err(|e| {
        failed(format!("{e}; see with `nvidia-smi` which GPUs and driver there are, or take `cpu` or `auto`"))
    })?;
    // A device can be opened whose kernels were not compiled for it.
    let works = || -> candle_core::Result<bool> {
        let three = (Tensor::ones(1, DType::F32, &device)? + 2.0)?;
        Ok(three.to_vec1::<f32>()? == [3.0])
    };
    match works() {
        Ok(true) => Ok(device),
        Ok(false) => Err(failed("1 + 2 is not 3 there".to_owned())),
        Err(e) => Err(failed(format!(
            "{e}; this program's kernels may be for another compute capability (docs/gpu.md), or a newer driver is \
             needed"
        ))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::DeviceChoice;

    #[test]
    fn names_are_read_and_written() {
        for (text, choice) in [
            ("auto", DeviceChoice::Auto),
            ("cpu", DeviceChoice::Cpu),
            ("cuda:0", DeviceChoice::Cuda(0)),
            ("cuda:3", DeviceChoice::Cuda(3)),
        ] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap(), choice);
            assert_eq!(choice.to_string(), text);
        }
        assert_eq!("cuda".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cuda(0));
        for wrong in ["", "gpu", "cuda:", "cuda:-1", "cuda:x"] {
            let message = wrong.parse::<DeviceChoice>().unwrap_err().to_string();
            assert!(message.contains("`cuda:N`"), "{message}");
        }
    }

    #[test]
    fn gpus_are_counted_as_far_as_they_are_visible() {
        for (list, count) in [
            (None, 4),
            (Some("0,2"), 2),
            (Some(""), 0),
            (Some("-1"), 0),
            (Some("1,9,2"), 1),
            (Some("GPU-ab"), 1),
        ] {
            assert_eq!(super::visible(4, list), count, "{list:?}");
        }
    }

    #[test]
    fn the_cpu_is_always_there() {
        assert_eq!(DeviceChoice::Cpu.open().unwrap().1, DeviceChoice::Cpu);
        assert_eq!(DeviceChoice::Cpu.resolve().unwrap(), (DeviceChoice::Cpu, None));
    }

    #[test]
    #[cfg(feature = "cuda")]
    fn a_gpu_that_is_not_there_is_named_with_the_driver_s_words_and_auto_says_why_it_is_the_cpu() {
        // No machine has so many, and one without any refuses this one too.
        let message = DeviceChoice::Cuda(4096).open().unwrap_err().to_string();
        assert!(message.contains("`cuda:4096`") && message.contains("nvidia-smi"), "{message}");
        let (found, why) = DeviceChoice::Auto.resolve().unwrap();
        assert_eq!(found == DeviceChoice::Cpu, why.is_some());
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn a_gpu_that_was_asked_for_and_is_not_there_is_an_error_and_auto_is_the_cpu() {
        let message = DeviceChoice::Cuda(1).open().unwrap_err().to_string();
        assert!(message.contains("`cuda:1`") && message.contains("feature `cuda`"), "{message}");
        assert_eq!(DeviceChoice::Auto.resolve().unwrap(), (DeviceChoice::Cpu, None));
    }
}
