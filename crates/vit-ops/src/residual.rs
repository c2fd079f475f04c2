use candle_core::Tensor;

use crate::Result;
use crate::rows::add_row;

/// `x + scale * (branch + bias)`: the end of a block's half, with its linear layer's bias and `LayerScale` vector
/// (Touvron et al. 2021, arXiv 2103.17239) where it has them.
///
/// `x` and `branch` are `(.., D)`, `bias` and `scale` are `(D,)`.
///
/// # Errors
///
/// If the shapes don't fit.
pub fn add_residual(
    x: &Tensor,
    branch: &Tensor,
    bias: Option<&Tensor>,
    scale: Option<&Tensor>,
) -> Result<Tensor> {
    let biased = match bias {
        Some(bias) => &add_row("add_residual", branch, bias)?,
        None => branch,
    };
    let scaled = match scale {
        Some(scale) => &biased.broadcast_mul(scale)?,
        None => biased,
    };
    Ok((x + scaled)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::add_residual;
    use crate::gradient_check::{check_gradients, normal};
    use candle_core::{Device, Tensor};

    #[test]
    fn the_formula_holds() {
        let t = |v: &[f64]| Tensor::new(v, &Device::Cpu).unwrap();
        let (x, branch, bias, scale) = (t(&[1., 2.]), t(&[3., 4.]), t(&[10., 20.]), t(&[2., 0.5]));
        let value = |b, s| add_residual(&x, &branch, b, s).unwrap().to_vec1::<f64>().unwrap();
        assert_eq!(value(None, None), [4., 6.]);
        assert_eq!(value(Some(&bias), None), [14., 26.]);
        assert_eq!(value(None, Some(&scale)), [7., 4.]);
        assert_eq!(value(Some(&bias), Some(&scale)), [27., 14.]);
    }

    #[test]
    fn gradients_are_right() {
        let inputs = [normal(&[2, 3, 4], 0), normal(&[2, 3, 4], 1), normal(&[4], 2), normal(&[4], 3)];
        check_gradients(&inputs, |t| add_residual(&t[0], &t[1], Some(&t[2]), Some(&t[3])));
    }
}
