use candle_core::{D, Tensor};

use crate::rows::add_row;
use crate::{Error, Gelu, Result, add_residual, bias_gelu, gelu};

/// A linear layer: `x W^T + b`.
///
/// A frozen layer (weight without a graph) keeps its weight once, in the layout `(in, out)` that the matrix product
/// reads without repacking. A trainable one (weight of a `Var`, or computed from one) keeps the tensor it was given, so that gradients
/// reach the `Var`.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Weight,
    bias: Option<Tensor>,
    inputs: usize,
    outputs: usize,
}

#[derive(Debug, Clone)]
enum Weight {
    /// `(in, out)`, contiguous.
    Frozen(Tensor),
    /// `(out, in)`, as given.
    Tracked(Tensor),
}

impl Linear {
    /// A layer of `weight` `(out, in)` and `bias` `(out,)`.
    ///
    /// # Errors
    ///
    /// If the shapes are not these.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Result<Self> {
        let Ok((outputs, inputs)) = weight.dims2() else {
            return Err(Error::shape("linear", "weight", "(out, in)", weight.shape()));
        };
        if let Some(bias) = &bias
            && bias.dims() != [outputs]
        {
            return Err(Error::shape("linear", "bias", format!("({outputs},)"), bias.shape()));
        }
        let weight = if weight.track_op() {
            Weight::Tracked(weight)
        } else {
            Weight::Frozen(weight.t()?.contiguous()?)
        };
        Ok(Self { weight, bias, inputs, outputs })
    }

    /// The layer applied to `x` `(.., in)`: `(.., out)`.
    ///
    /// # Errors
    ///
    /// If the last axis of `x` has another length than `in`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let product = self.forward_without_bias(x)?;
        Ok(match &self.bias {
            Some(bias) => add_row("linear", &product, bias)?,
            None => product,
        })
    }

    /// `x W^T` alone, for callers that add the bias in a later operation ([`bias_gelu`](crate::bias_gelu),
    /// [`add_residual`](crate::add_residual)).
    ///
    /// # Errors
    ///
    /// If the last axis of `x` has another length than `in`.
    pub fn forward_without_bias(&self, x: &Tensor) -> Result<Tensor> {
        let found = x.dim(D::Minus1)?;
        if found != self.inputs {
            return Err(Error::shape("linear", "x", format!("(.., {})", self.inputs), x.shape()));
        }
        // All rows in one product: candle would otherwise do one small product per image.
        let rows = x.elem_count() / self.inputs.max(1);
        let flat = x.reshape((rows, self.inputs))?;
        let product = match &self.weight {
            Weight::Frozen(weight) => flat.matmul(weight)?,
            Weight::Tracked(weight) => flat.matmul(&weight.t()?)?,
        };
        let mut dims = x.dims().to_vec();
        if let Some(last) = dims.last_mut() {
            *last = self.outputs;
        }
        Ok(product.reshape(dims)?)
    }

    /// GELU of the layer applied to `x` `(.., in)`: `(.., out)`.
    ///
    /// # Errors
    ///
    /// If the last axis of `x` has another length than `in`.
    pub fn forward_gelu(&self, x: &Tensor, form: Gelu) -> Result<Tensor> {
        let product = self.forward_without_bias(x)?;
        match &self.bias {
            Some(bias) => bias_gelu(&product, bias, form),
            None => gelu(&product, form),
        }
    }

    /// The layer applied to `branch` `(.., in)`, times `scale` `(out,)` where there is one, added to `x` `(.., out)`.
    ///
    /// # Errors
    ///
    /// If the shapes are not these.
    pub fn forward_residual(&self, branch: &Tensor, x: &Tensor, scale: Option<&Tensor>) -> Result<Tensor> {
        let product = self.forward_without_bias(branch)?;
        add_residual(x, &product, self.bias.as_ref(), scale)
    }

    /// The weight, `(out, in)`; a view, strided if the layer is frozen.
    ///
    /// # Errors
    ///
    /// If the view cannot be made; not known to happen.
    pub fn weight(&self) -> Result<Tensor> {
        Ok(match &self.weight {
            Weight::Frozen(weight) => weight.t()?,
            Weight::Tracked(weight) => weight.clone(),
        })
    }

    /// The bias, `(out,)`, if the layer has one.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// The length of the input's last axis.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// The length of the output's last axis.
    pub fn outputs(&self) -> usize {
        self.outputs
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::Linear;
    use crate::gradient_check::{check_gradients, normal, same};
    use candle_core::Var;

    #[test]
    fn gradients_are_right() {
        check_gradients(&[normal(&[2, 3, 4], 0), normal(&[5, 4], 1), normal(&[5], 2)], |t| {
            Linear::new(t[1].clone(), Some(t[2].clone()))?.forward(&t[0])
        });
    }

    #[test]
    fn frozen_weights_pass_the_gradient_on() {
        let layer = Linear::new(normal(&[5, 4], 1), Some(normal(&[5], 2))).unwrap();
        check_gradients(&[normal(&[4, 3, 2], 0)], |t| layer.forward(&t[0].transpose(0, 2)?));
    }

    #[test]
    fn frozen_and_trainable_agree() {
        let (x, w, b) = (normal(&[2, 3, 4], 0), normal(&[5, 4], 1), normal(&[5], 2));
        let frozen = Linear::new(w.clone(), Some(b.clone())).unwrap();
        let var = Var::from_tensor(&w).unwrap();
        let trainable = Linear::new(var.as_tensor().clone(), Some(b)).unwrap();
        same(&frozen.forward(&x).unwrap(), &trainable.forward(&x).unwrap(), 1e-12);
        same(&frozen.weight().unwrap(), &w, 0.0);
        assert!(!frozen.forward(&x).unwrap().track_op());
    }

    #[test]
    fn wrong_shapes_are_named() {
        let layer = Linear::new(normal(&[5, 4], 1), None).unwrap();
        assert!(layer.forward(&normal(&[2, 5], 0)).unwrap_err().to_string().contains("(.., 4)"));
        let bias = Some(normal(&[4], 0));
        assert!(Linear::new(normal(&[5, 4], 1), bias).unwrap_err().to_string().contains("bias"));
        assert!(Linear::new(normal(&[5], 1), None).unwrap_err().to_string().contains("(out, in)"));
    }
}
