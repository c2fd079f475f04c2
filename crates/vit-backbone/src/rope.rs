//! Rotary positions of `DINOv3` and EVA-02.

use candle_core::{D, Device, Tensor};

use crate::Error;

/// Rotary positions for one grid of patches behind a number of prefix tokens, which are not turned.
///
/// With `f_j = base^(-4j/d)`, `j < d/4`, and the patch centres `y = 2(r + 0.5)/rows - 1`, `x` alike, the angles of a
/// patch are `[2πyf, 2πxf]` twice over; a query or key `u` becomes `u cos + [-u_high, u_low] sin` (`DINOv3`,
/// [`Rope::new`]).
///
/// Or with whole patches as the unit, `y = r reference/rows`, `x` alike, the angles are `[yf, xf]`, and each turns two
/// neighbouring channels (EVA-02, [`Rope::of_neighbours`]).
#[derive(Debug, Clone)]
pub struct Rope {
    /// `(N, d)`, ones for the prefix.
    cos: Tensor,
    /// `(N, d)`, zeros for the prefix.
    sin: Tensor,
    prefix: usize,
    neighbours: Option<Neighbours>,
}

/// Where neighbouring channels are turned: the same as turning halves after the channels `0 2 4 … 1 3 5 …` of each head
/// were put in that order.
#[derive(Debug, Clone)]
struct Neighbours {
    /// Channels of a head in the order of halves, `(d,)`.
    to_halves: Tensor,
    /// Back, `(d,)`.
    from_halves: Tensor,
    /// Channels of a packed tensor with queries and keys in the order of halves, `(3 H d,)`.
    packed: Tensor,
}

