//! Batch norm over the rows of a matrix, with gradients.

use candle_core::{DType, Tensor};

use crate::Error;

/// Added to the variance; the share of a batch in the running statistics.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Options {
    pub(crate) eps: f64,
    pub(crate) momentum: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { eps: 1e-5, momentum: 0.1 }
    }
}

/// Means and variances `(H,)`, and of how many batches they come.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    pub(crate) mean: Tensor,
    pub(crate) variance: Tensor,
    pub(crate) batches: i64,
}

/// The column means of `x` `(rows, H)`: `(1, H)`. A product: a reduction along the first axis is slow in candle.
fn column_means(x: &Tensor) -> Result<Tensor, Error> {
    let rows = x.dim(0)?;
    let weights = Tensor::full(1.0 / rows as f32, (1, rows), x.device())?.to_dtype(x.dtype())?;
    Ok(weights.matmul(x)?)
}

/// `x` `(rows, H)` normalised by its own mean and biased variance, times `weight` plus `bias`, both `(H,)`; and
/// `running` a share of the way to that mean and to the unbiased variance.
pub(crate) fn by_batch(
    x: &Tensor,
    (weight, bias): (&Tensor, &Tensor),
    running: &mut Running,
    options: Options,
) -> Result<Tensor, Error> {
    let rows = x.dim(0)?;
    let mean = column_means(x)?;
    let centred = x.broadcast_sub(&mean)?;
    let variance = column_means(&centred.sqr()?)?;
    let unbiased = (variance.detach() * (rows as f64 / (rows.max(2) - 1) as f64))?;
    let moved = |old: &Tensor, new: &Tensor| -> Result<Tensor, Error> {
        let new = new.detach().squeeze(0)?.to_dtype(DType::F32)?;
        Ok(((old * (1.0 - options.momentum))? + (new * options.momentum)?)?)
    };
    *running = Running {
        mean: moved(&running.mean, &mean)?,
        variance: moved(&running.variance, &unbiased)?,
        batches: running.batches + 1,
    };
    let normed = centred.broadcast_div(&(variance + options.eps)?.sqrt()?)?;
    Ok(normed.broadcast_mul(weight)?.broadcast_add(bias)?)
}

/// The same by the running statistics: each row by itself.
pub(crate) fn by_running(
    x: &Tensor,
    (weight, bias): (&Tensor, &Tensor),
    running: &Running,
    options: Options,
) -> Result<Tensor, Error> {
    let scale = weight.div(&(&running.variance + options.eps)?.sqrt()?)?;
    let centred = x.broadcast_sub(&running.mean)?;
    Ok(centred.broadcast_mul(&scale)?.broadcast_add(bias)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::{Device, Tensor};

    use super::{Options, Running, by_batch, by_running};

    #[test]
    fn a_batch_is_brought_to_mean_0_and_variance_1_and_remembered() {
        let x = Tensor::new(&[[1_f32, 10.], [3., 10.], [5., 40.]], &Device::Cpu).unwrap();
        let ones = Tensor::ones(2, candle_core::DType::F32, &Device::Cpu).unwrap();
        let zeros = ones.zeros_like().unwrap();
        let mut running = Running { mean: zeros.clone(), variance: ones.clone(), batches: 4 };
        let normed = by_batch(&x, (&ones, &zeros), &mut running, Options::default()).unwrap();
        let columns = normed.t().unwrap().to_vec2::<f32>().unwrap();
        for column in &columns {
            let mean = column.iter().sum::<f32>() / 3.0;
            let variance = column.iter().map(|v| v * v).sum::<f32>() / 3.0;
            assert!(mean.abs() < 1e-6 && (variance - 1.0).abs() < 1e-4, "{column:?}");
        }
        assert_eq!(running.batches, 5);
        // Unbiased: 4 and 300; biased: 8/3 and 200.
        let near = |t: &Tensor, wanted: [f32; 2]| {
            let found = t.to_vec1::<f32>().unwrap();
            assert!(found.iter().zip(wanted).all(|(f, w)| (f - w).abs() < 1e-4), "{found:?}");
        };
        near(&running.mean, [0.3, 2.0]);
        near(&running.variance, [1.3, 30.9]);
        let alone = by_running(&x, (&ones, &zeros), &running, Options::default()).unwrap();
        near(&alone.get(0).unwrap(), [0.7 / 1.3_f32.sqrt(), 8.0 / 30.9_f32.sqrt()]);
    }
}
