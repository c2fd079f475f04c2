//! Attention by blocks of query rows, on the host.
// A kernel is compiled for an instruction set only where all of it is inlined: see `lanes`.
#![allow(clippy::inline_always)]

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Shape, Tensor, bail};
use rayon::prelude::*;

use super::Sizes;
use super::gradient::gradients;
use super::sets::{Broadcast, Kept, Mask};
use crate::kernels::{Board, View, multiply};
use crate::lanes::{Kernel, Lanes, Real, exponentials, largest, update};
use crate::rows::{AddTo, by_type, slice};

/// Over a packed tensor, and a bias of four axes where there is one.
#[derive(Debug)]
pub(super) struct Blockwise {
    pub(super) sizes: Sizes,
    pub(super) scale: f64,
    pub(super) mask: Option<Mask>,
    pub(super) kept: Option<Kept>,
}

/// Most query rows of a block: enough for a product to be worth packing the keys.
const QUERIES: usize = 128;
/// Most products of queries and keys of a block: 512 KiB of f32, half of a core's second cache.
const PRODUCTS: usize = 1 << 17;

impl Sizes {
    /// Query rows of a block, of which all but the last have as many.
    pub(super) fn block(self) -> usize {
        let most = (PRODUCTS / self.tokens.max(1)).clamp(16, QUERIES);
        let blocks = self.tokens.div_ceil(most).max(1);
        self.tokens.div_ceil(blocks).next_multiple_of(8)
    }

    /// Numbers of a token's queries, keys and values.
    pub(super) fn stride(self) -> usize {
        3 * self.heads * self.width
    }

    /// Where the queries (part 0), keys (1) or values (2) of a head begin, from this token on.
    pub(super) fn start(self, part: usize, image: usize, head: usize, token: usize) -> usize {
        (image * self.tokens + token) * self.stride() + (part * self.heads + head) * self.width
    }
}

/// A row to exponentials less its largest one; returns their sum.
struct Exponentials<'a, T>(&'a mut [T]);

impl<T: Real> Kernel<T> for Exponentials<'_, T> {
    type Output = T;
    #[inline(always)]
    fn run<L: Lanes<Number = T>>(self, lanes: L) -> T {
        let highest = largest(lanes, self.0);
        exponentials(lanes, self.0, highest)
    }
}

/// A row times a number.
pub(super) struct Scale<'a, T>(pub(super) &'a mut [T], pub(super) T);

impl<T: Real> Kernel<T> for Scale<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Number = T>>(self, lanes: L) {
        let factor = lanes.splat(self.1);
        update(
            lanes,
            self.0,
            [],
            #[inline(always)]
            |value, []| lanes.mul(value, factor),
        );
    }
}

/// What all blocks read.
pub(super) struct Inputs<'a, T> {
    pub(super) operation: &'a Blockwise,
    pub(super) qkv: &'a [T],
    pub(super) bias: Option<(&'a [T], Broadcast)>,
}

