use std::str::FromStr;

use candle_core::{Device, Tensor};
use random_streams::Streams;

use crate::kernels::has_tiles;
use crate::{Error, Linear, Result};

/// How a linear layer multiplies f32 numbers. Inputs and results are f32 in all of them; so are sums on the host.
///
/// The errors are relative ones of a whole product (root mean square of the difference from f64 over that of the
/// result); [`Precision::error`] measures them where the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// As they are: an error of about 5e-7.
    #[default]
    F32,
    /// Each number as the sum of two bf16, and three of their four products: an error of about 5e-6. (Henry, Tang and
    /// Heinecke 2019, arXiv 1904.06376.) Numbers that round to infinity as bf16, from 3.39e38 on, give NaN.
    Bf16x3,
    /// Each number as the nearest bf16: an error of about 2e-3. Off the host, each sum is rounded to bf16 once it is
    /// complete, and frozen layers also take and give numbers of that type ([`Linear::half`]).
    Bf16,
}

impl Precision {
    /// `f32`, `bf16x3` or `bf16`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16x3 => "bf16x3",
            Self::Bf16 => "bf16",
        }
    }

    /// The relative error of this precision on `device`, measured on one fixed product: standard normal numbers, 64
    /// rows, 768 terms a sum, 64 columns. Takes a few milliseconds.
    ///
    /// # Errors
    ///
    /// If the device can't compute.
    pub fn error(self, device: &Device) -> Result<f64> {
        let (x, weight) = sample();
        let tensor = |values: &[f32]| Tensor::from_slice(values, (SIDE, DEPTH), device);
        let layer = Linear::with_precision(tensor(&weight)?, None, self)?;
        let found = layer.forward(&tensor(&x)?)?.flatten_all()?.to_vec1()?;
        Ok(relative_error(&found, &x, &weight))
    }
}

/// Rows and columns of the product that errors are measured on.
const SIDE: usize = 64;
/// Terms of each of its sums.
const DEPTH: usize = 768;

/// Its factors, row by row, the second transposed.
fn sample() -> (Vec<f32>, Vec<f32>) {
    let mut stream = Streams::new(0).stream("precision");
    let mut draw = || {
        let mut values = vec![0.0_f32; SIDE * DEPTH];
        stream.fill_normal(&mut values);
        values
    };
    (draw(), draw())
}

fn relative_error(found: &[f32], x: &[f32], weight: &[f32]) -> f64 {
    let (mut difference, mut size) = (0.0, 0.0);
    for (at, &found) in found.iter().enumerate() {
        let row = &x[at / SIDE * DEPTH..][..DEPTH];
        let column = &weight[at % SIDE * DEPTH..][..DEPTH];
        let wanted: f64 = row.iter().zip(column).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
        difference += (f64::from(found) - wanted).powi(2);
        size += wanted.powi(2);
    }
    (difference / size).sqrt()
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Precision {
    type Err = Error;

    /// Reads what [`Precision::as_str`] gives.
    fn from_str(text: &str) -> Result<Self> {
        [Self::F32, Self::Bf16x3, Self::Bf16]
            .into_iter()
            .find(|precision| precision.as_str() == text)
            .ok_or_else(|| Error::Name {
                what: "precision",
                expected: "`f32`, `bf16x3` or `bf16`",
                found: text.to_owned(),
            })
    }
}

/// What is asked for: a precision, or whichever is best for frozen networks here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PrecisionSetting {
    /// [`Precision::Bf16x3`] where it is faster than f32, on processors with AMX tiles; [`Precision::F32`] elsewhere.
    Auto,
    /// This one.
    Fixed(Precision),
}

impl Default for PrecisionSetting {
    fn default() -> Self {
        Self::Fixed(Precision::F32)
    }
}

impl PrecisionSetting {
    /// What it comes to for a frozen network on `device`.
    pub fn resolve(self, device: &Device) -> Precision {
        match self {
            Self::Fixed(precision) => precision,
            Self::Auto if device.is_cpu() && has_tiles() => Precision::Bf16x3,
            Self::Auto => Precision::F32,
        }
    }
}

impl std::fmt::Display for PrecisionSetting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Fixed(precision) => precision.fmt(f),
        }
    }
}

impl FromStr for PrecisionSetting {
    type Err = Error;

    /// Reads `f32`, `bf16x3`, `bf16` or `auto`.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            _ => text.parse().map(Self::Fixed).map_err(|_| Error::Name {
                what: "precision",
                expected: "`f32`, `bf16x3`, `bf16` or `auto`",
                found: text.to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{DEPTH, Precision, PrecisionSetting, relative_error, sample};
    use crate::kernels::{Ending, Packed, Path, has_tiles};
    use candle_core::Device;

    #[test]
    fn errors_are_those_of_the_documentation_on_every_path() {
        let (x, weight) = sample();
        let precisions = [Precision::F32, Precision::Bf16x3, Precision::Bf16];
        for path in Path::all() {
            let errors = precisions.map(|precision| {
                let packed = Packed::transposed(path, precision, &weight, DEPTH);
                relative_error(&packed.multiply(&x, Ending::Store), &x, &weight)
            });
            if path == Path::best() {
                assert_eq!(errors, precisions.map(|precision| precision.error(&Device::Cpu).unwrap()));
            }
            assert!((1e-8..6e-7).contains(&errors[0]), "{path:?}: {errors:?}");
            assert!((3e-6..7e-6).contains(&errors[1]), "{path:?}: {errors:?}");
            assert!((1.5e-3..3e-3).contains(&errors[2]), "{path:?}: {errors:?}");
        }
    }

    #[test]
    fn names_are_read_and_written() {
        for text in ["f32", "bf16x3", "bf16", "auto"] {
            assert_eq!(text.parse::<PrecisionSetting>().unwrap().to_string(), text);
        }
        let message = "fp16".parse::<PrecisionSetting>().unwrap_err().to_string();
        assert!(message.contains("`fp16`") && message.contains("`auto`"), "{message}");
        assert!("auto".parse::<Precision>().is_err());
    }

    #[test]
    fn auto_is_three_products_only_where_there_are_tiles() {
        // Of whoever runs this on a processor that has them, or plays it (tests/emulated-amx).
        let expected = std::env::var_os("VITAD_EXPECT_TILES").is_some();
        assert!(has_tiles() || !expected, "this process may not use tiles");
        let wanted = if has_tiles() { Precision::Bf16x3 } else { Precision::F32 };
        assert_eq!(PrecisionSetting::Auto.resolve(&Device::Cpu), wanted);
        assert_eq!(PrecisionSetting::Fixed(Precision::Bf16).resolve(&Device::Cpu), Precision::Bf16);
        assert_eq!(PrecisionSetting::default().resolve(&Device::Cpu), Precision::F32);
    }
}
