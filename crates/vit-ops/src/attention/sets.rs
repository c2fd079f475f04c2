//! Which pairs of queries and keys take part, on the host.

use candle_core::{DType, Tensor};

use crate::Result;
use crate::lanes::Real;

/// `dims` with as many axes of length 1 in front as make four.
pub(super) fn four_axes(dims: &[usize]) -> Vec<usize> {
    let mut all = vec![1; 4_usize.saturating_sub(dims.len())];
    all.extend_from_slice(dims);
    all
}

/// Which entry of a tensor belongs to an entry of a larger one that it is broadcast to, four axes each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Broadcast {
    dims: [usize; 4],
}

impl Broadcast {
    /// From dimensions that were checked.
    pub(super) fn new(dims: &[usize]) -> Self {
        let mut all = [1; 4];
        all.iter_mut().zip(dims).for_each(|(to, &from)| *to = from);
        Self { dims: all }
    }

    /// The part of the tensor for an image and a head: it begins at this entry and has `plane` of them.
    pub(super) fn start(self, image: usize, head: usize) -> usize {
        let [images, heads, ..] = self.dims;
        ((image % images) * heads + head % heads) * self.plane()
    }

    /// Entries of an image and a head.
    pub(super) fn plane(self) -> usize {
        self.dims[2] * self.dims[3]
    }

    /// Row `query` of such a part: as long as there are keys, or one entry for all of them.
    pub(super) fn row(self, query: usize) -> std::ops::Range<usize> {
        let [.., queries, keys] = self.dims;
        let start = query % queries * keys;
        start..start + keys
    }

    /// How many images and heads have parts of their own.
    pub(super) fn parts(self) -> (usize, usize) {
        (self.dims[0], self.dims[1])
    }
}

/// What a query may not attend to.
#[derive(Debug)]
pub(super) struct Mask {
    allowed: Vec<bool>,
    shape: Broadcast,
}

impl Mask {
    /// Of a tensor that can be broadcast to `full`; not 0 = allowed.
    pub(super) fn new(mask: &Tensor, full: (usize, usize, usize, usize)) -> Result<Self> {
        // Only for its error.
        mask.broadcast_as(full)?;
        let allowed = mask.ne(&mask.zeros_like()?)?.to_dtype(DType::U8)?.flatten_all()?.to_vec1::<u8>()?;
        let shape = Broadcast::new(&four_axes(mask.dims()));
        Ok(Self { allowed: allowed.into_iter().map(|allowed| allowed != 0).collect(), shape })
    }

    /// Sets the entries of a query's row that are not allowed to `value`.
    pub(super) fn set<T: Real>(&self, row: &mut [T], (image, head, query): (usize, usize, usize), value: T) {
        let part = &self.allowed[self.shape.start(image, head)..];
        match &part[self.shape.row(query)] {
            [true] if row.len() > 1 => {}
            [false] if row.len() > 1 => row.fill(value),
            allowed => {
                for (entry, &allowed) in row.iter_mut().zip(allowed) {
                    if !allowed {
                        *entry = value;
                    }
                }
            }
        }
    }
}

/// What dropout keeps of probabilities `(B, H, N, N)`, a bit each.
#[derive(Debug)]
pub(crate) struct Kept {
    bits: Vec<u64>,
    /// Of a row.
    words: usize,
    /// What kept entries are multiplied by.
    factor: f64,
}

impl Kept {
    /// `rows` rows of `width` entries; `draw` says of the next so many whether they are kept (not 0).
    pub(crate) fn new(
        rows: usize,
        width: usize,
        factor: f64,
        mut draw: impl FnMut(usize) -> Vec<f32>,
    ) -> Self {
        let words = width.div_ceil(64);
        let mut bits = Vec::with_capacity(rows * words);
        for _ in 0..rows {
            let kept = draw(width);
            bits.extend(kept.chunks(64).map(|kept| {
                kept.iter().enumerate().fold(0, |word, (i, &kept)| word | u64::from(kept != 0.0) << i)
            }));
        }
        Self { bits, words, factor }
    }

    /// Drops and rescales row `index`, counted over images, heads and queries.
    pub(super) fn apply<T: Real>(&self, row: &mut [T], index: usize) {
        let factors = [T::ZERO, T::of(self.factor)];
        let bits = &self.bits[index * self.words..][..self.words];
        for (chunk, &bits) in row.chunks_mut(64).zip(bits) {
            for (i, entry) in chunk.iter_mut().enumerate() {
                *entry *= factors[(bits >> i & 1) as usize];
            }
        }
    }
}
