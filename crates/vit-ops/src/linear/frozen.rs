//! Products with a packed weight.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, Layout, Shape, Tensor, bail};

use crate::kernels::{Ending, Matrix, Packed, Path, product};
use crate::rows::slice;

/// `x W^T + bias`, through `map`. With a map it has no gradient: callers take it where none is asked for.
pub(super) struct Frozen {
    pub(super) weight: Arc<Packed>,
    pub(super) bias: Option<Arc<[f32]>>,
    pub(super) map: Option<fn(&mut [f32])>,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
}

/// The shape of `x` with another last axis.
pub(super) fn with_last(shape: &Shape, last: usize) -> Shape {
    let mut dims = shape.dims().to_vec();
    if let Some(axis) = dims.last_mut() {
        *axis = last;
    }
    Shape::from(dims)
}

impl CustomOp1 for Frozen {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let ending = Ending::Map { bias: self.bias.as_deref(), map: self.map };
        let out = self.weight.multiply(slice(x, layout)?, ending);
        Ok((CpuStorage::F32(out), with_last(layout.shape(), self.outputs)))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        if self.map.is_some() {
            bail!("a linear layer with a fused activation has no gradient");
        }
        let backward = Backward { weight: Arc::clone(&self.weight), inputs: self.inputs };
        gradient.contiguous()?.apply_op1_no_bwd(&backward).map(Some)
    }
}

/// The gradient of `x`: that of the result times the weight.
struct Backward {
    weight: Arc<Packed>,
    inputs: usize,
}

impl CustomOp1 for Backward {
    fn name(&self) -> &'static str {
        "linear_backward"
    }

    fn cpu_fwd(&self, gradient: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        // Unpacked for the moment: few networks ask for a gradient through frozen weights.
        let weight = self.weight.weight();
        let outputs = layout.shape().dim(D::Minus1)?;
        let left = Matrix::by_rows(slice(gradient, layout)?, outputs);
        let right = Matrix::by_rows(&weight, self.inputs);
        let out = product(Path::best(), self.weight.precision(), left, right);
        Ok((CpuStorage::F32(out), with_last(layout.shape(), self.inputs)))
    }
}

/// `x + scale (branch W^T + bias)`, without gradient.
pub(super) struct FrozenResidual {
    pub(super) layer: Frozen,
    pub(super) scale: Option<Vec<f32>>,
}

impl CustomOp2 for FrozenResidual {
    fn name(&self) -> &'static str {
        "linear_residual"
    }

    fn cpu_fwd(
        &self,
        branch: &CpuStorage,
        branch_layout: &Layout,
        x: &CpuStorage,
        x_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (bias, scale) = (self.layer.bias.as_deref(), self.scale.as_deref());
        let ending = Ending::Residual { bias, scale, x: slice(x, x_layout)? };
        let out = self.layer.weight.multiply(slice(branch, branch_layout)?, ending);
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }
}
