//! First values of weights, drawn on the host from a named stream: the same on every device.
//!
//! All are f32.

use candle_core::{Device, Shape, Tensor};
use random_streams::Stream;

use crate::{Error, Result};

/// Uniform in `[low, high)`.
///
/// # Errors
///
/// If the tensor cannot be made.
pub fn uniform(
    shape: impl Into<Shape>,
    low: f64,
    high: f64,
    stream: &mut Stream,
    device: &Device,
) -> Result<Tensor> {
    drawn(shape, device, || (low + (high - low) * f64::from(stream.uniform())) as f32)
}

/// Normal with `mean` and standard deviation `std`.
///
/// # Errors
///
/// If the tensor cannot be made.
pub fn normal(
    shape: impl Into<Shape>,
    mean: f64,
    std: f64,
    stream: &mut Stream,
    device: &Device,
) -> Result<Tensor> {
    drawn(shape, device, || (mean + std * f64::from(stream.normal())) as f32)
}

/// Normal with `mean` and standard deviation `std` before the cut, drawn again until it lies in `[low, high]`.
///
/// # Errors
///
/// If less than about one draw in a thousand would be kept, or the tensor cannot be made.
pub fn truncated_normal(
    shape: impl Into<Shape>,
    (mean, std): (f64, f64),
    (low, high): (f64, f64),
    stream: &mut Stream,
    device: &Device,
) -> Result<Tensor> {
    // An interval narrower than this, or further out, would be drawn for ever.
    let (from, to) = ((low - mean) / std, (high - mean) / std);
    if !(std > 0.0 && to - from > 0.01 && from < 3.0 && to > -3.0) {
        return Err(Error::Range {
            operation: "truncated_normal",
            argument: "the interval's width in standard deviations",
            expected: "above 0.01 and within three of the mean",
            found: to - from,
        });
    }
    drawn(shape, device, || {
        loop {
            let value = mean + std * f64::from(stream.normal());
            if (low..=high).contains(&value) {
                return value as f32;
            }
        }
    })
}

/// Uniform within `sqrt(6 / (fan_in + fan_out))` of zero. (Glorot and Bengio 2010.)
///
/// # Errors
///
/// If both fans are 0, or the tensor cannot be made.
pub fn xavier_uniform(
    shape: impl Into<Shape>,
    (fan_in, fan_out): (usize, usize),
    stream: &mut Stream,
    device: &Device,
) -> Result<Tensor> {
    let bound = (6.0 / positive("fan_in + fan_out", fan_in + fan_out)?).sqrt();
    uniform(shape, -bound, bound, stream, device)
}

/// Normal with standard deviation `sqrt(2 / fan_in)`. (He et al. 2015, arXiv 1502.01852.)
///
/// # Errors
///
/// If the fan is 0, or the tensor cannot be made.
pub fn kaiming_normal(
    shape: impl Into<Shape>,
    fan_in: usize,
    stream: &mut Stream,
    device: &Device,
) -> Result<Tensor> {
    let std = (2.0 / positive("fan_in", fan_in)?).sqrt();
    normal(shape, 0.0, std, stream, device)
}

/// Uniform within `1 / sqrt(fan_in)` of zero: what `PyTorch` gives weights and biases of linear and convolution layers.
///
/// # Errors
///
/// If the fan is 0, or the tensor cannot be made.
pub fn fan_in_uniform(
    shape: impl Into<Shape>,
    fan_in: usize,
    stream: &mut Stream,
    device: &Device,
) -> Result<Tensor> {
    let bound = 1.0 / positive("fan_in", fan_in)?.sqrt();
    uniform(shape, -bound, bound, stream, device)
}

