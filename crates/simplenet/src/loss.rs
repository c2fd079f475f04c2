//! What the discriminator is trained by.

use candle_core::Tensor;

use crate::Error;

/// How far from 0 the discriminator's outputs should at least be.
const MARGIN: f64 = 0.5;

/// The mean of `max(0, true + 0.5)` plus the mean of `max(0, 0.5 - fake)`: features as they are should come out below
/// -0.5, those with noise above 0.5. Both `(rows,)`; a scalar with a graph.
pub(crate) fn loss(real: &Tensor, fake: &Tensor) -> Result<Tensor, Error> {
    let below = vit_ops::relu(&(real + MARGIN)?)?.mean_all()?;
    let above = vit_ops::relu(&(fake.neg()? + MARGIN)?)?.mean_all()?;
    Ok((below + above)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::{Device, Tensor};

    use super::loss;

    #[test]
    fn outputs_beyond_the_margin_cost_nothing() {
        let of = |values: [f32; 2]| Tensor::new(&values, &Device::Cpu).unwrap();
        let value = |real, fake| loss(&of(real), &of(fake)).unwrap().to_scalar::<f32>().unwrap();
        assert_eq!(value([-0.5, -3.0], [0.5, 9.0]), 0.0);
        assert_eq!(value([0.5, -0.5], [-0.5, 0.5]), 1.0);
    }
}
