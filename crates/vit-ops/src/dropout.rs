use candle_core::{DType, Tensor};
use random_streams::Stream;

use crate::attention::Kept;
use crate::{Error, Result};

/// Where the masks of a [`Dropout`] come from.
#[derive(Debug)]
pub enum DropoutMasks<'a> {
    /// Drawn on the host, so that they are the same on every device.
    Stream(&'a mut Stream),
    /// Given: 1 keeps an entry, 0 drops it; the shape of what they are applied to.
    Given(&'a Tensor),
}

/// Inverted dropout for one call of one operation: kept entries are divided by `1 - rate`.
/// (Srivastava et al. 2014.) Inference passes none at all.
#[derive(Debug)]
pub struct Dropout<'a> {
    /// The probability of an entry to be dropped, in `[0, 1)`.
    pub rate: f64,
    /// The masks, not rescaled.
    pub stream: DropoutMasks<'a>,
}

impl<'a> Dropout<'a> {
    /// Dropout at `rate` with masks drawn from `stream`.
    pub fn drawn(rate: f64, stream: &'a mut Stream) -> Self {
        Self { rate, stream: DropoutMasks::Stream(stream) }
    }

    /// Dropout at `rate` with the mask given (1 = kept), of the shape of what it will be applied to.
    pub fn given(rate: f64, mask: &'a Tensor) -> Self {
        Self { rate, stream: DropoutMasks::Given(mask) }
    }

    /// `x` with its dropped entries at zero and the kept ones divided by `1 - rate`. A rate of 0 draws nothing and
    /// returns `x`.
    ///
    /// # Errors
    ///
    /// If the rate is outside of `[0, 1)`, or a given mask has another shape than `x`.
    pub fn apply(&mut self, x: &Tensor) -> Result<Tensor> {
        self.check_rate()?;
        if self.rate == 0.0 {
            return Ok(x.clone());
        }
        let mask = match &mut self.stream {
            DropoutMasks::Stream(stream) => {
                Tensor::from_vec(stream.keep_mask(x.elem_count(), self.rate), x.shape(), x.device())?
            }
            DropoutMasks::Given(mask) if mask.shape() == x.shape() => (*mask).clone(),
            DropoutMasks::Given(mask) => {
                return Err(Error::shape("dropout", "mask", format!("{:?}", x.shape()), mask.shape()));
            }
        };
        let mask = (mask.to_dtype(x.dtype())? * (1.0 / (1.0 - self.rate)))?;
        Ok((x * mask)?)
    }

    /// What [`Dropout::apply`] would keep of a tensor `(B, H, N, M)`, from the same draws; `None` for all.
    pub(crate) fn kept(&mut self, shape: (usize, usize, usize, usize)) -> Result<Option<Kept>> {
        self.check_rate()?;
        if self.rate == 0.0 {
            return Ok(None);
        }
        let (rate, factor) = (self.rate, 1.0 / (1.0 - self.rate));
        let (rows, width) = (shape.0 * shape.1 * shape.2, shape.3);
        Ok(Some(match &mut self.stream {
            DropoutMasks::Stream(stream) => {
                Kept::new(rows, width, factor, |count| stream.keep_mask(count, rate))
            }
            DropoutMasks::Given(mask) if mask.dims() == <[usize; 4]>::from(shape) => {
                let all = mask.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
                let mut lines = all.chunks(width.max(1));
                Kept::new(rows, width, factor, |_| lines.next().map(<[f32]>::to_vec).unwrap_or_default())
            }
            DropoutMasks::Given(mask) => {
                return Err(Error::shape("dropout", "mask", format!("{shape:?}"), mask.shape()));
            }
        }))
    }

    fn check_rate(&self) -> Result<()> {
        if (0.0..1.0).contains(&self.rate) {
            return Ok(());
        }
        let (argument, expected) = ("rate", "in [0, 1)");
        Err(Error::Range { operation: "dropout", argument, expected, found: self.rate })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::Dropout;
    use crate::gradient_check::{check_gradients, normal};
    use candle_core::{Device, Tensor};
    use random_streams::Streams;

    #[test]
    fn kept_entries_are_rescaled_and_carry_the_gradient() {
        let mask = Tensor::new(&[[1_f64, 0., 1.], [0., 1., 1.]], &Device::Cpu).unwrap();
        let x = Tensor::new(&[[3_f64, 3., 3.], [6., 6., 6.]], &Device::Cpu).unwrap();
        let y = Dropout::given(0.25, &mask).apply(&x).unwrap().to_vec2::<f64>().unwrap();
        assert_eq!(y, [[4., 0., 4.], [0., 8., 8.]]);
        check_gradients(&[normal(&[2, 3], 0)], |t| Dropout::given(0.25, &mask).apply(&t[0]));
    }

    #[test]
    fn a_stream_gives_the_same_masks_again() {
        let x = normal(&[4, 50], 1);
        let draw = || {
            let mut stream = Streams::new(0).stream("dropout");
            Dropout::drawn(0.5, &mut stream).apply(&x).unwrap().to_vec2::<f64>().unwrap()
        };
        assert_eq!(draw(), draw());
        let zeros = draw().iter().flatten().filter(|v| **v == 0.0).count();
        assert!((60..140).contains(&zeros), "{zeros}");
    }

    #[test]
    fn no_rate_draws_nothing_and_bad_rates_are_refused() {
        let x = normal(&[4], 1);
        let mut stream = Streams::new(0).stream("dropout");
        let before = stream.position();
        Dropout::drawn(0.0, &mut stream).apply(&x).unwrap();
        assert_eq!(stream.position(), before);
        assert!(Dropout::drawn(1.0, &mut stream).apply(&x).is_err());
        assert!(Dropout::drawn(f64::NAN, &mut stream).apply(&x).is_err());
        assert!(Dropout::given(0.5, &normal(&[5], 0)).apply(&x).is_err());
    }
}
