//! Where cells compute.

use std::str::FromStr;

use candle_core::Device;

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
    /// The device, and what it is: `Cpu` or `Cuda`, never `Auto`.
    ///
    /// # Errors
    /// [`Error::Device`] if a GPU was asked for and can't be had; `Auto` then gives the CPU.
    pub fn open(self) -> Result<(Device, Self), Error> {
        match self {
            Self::Cpu => Ok((Device::Cpu, Self::Cpu)),
            Self::Cuda(number) => cuda(number).map(|device| (device, self)),
            Self::Auto => Ok(cuda(0).map_or((Device::Cpu, Self::Cpu), |device| (device, Self::Cuda(0)))),
        }
    }

    /// What [`DeviceChoice::open`] would give, and why it is not a GPU where `Auto` might have been one.
    ///
    /// # Errors
    /// As [`DeviceChoice::open`].
    pub fn resolve(self) -> Result<(Self, Option<String>), Error> {
        let (_, resolved) = self.open()?;
        let fell_back = self == Self::Auto && resolved == Self::Cpu && cfg!(feature = "cuda");
        let why = if fell_back { cuda(0).err().map(|e| format!("{e}; computing on the CPU")) } else { None };
        Ok((resolved, why))
    }
}

fn cuda(number: usize) -> Result<Device, Error> {
    let failed = |problem: String| Error::Device { device: format!("cuda:{number}"), problem };
    if !cfg!(feature = "cuda") {
        return Err(failed("this program was built without the feature `cuda`".to_owned()));
    }
    Device::new_cuda(number).map_err(|e| failed(e.to_string()))
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
    fn the_cpu_is_always_there() {
        assert_eq!(DeviceChoice::Cpu.open().unwrap().1, DeviceChoice::Cpu);
        assert_eq!(DeviceChoice::Cpu.resolve().unwrap(), (DeviceChoice::Cpu, None));
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn a_gpu_that_was_asked_for_and_is_not_there_is_an_error_and_auto_is_the_cpu() {
        let message = DeviceChoice::Cuda(1).open().unwrap_err().to_string();
        assert!(message.contains("`cuda:1`") && message.contains("feature `cuda`"), "{message}");
        assert_eq!(DeviceChoice::Auto.resolve().unwrap(), (DeviceChoice::Cpu, None));
    }
}
