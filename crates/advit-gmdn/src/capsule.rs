//! The "digit capsule": the reconstruction vector.

use candle_core::{D, Tensor};
use vit_ops::{Linear, safe_sqrt};

use crate::Error;
use crate::error::shape;

/// `squash(sum_i W_i x_i)` over all capsules of an image.
///
/// The reference routes between capsules in three rounds, but has one output capsule only: its softmax over output
/// capsules is 1, and choosing the longest one chooses the only one. What is left is this.
#[derive(Debug)]
pub(crate) struct Capsule {
    /// All `W_i` side by side, `(out, capsules * in)`.
    layer: Linear,
    capsules: usize,
    inputs: usize,
}

impl Capsule {
    /// Of `weight` `(1, capsules, out, in)`.
    pub(crate) fn new(weight: &Tensor) -> Result<Self, Error> {
        let Ok((1, capsules, outputs, inputs)) = weight.dims4() else {
            return Err(shape("Digcap.W", "(1, capsules, out, in)", weight.dims()));
        };
        let side_by_side = weight.squeeze(0)?.transpose(0, 1)?.reshape((outputs, capsules * inputs))?;
        Ok(Self { layer: Linear::new(side_by_side, None)?, capsules, inputs })
    }

    /// Of `x` `(B, capsules, in)`, or tokens `(B, n, D)` of as many numbers: `(B, 1, out)`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        let (batch, first, second) = x.dims3()?;
        if first * second != self.capsules * self.inputs {
            let expected = format!("(B, {}, {}) or as many numbers", self.capsules, self.inputs);
            return Err(shape("capsules", expected, x.dims()));
        }
        let sums = self.layer.forward(&x.reshape((batch, first * second))?)?;
        squash(&sums.unsqueeze(1)?)
    }
}

/// `|s| / (1 + |s|^2) s` along the last axis; 0 at 0, where the reference divides 0 by 0.
fn squash(s: &Tensor) -> Result<Tensor, Error> {
    let square = s.sqr()?.sum_keepdim(D::Minus1)?;
    let factor = (safe_sqrt(&square)? / (square + 1.0)?)?;
    Ok(s.broadcast_mul(&factor)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::{Device, Var};

    use super::squash;

    #[test]
    fn long_vectors_come_near_to_one_and_zero_stays_zero() {
        let s = Var::new(&[[3_f64, 4.0], [0.0, 0.0]], &Device::Cpu).unwrap();
        let v = squash(&s).unwrap();
        let found = v.to_vec2::<f64>().unwrap();
        assert!((found[0][0] - 15.0 / 26.0).abs() < 1e-12 && (found[0][1] - 20.0 / 26.0).abs() < 1e-12);
        assert_eq!(found[1], [0.0, 0.0]);
        let store = v.sum_all().unwrap().backward().unwrap();
        let gradient = store.get(&s).unwrap().to_vec2::<f64>().unwrap();
        assert!(gradient.iter().flatten().all(|g| g.is_finite()));
    }
}