/// A prefix that stays, then what `angle` gives for row, column, and channel below `head_dim`: cosines and sines.
fn turns(
    (rows, columns): (usize, usize),
    prefix: usize,
    head_dim: usize,
    device: &Device,
    angle: impl Fn([usize; 2], usize) -> f64,
) -> Result<[Tensor; 2], Error> {
    let tokens = prefix + rows * columns;
    let mut cos = vec![1.0_f32; tokens * head_dim];
    let mut sin = vec![0.0_f32; tokens * head_dim];
    for patch in 0..rows * columns {
        let start = (prefix + patch) * head_dim;
        for channel in 0..head_dim / 4 * 4 {
            let angle = angle([patch / columns, patch % columns], channel);
            cos[start + channel] = angle.cos() as f32;
            sin[start + channel] = angle.sin() as f32;
        }
    }
    let shape = (tokens, head_dim);
    Ok([Tensor::from_vec(cos, shape, device)?, Tensor::from_vec(sin, shape, device)?])
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
        let (quarter, counts) = (head_dim / 4, [rows, columns]);
        let [cos, sin] = turns((rows, columns), prefix, head_dim, device, |place, channel| {
            let axis = channel / quarter % 2;
            let centre = 2.0 * (place[axis] as f64 + 0.5) / counts[axis] as f64 - 1.0;
            std::f64::consts::TAU * centre * base.powf(-((channel % quarter) as f64) / quarter as f64)
        })?;
        Ok(Self { cos, sin, prefix, neighbours: None })
    }

    /// Angles that turn neighbouring channels, for `heads` heads of `head_dim` channels (a multiple of 4), counted in
    /// patches of a square grid of `reference` rows, whatever the image's own grid.
    ///
    /// # Errors
    /// If the tensors cannot be made on `device`.
    pub fn of_neighbours(
        (rows, columns): (usize, usize),
        reference: usize,
        prefix: usize,
        (heads, head_dim): (usize, usize),
        base: f64,
        device: &Device,
    ) -> Result<Self, Error> {
        let (quarter, counts) = (head_dim / 4, [rows, columns]);
        // In the order of halves, channel j of either half is turned by the angle of pair j.
        let [cos, sin] = turns((rows, columns), prefix, head_dim, device, |place, channel| {
            let axis = channel / quarter % 2;
            let at = place[axis] as f64 * reference as f64 / counts[axis] as f64;
            at * base.powf(-((channel % quarter) as f64) / quarter as f64)
        })?;
        let half = head_dim / 2;
        let to_halves = |channel: usize| channel % half * 2 + channel / half;
        let from_halves = |channel: usize| channel % 2 * half + channel / 2;
        let packed = |channel: usize| {
            let (head, within) = (channel / head_dim, channel % head_dim);
            if head < 2 * heads { head * head_dim + to_halves(within) } else { channel }
        };
        let index = |count: usize, order: &dyn Fn(usize) -> usize| {
            Tensor::new((0..count).map(|channel| order(channel) as u32).collect::<Vec<_>>(), device)
        };
        let neighbours = Neighbours {
            to_halves: index(head_dim, &to_halves)?,
            from_halves: index(head_dim, &from_halves)?,
            packed: index(3 * heads * head_dim, &packed)?,
        };
        Ok(Self { cos, sin, prefix, neighbours: Some(neighbours) })
    }

    /// `x` `(B, heads, N, d)` with each patch turned by its angles.
    ///
    /// # Errors
    /// If `x` has another number of tokens or channels.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor, Error> {
        if !x.dims().ends_with(self.cos.dims()) {
            let (tokens, channels) = self.cos.dims2()?;
            return Err(Error::Input {
                what: "queries or keys",
                expected: format!("(B, heads, {tokens}, {channels})"),
                found: format!("{:?}", x.dims()),
            });
        }
        if let Some(Neighbours { to_halves, from_halves, .. }) = &self.neighbours {
            let turned = self.turn_halves(&x.contiguous()?.index_select(to_halves, x.rank() - 1)?)?;
            return Ok(turned.index_select(from_halves, x.rank() - 1)?);
        }
        self.turn_halves(x)
    }

    fn turn_halves(&self, x: &Tensor) -> Result<Tensor, Error> {
        let half = x.dim(D::Minus1)? / 2;
        let turned = Tensor::cat(
            &[&x.narrow(D::Minus1, half, half)?.neg()?, &x.narrow(D::Minus1, 0, half)?],
            D::Minus1,
        )?;
        Ok((x.broadcast_mul(&self.cos)? + turned.broadcast_mul(&self.sin)?)?)
    }

    /// The queries and keys of a packed tensor `(B, N, 3 * heads * d)` turned; its values stay as they are. Where
    /// neighbouring channels are turned, those of queries and keys come out in another order, the same for both, which
    /// their products don't see.
    ///
    /// # Errors
    /// If `qkv` has another number of tokens or channels.
    pub fn apply_packed(&self, qkv: &Tensor, heads: usize) -> Result<Tensor, Error> {
        match &self.neighbours {
            Some(Neighbours { packed, .. }) => {
                let channels = packed.dim(0)?;
                if qkv.dim(D::Minus1)? != channels {
                    return Err(Error::Input {
                        what: "packed queries, keys and values",
                        expected: format!("(B, {}, {channels})", self.cos.dim(0)?),
                        found: format!("{:?}", qkv.dims()),
                    });
                }
                let ordered = qkv.contiguous()?.index_select(packed, 2)?;
                Ok(vit_ops::rotate_packed(&ordered, heads, &self.cos, &self.sin)?)
            }
            None => Ok(vit_ops::rotate_packed(qkv, heads, &self.cos, &self.sin)?),
        }
    }

    /// Sines, then cosines of the patches, `(patches, 2d)`, as timm keeps them.
    ///
    /// # Errors
    /// If the tensors cannot be joined.
    pub fn sin_cos(&self) -> Result<Tensor, Error> {
        let patches = self.cos.dim(0)? - self.prefix;
        let part = |t: &Tensor| {
            let t = t.narrow(0, self.prefix, patches)?;
            match &self.neighbours {
                Some(Neighbours { from_halves, .. }) => t.contiguous()?.index_select(from_halves, 1),
                None => Ok(t),
            }
        };
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
    fn neighbours_turn_as_pairs_and_packed_products_are_the_same() {
        // Patch (1, 0) of a 2 x 2 grid counts as row 4 of 8; heads of 8 channels have 2 frequencies an axis.
        let rope = Rope::of_neighbours((2, 2), 8, 1, (2, 8), 100.0, &Device::Cpu).unwrap();
        let x = Tensor::arange(1.0_f32, 1.0 + 2.0 * 5.0 * 8.0, &Device::Cpu).unwrap();
        let x = (x.reshape((1, 2, 5, 8)).unwrap() * 0.1).unwrap();
        let turned = rope.apply(&x).unwrap();
        let row = |t: &Tensor| t.get(0).unwrap().get(1).unwrap().get(3).unwrap().to_vec1::<f32>().unwrap();
        let (before, after) = (row(&x), row(&turned));
        for (pair, angle) in [4.0_f32, 0.4, 0.0, 0.0].into_iter().enumerate() {
            let (a, b) = (before[2 * pair], before[2 * pair + 1]);
            let wanted = [a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()];
            for (found, wanted) in after[2 * pair..].iter().zip(wanted) {
                assert!((found - wanted).abs() < 1e-5, "pair {pair}: {found} {wanted}");
            }
        }
        let packed = Tensor::arange(0.0_f32, 5.0 * 48.0, &Device::Cpu).unwrap();
        let packed = (packed.sin().unwrap().reshape((1, 5, 48)).unwrap() * 0.5).unwrap();
        let part = |t: &Tensor, i: usize| {
            let t = t.reshape((1, 5, 3, 2, 8)).unwrap().narrow(2, i, 1).unwrap().squeeze(2).unwrap();
            t.transpose(1, 2).unwrap().contiguous().unwrap()
        };
        let products = |q: &Tensor, k: &Tensor| q.matmul(&k.t().unwrap().contiguous().unwrap()).unwrap();
        let both = rope.apply_packed(&packed, 2).unwrap();
        let found = products(&part(&both, 0), &part(&both, 1));
        let wanted =
            products(&rope.apply(&part(&packed, 0)).unwrap(), &rope.apply(&part(&packed, 1)).unwrap());
        let off = (found - wanted).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(off < 1e-5, "{off}");
        let values = (part(&both, 2) - part(&packed, 2)).unwrap().abs().unwrap();
        assert_eq!(values.max_all().unwrap().to_scalar::<f32>().unwrap(), 0.0);
    }

    #[test]
    fn other_numbers_of_tokens_or_channels_are_refused() {
        let halves = Rope::new((3, 2), 1, 8, 100.0, &Device::Cpu).unwrap();
        let neighbours = Rope::of_neighbours((3, 2), 3, 1, (2, 8), 100.0, &Device::Cpu).unwrap();
        let zeros = |shape: &[usize]| Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
        for rope in [halves, neighbours] {
            rope.apply(&zeros(&[1, 2, 7, 8])).unwrap();
            for wrong in [[1, 2, 1, 8], [1, 2, 6, 8], [1, 2, 7, 4], [1, 2, 7, 16], [1, 2, 7, 1]] {
                let message = rope.apply(&zeros(&wrong)).unwrap_err().to_string();
                assert!(message.contains("7, 8") && message.contains(&format!("{wrong:?}")), "{message}");
            }
            rope.apply_packed(&zeros(&[1, 7, 48]), 2).unwrap();
            for wrong in [[1, 1, 48], [1, 6, 48], [1, 7, 24], [1, 7, 96]] {
                assert!(rope.apply_packed(&zeros(&wrong), 2).is_err(), "{wrong:?}");
            }
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
