//! Rotary positions of `DINOv3`.

use candle_core::{D, Device, Tensor};

use crate::Error;

/// Rotary positions for one grid of patches behind a number of prefix tokens, which are not turned.
///
/// With `f_j = base^(-4j/d)`, `j < d/4`, and the patch centres `y = 2(r + 0.5)/rows - 1`, `x` alike, the angles of a
/// patch are `[2πyf, 2πxf]` twice over; a query or key `u` becomes `u cos + [-u_high, u_low] sin`.
#[derive(Debug, Clone)]
pub struct Rope {
    /// `(N, d)`, ones for the prefix.
    cos: Tensor,
    /// `(N, d)`, zeros for the prefix.
    sin: Tensor,
    prefix: usize,
}

impl Rope {
    /// Angles for heads of `head_dim` channels (a multiple of 4).
    ///
    /// # Errors
    /// If the tensors cannot be made on `device`.
    pub fn new(
        (rows, columns): (usize, usize),
        prefix: usize,
        head_dim: usize,
        base: f64,
        device: &Device,
    ) -> Result<Self, Error> {
        let quarter = head_dim / 4;
        let tokens = prefix + rows * columns;
        let mut cos = vec![1.0_f32; tokens * head_dim];
        let mut sin = vec![0.0_f32; tokens * head_dim];
        let frequency = |j: usize| base.powf(-(j as f64) / quarter as f64);
        let centre = |i: usize, count: usize| 2.0 * (i as f64 + 0.5) / count as f64 - 1.0;
        for patch in 0..rows * columns {
            let at = [centre(patch / columns, rows), centre(patch % columns, columns)];
            let row = (prefix + patch) * head_dim;
            for channel in 0..4 * quarter {
                let angle = std::f64::consts::TAU * at[channel / quarter % 2] * frequency(channel % quarter);
                cos[row + channel] = angle.cos() as f32;
                sin[row + channel] = angle.sin() as f32;
            }
        }
        let shape = (tokens, head_dim);
        Ok(Self {
            cos: Tensor::from_vec(cos, shape, device)?,
            sin: Tensor::from_vec(sin, shape, device)?,
            prefix,
        })
    }

    /// `x` `(B, heads, N, d)` with each patch turned by its angles.
    ///
    /// # Errors
    /// If `x` has another number of tokens or channels.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor, Error> {
        let half = x.dim(D::Minus1)? / 2;
        let turned = Tensor::cat(
            &[&x.narrow(D::Minus1, half, half)?.neg()?, &x.narrow(D::Minus1, 0, half)?],
            D::Minus1,
        )?;
        Ok((x.broadcast_mul(&self.cos)? + turned.broadcast_mul(&self.sin)?)?)
    }

    /// The queries and keys of a packed tensor `(B, N, 3 * heads * d)` turned; its values stay as they are.
    ///
    /// # Errors
    /// If `qkv` has another number of tokens or channels.
    pub fn apply_packed(&self, qkv: &Tensor, heads: usize) -> Result<Tensor, Error> {
        Ok(vit_ops::rotate_packed(qkv, heads, &self.cos, &self.sin)?)
    }

    /// Sines, then cosines of the patches, `(patches, 2d)`, as timm keeps them.
    ///
    /// # Errors
    /// If the tensors cannot be joined.
    pub fn sin_cos(&self) -> Result<Tensor, Error> {
        let patches = self.cos.dim(0)? - self.prefix;
        let part = |t: &Tensor| t.narrow(0, self.prefix, patches);
        Ok(Tensor::cat(&[&part(&self.sin)?, &part(&self.cos)?], 1)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_prefix_is_untouched_and_lengths_are_kept() {
        let rope = Rope::new((3, 2), 5, 8, 100.0, &Device::Cpu).unwrap();
        let x =
            Tensor::arange(0.0_f32, 2.0 * 11.0 * 8.0, &Device::Cpu).unwrap().reshape((1, 2, 11, 8)).unwrap();
        let y = rope.apply(&x).unwrap();
        let rows = |t: &Tensor| t.flatten_to(2).unwrap().to_vec2::<f32>().unwrap();
        for (i, (before, after)) in rows(&x).iter().zip(rows(&y)).enumerate() {
            let length = |v: &[f32]| v.iter().map(|v| v * v).sum::<f32>();
            assert!((length(before) / length(&after) - 1.0).abs() < 1e-5 || i == 0);
            assert_eq!(i % 11 < 5, *before == after, "token {i}");
        }
    }

    #[test]
    fn packed_queries_and_keys_turn_alike() {
        let rope = Rope::new((3, 2), 1, 8, 100.0, &Device::Cpu).unwrap();
        let packed = Tensor::arange(0.0_f32, 2.0 * 7.0 * 48.0, &Device::Cpu).unwrap();
        let packed = (packed.reshape((2, 7, 48)).unwrap() * 0.01).unwrap();
        let part = |t: &Tensor, i: usize| {
            let t = t.reshape((2, 7, 3, 2, 8)).unwrap().narrow(2, i, 1).unwrap().squeeze(2).unwrap();
            t.transpose(1, 2).unwrap()
        };
        let turned = rope.apply_packed(&packed, 2).unwrap();
        for i in 0..3 {
            let before = part(&packed, i);
            let wanted = if i < 2 { rope.apply(&before).unwrap() } else { before };
            let off = (part(&turned, i) - wanted).unwrap().abs().unwrap();
            assert!(off.max_all().unwrap().to_scalar::<f32>().unwrap() < 1e-5, "part {i}");
        }
    }

    #[test]
    fn products_depend_on_the_distance_alone() {
        // One query and one key everywhere: their product at patches (0,0)-(1,1) and (1,1)-(2,2) of a 4x4 grid agree.
        let rope = Rope::new((4, 4), 1, 8, 100.0, &Device::Cpu).unwrap();
        let same = |seed: f32| {
            let row: Vec<f32> = (0..8).map(|i| (seed + i as f32).sin()).collect();
            Tensor::new(row, &Device::Cpu).unwrap().broadcast_as((1, 1, 17, 8)).unwrap()
        };
        let (q, k) = (rope.apply(&same(0.3)).unwrap(), rope.apply(&same(1.7)).unwrap());
        let products = q.contiguous().unwrap().matmul(&k.t().unwrap().contiguous().unwrap()).unwrap();
        let products = products.squeeze(0).unwrap().squeeze(0).unwrap().to_vec2::<f32>().unwrap();
        let at = |row: usize, column: usize| 1 + 4 * row + column;
        assert!((products[at(0, 0)][at(1, 1)] - products[at(1, 1)][at(2, 2)]).abs() < 1e-5);
        assert!((products[at(0, 0)][at(1, 1)] - products[at(0, 0)][at(1, 2)]).abs() > 1e-3);
    }
}