impl<T: Real> Inputs<'_, T> {
    /// `count` rows of the queries, keys or values of a head.
    pub(super) fn part(
        &self,
        part: usize,
        (image, head): (usize, usize),
        (token, count): (usize, usize),
    ) -> View<'_, T> {
        let sizes = self.operation.sizes;
        let numbers = &self.qkv[sizes.start(part, image, head, token)..];
        View::of_rows(numbers, (count, sizes.width), sizes.stride())
    }

    /// Of `rows` queries of a head from `query` on: the exponentials of their products with all keys, into `products`,
    /// row by row; and the sum of each row.
    pub(super) fn exponentials(
        &self,
        (image, head): (usize, usize),
        (query, rows): (usize, usize),
        products: &mut [T],
        sums: &mut Vec<T>,
    ) {
        let Blockwise { sizes, scale, mask, .. } = self.operation;
        let tokens = sizes.tokens;
        let queries = self.part(0, (image, head), (query, rows));
        let keys = self.part(1, (image, head), (0, tokens));
        multiply(products, tokens, queries, keys.transposed(), T::of(*scale), false);
        sums.clear();
        for (i, row) in products.chunks_exact_mut(tokens).enumerate() {
            let query = query + i;
            if let Some((bias, shape)) = &self.bias {
                match &bias[shape.start(image, head)..][shape.row(query)] {
                    // One for all keys moves nothing, unless it is no number.
                    &[bias] => row.iter_mut().for_each(|product| *product += bias),
                    bias => T::run(AddTo(row, bias)),
                }
            }
            if let Some(mask) = mask {
                mask.set(row, (image, head, query), T::LOWEST);
            }
            sums.push(T::run(Exponentials(row)));
        }
    }

    /// Applies dropout to rows of probabilities, or of their gradient.
    pub(super) fn drop(&self, (image, head): (usize, usize), query: usize, rows: &mut [T]) {
        let Blockwise { sizes, kept, .. } = self.operation;
        if let Some(kept) = kept {
            let first = (image * sizes.heads + head) * sizes.tokens + query;
            for (i, row) in rows.chunks_exact_mut(sizes.tokens).enumerate() {
                kept.apply(row, first + i);
            }
        }
    }

    /// The context, `(B, N, H d)`.
    fn context(&self) -> Vec<T> {
        let Sizes { batch, tokens, heads, width } = self.operation.sizes;
        let block = self.operation.sizes.block();
        let blocks = tokens.div_ceil(block);
        let board = Board::new(batch, (tokens, heads * width), (block, width));
        let memory = || (vec![T::ZERO; block * tokens], vec![T::ZERO; block * width], Vec::new());
        (0..batch * heads * blocks).into_par_iter().for_each_init(memory, |(products, tile, sums), task| {
            let (image, head, index) = (task / (heads * blocks), task / blocks % heads, task % blocks);
            let query = index * block;
            let rows = block.min(tokens - query);
            let products = &mut products[..rows * tokens];
            self.exponentials((image, head), (query, rows), products, sums);
            self.drop((image, head), query, products);
            let values = self.part(2, (image, head), (0, tokens));
            multiply(tile, width, View::of_rows(products, (rows, tokens), tokens), values, T::ONE, false);
            // Shares of the few sums, not of the many exponentials.
            for (row, &sum) in tile.chunks_exact_mut(width).zip(&*sums) {
                T::run(Scale(row, T::ONE / sum));
            }
            board.fill(image, (index, head), tile);
        });
        board.finish()
    }
}

impl Blockwise {
    fn forward(
        &self,
        (qkv, layout): (&CpuStorage, &Layout),
        bias: Option<(&CpuStorage, &Layout)>,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        fn run<T: Real>(
            operation: &Blockwise,
            (qkv, layout): (&CpuStorage, &Layout),
            bias: Option<(&CpuStorage, &Layout)>,
        ) -> candle_core::Result<Vec<T>> {
            let bias = match bias {
                Some((bias, layout)) => Some((slice(bias, layout)?, Broadcast::new(layout.dims()))),
                None => None,
            };
            Ok(Inputs { operation, qkv: slice(qkv, layout)?, bias }.context())
        }
        let Sizes { batch, tokens, heads, width } = self.sizes;
        let storage = match qkv {
            CpuStorage::F32(_) => CpuStorage::F32(run(self, (qkv, layout), bias)?),
            CpuStorage::F64(_) => CpuStorage::F64(run(self, (qkv, layout), bias)?),
            _ => bail!("the kernel of attention takes f32 and f64"),
        };
        Ok((storage, Shape::from((batch, tokens, heads * width))))
    }
}

impl CustomOp1 for Blockwise {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(&self, qkv: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        self.forward((qkv, layout), None)
    }

    fn bwd(&self, qkv: &Tensor, context: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?;
        let (of_qkv, _) = by_type!(qkv, "attention", gradients(self, qkv, None, context, &gradient))?;
        Ok(Some(of_qkv))
    }
}

impl CustomOp2 for Blockwise {
    fn name(&self) -> &'static str {
        "attention_with_bias"
    }

    fn cpu_fwd(
        &self,
        qkv: &CpuStorage,
        layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        self.forward((qkv, layout), Some((bias, bias_layout)))
    }

    fn bwd(
        &self,
        qkv: &Tensor,
        bias: &Tensor,
        context: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let (of_qkv, of_bias) =
            by_type!(qkv, "attention", gradients(self, qkv, Some(bias), context, &gradient))?;
        Ok((qkv.track_op().then_some(of_qkv), of_bias))
    }
}