/// Weight `(outputs, inputs)` and bias `(outputs,)` of a linear layer as `PyTorch` makes them: both
/// [`fan_in_uniform`], the weight drawn first.
///
/// # Errors
///
/// If `inputs` is 0, or the tensors cannot be made.
pub fn torch_linear(
    outputs: usize,
    inputs: usize,
    stream: &mut Stream,
    device: &Device,
) -> Result<(Tensor, Tensor)> {
    let weight = fan_in_uniform((outputs, inputs), inputs, stream, device)?;
    Ok((weight, fan_in_uniform(outputs, inputs, stream, device)?))
}

fn drawn(shape: impl Into<Shape>, device: &Device, mut draw: impl FnMut() -> f32) -> Result<Tensor> {
    let shape = shape.into();
    let values: Vec<f32> = (0..shape.elem_count()).map(|_| draw()).collect();
    Ok(Tensor::from_vec(values, shape, device)?)
}

fn positive(argument: &'static str, fan: usize) -> Result<f64> {
    if fan == 0 {
        return Err(Error::Range { operation: "init", argument, expected: "above 0", found: 0.0 });
    }
    Ok(fan as f64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{kaiming_normal, normal, torch_linear, truncated_normal, uniform, xavier_uniform};
    use crate::gradient_check::values;
    use candle_core::{Device, Tensor};
    use random_streams::Streams;

    fn moments(t: &Tensor) -> (f64, f64, f64) {
        let v = values(t);
        let mean = v.iter().sum::<f64>() / v.len() as f64;
        let variance = v.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / v.len() as f64;
        (mean, variance.sqrt(), v.iter().fold(0.0, |a, x| x.abs().max(a)))
    }

    #[test]
    fn spreads_are_right() {
        let mut stream = Streams::new(0).stream("init");
        let cpu = &Device::Cpu;
        // A uniform of bound b has the standard deviation b / sqrt(3).
        let (_, std, most) = moments(&xavier_uniform((100, 200), (200, 100), &mut stream, cpu).unwrap());
        let bound = (6.0_f64 / 300.0).sqrt();
        assert!(most <= bound && (std - bound / 3_f64.sqrt()).abs() < 2e-3, "{std} {most}");
        let (mean, std, _) = moments(&normal((100, 200), 3.0, 2.0, &mut stream, cpu).unwrap());
        assert!((mean - 3.0).abs() < 0.07 && (std - 2.0).abs() < 0.05, "{mean} {std}");
        let (_, std, _) = moments(&kaiming_normal((100, 200), 200, &mut stream, cpu).unwrap());
        assert!((std - 0.1).abs() < 2.5e-3, "{std}");
        let (_, _, most) =
            moments(&truncated_normal(20_000, (0.0, 1.0), (-0.5, 0.5), &mut stream, cpu).unwrap());
        assert!(most <= 0.5 && most > 0.49, "{most}");
        let (mean, _, _) = moments(&uniform(20_000, 1.0, 3.0, &mut stream, cpu).unwrap());
        assert!((mean - 2.0).abs() < 0.02, "{mean}");
        let (weight, bias) = torch_linear(50, 16, &mut stream, cpu).unwrap();
        assert_eq!((weight.dims(), bias.dims()), (&[50, 16][..], &[50][..]));
        assert!(moments(&weight).2 <= 0.25 && moments(&bias).2 <= 0.25);
    }

    #[test]
    fn one_stream_gives_one_tensor() {
        let draw = || {
            let mut stream = Streams::new(9).stream("init");
            values(&normal((3, 4), 0.0, 1.0, &mut stream, &Device::Cpu).unwrap())
        };
        assert_eq!(draw(), draw());
    }

    #[test]
    fn impossible_wishes_are_refused() {
        let mut stream = Streams::new(0).stream("init");
        assert!(xavier_uniform((0, 0), (0, 0), &mut stream, &Device::Cpu).is_err());
        assert!(truncated_normal(4, (0.0, 1.0), (9.0, 10.0), &mut stream, &Device::Cpu).is_err());
        assert!(truncated_normal(4, (0.0, 0.0), (-1.0, 1.0), &mut stream, &Device::Cpu).is_err());
    }
}
