//! A fixed linear map along one axis, `new x old`, applied to the last two axes of a tensor.

use candle_core::Tensor;

use crate::Result;

/// Row-major weights: `weights[o * inputs + i]` is what input `i` adds to output `o`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AxisMap {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    weights: Vec<f64>,
}

impl AxisMap {
    pub(crate) fn zeros(inputs: usize, outputs: usize) -> Self {
        Self { inputs, outputs, weights: vec![0.0; inputs * outputs] }
    }

    pub(crate) fn add(&mut self, output: usize, input: usize, weight: f64) {
        self.weights[output * self.inputs + input] += weight;
    }

    fn is_identity(&self) -> bool {
        self.inputs == self.outputs
            && self
                .weights
                .iter()
                .enumerate()
                .all(|(i, &w)| w == if i / self.inputs == i % self.inputs { 1.0 } else { 0.0 })
    }

    /// Along the last axis of `x` `(P, n, inputs)`: `(P, n, outputs)`.
    fn along_last(&self, x: &Tensor) -> Result<Tensor> {
        if self.is_identity() {
            return Ok(x.clone());
        }
        let (p, n, _) = x.dims3()?;
        let matrix = self.matrix(x)?.t()?;
        Ok(x.reshape((p * n, self.inputs))?.matmul(&matrix)?.reshape((p, n, self.outputs))?)
    }

    /// Along the axis before the last of `x` `(P, inputs, n)`: `(P, outputs, n)`. One product a plane: to transpose them
    /// there and back takes many times as long.
    fn along_rows(&self, x: &Tensor) -> Result<Tensor> {
        if self.is_identity() {
            return Ok(x.clone());
        }
        let (p, _, _) = x.dims3()?;
        let matrix = self.matrix(x)?.broadcast_as((p, self.outputs, self.inputs))?;
        Ok(matrix.matmul(&x.contiguous()?)?)
    }

    /// `(outputs, inputs)`, for tensors like `x`.
    fn matrix(&self, x: &Tensor) -> Result<Tensor> {
        let matrix = Tensor::from_slice(&self.weights, (self.outputs, self.inputs), x.device())?;
        Ok(matrix.to_dtype(x.dtype())?)
    }
}

/// `rows` along the axis before the last and `columns` along the last of `x` `(.., rows.inputs, columns.inputs)`.
pub(crate) fn apply(rows: &AxisMap, columns: &AxisMap, x: &Tensor) -> Result<Tensor> {
    let dims = x.dims();
    let leading = &dims[..dims.len() - 2];
    let flat = x.reshape((leading.iter().product::<usize>(), rows.inputs, columns.inputs))?;
    let done = rows.along_rows(&columns.along_last(&flat)?)?;
    let mut shape = leading.to_vec();
    shape.extend([rows.outputs, columns.outputs]);
    Ok(done.reshape(shape)?)
}
