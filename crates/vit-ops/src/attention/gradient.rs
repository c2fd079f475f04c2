//! The way back: probabilities are computed again, block by block, instead of being kept.
// A kernel is compiled for an instruction set only where all of it is inlined: see `lanes`.
#![allow(clippy::inline_always)]

use candle_core::Tensor;
use rayon::prelude::*;

use super::Sizes;
use super::blockwise::{Blockwise, Inputs, Scale};
use super::sets::Broadcast;
use crate::kernels::{Board, View, multiply};
use crate::lanes::{Kernel, Lanes, Real, sum, update};
use crate::rows::{AddTo, Held};

/// The sum of a row's products.
struct Dot<'a, T>(&'a [T], &'a [T]);

impl<T: Real> Kernel<T> for Dot<'_, T> {
    type Output = T;
    #[inline(always)]
    fn run<L: Lanes<Number = T>>(self, lanes: L) -> T {
        let [sum] = sum(
            lanes,
            [self.0, self.1],
            #[inline(always)]
            |[a, b]| [lanes.mul(a, b)],
        );
        sum
    }
}

/// Probabilities p to the gradient of what they are the softmax of: `p (g - mean)`, with their gradient g and its mean
/// under p.
struct OfLogits<'a, T> {
    probabilities: &'a mut [T],
    gradient: &'a [T],
    mean: T,
}

impl<T: Real> Kernel<T> for OfLogits<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Number = T>>(self, lanes: L) {
        let mean = lanes.splat(self.mean);
        update(
            lanes,
            self.probabilities,
            [self.gradient],
            #[inline(always)]
            |p, [g]| lanes.mul(p, lanes.sub(g, mean)),
        );
    }
}

/// What a task needs room for.
struct Memory<T> {
    probabilities: Vec<T>,
    of_probabilities: Vec<T>,
    sums: Vec<T>,
    /// Gradients of queries, keys and values, `(N, d)` each.
    parts: [Vec<T>; 3],
}

impl<T: Real> Memory<T> {
    fn new(sizes: Sizes) -> Self {
        let block = || vec![T::ZERO; sizes.block() * sizes.tokens];
        let part = || vec![T::ZERO; sizes.tokens * sizes.width];
        Self {
            probabilities: block(),
            of_probabilities: block(),
            sums: Vec::new(),
            parts: [part(), part(), part()],
        }
    }
}

struct Backward<'a, T> {
    inputs: Inputs<'a, T>,
    context: &'a [T],
    gradient: &'a [T],
    board: Board<T>,
}

impl<T: Real> Backward<'_, T> {
    /// All of one head. The gradient of its bias is added to `of_bias`.
    fn head(
        &self,
        (image, head): (usize, usize),
        memory: &mut Memory<T>,
        mut of_bias: Option<(&mut [T], Broadcast)>,
    ) {
        let Blockwise { sizes, scale, mask, kept } = self.inputs.operation;
        let Sizes { tokens, heads, width, .. } = *sizes;
        let (block, stride, scale) = (sizes.block(), heads * width, T::of(*scale));
        let Memory { probabilities, of_probabilities, sums, parts: [of_queries, of_keys, of_values] } =
            memory;
        let of = |part: usize, tokens: (usize, usize)| self.inputs.part(part, (image, head), tokens);
        for query in (0..tokens).step_by(block) {
            let rows = block.min(tokens - query);
            let probabilities = &mut probabilities[..rows * tokens];
            let of_probabilities = &mut of_probabilities[..rows * tokens];
            let start = (image * tokens + query) * stride + head * width;
            let gradient = View::of_rows(&self.gradient[start..], (rows, width), stride);
            // Sums over queries begin with the first block.
            let add = query > 0;

            self.inputs.exponentials((image, head), (query, rows), probabilities, sums);
            for (row, &sum) in probabilities.chunks_exact_mut(tokens).zip(&*sums) {
                T::run(Scale(row, T::ONE / sum));
            }
            let applied = if kept.is_some() {
                of_probabilities.copy_from_slice(probabilities);
                self.inputs.drop((image, head), query, of_probabilities);
                &*of_probabilities
            } else {
                &*probabilities
            };
            let applied = View::of_rows(applied, (rows, tokens), tokens).transposed();
            multiply(of_values, width, applied, gradient, T::ONE, add);

            let values = of(2, (0, tokens)).transposed();
            multiply(of_probabilities, tokens, gradient, values, T::ONE, false);
            self.inputs.drop((image, head), query, of_probabilities);
            let both = probabilities.chunks_exact_mut(tokens).zip(of_probabilities.chunks_exact(tokens));
            for (i, (row, of_row)) in both.enumerate() {
                // The mean of a row's gradient under its probabilities is the product of the results.
                let at = start + i * stride..start + i * stride + width;
                let mean = T::run(Dot(&self.gradient[at.clone()], &self.context[at]));
                T::run(OfLogits { probabilities: row, gradient: of_row, mean });
                if let Some(mask) = mask {
                    mask.set(row, (image, head, query + i), T::ZERO);
                }
                if let Some((of_bias, shape)) = &mut of_bias {
                    match &mut of_bias[shape.row(query + i)] {
                        [one] => row.iter().for_each(|&entry| *one += entry),
                        each => T::run(AddTo(each, row)),
                    }
                }
            }

            let of_logits = View::of_rows(probabilities, (rows, tokens), tokens);
            multiply(&mut of_queries[query * width..], width, of_logits, of(1, (0, tokens)), scale, false);
            multiply(of_keys, width, of_logits.transposed(), of(0, (query, rows)), scale, add);
        }
        for (part, numbers) in [of_queries, of_keys, of_values].into_iter().enumerate() {
            self.board.fill(image, (0, part * heads + head), numbers);
        }
    }
}

/// The gradients of the packed tensor and of the bias, where it has a graph.
pub(super) fn gradients<T: Real>(
    operation: &Blockwise,
    qkv: &Tensor,
    bias: Option<&Tensor>,
    context: &Tensor,
    gradient: &Tensor,
) -> candle_core::Result<(Tensor, Option<Tensor>)> {
    let Sizes { batch, tokens, heads, width } = operation.sizes;
    let device = qkv.device();
    let shape = bias.map(|bias| Broadcast::new(bias.dims()));
    let held_bias = bias.map(Held::new);
    let (held_qkv, held_context, held_gradient) = (Held::new(qkv), Held::new(context), Held::new(gradient));
    let numbers = held_bias.as_ref().map(Held::slice::<T>).transpose()?;
    let task = Backward {
        inputs: Inputs { operation, qkv: held_qkv.slice()?, bias: numbers.zip(shape) },
        context: held_context.slice()?,
        gradient: held_gradient.slice()?,
        board: Board::new(batch, (tokens, 3 * heads * width), (tokens, width)),
    };
    let memory = || Memory::new(operation.sizes);
    let of_bias = match (bias, shape) {
        (Some(bias), Some(shape)) if bias.track_op() => {
            // One task for all images and heads that share a part of the bias: it is summed in one order.
            let mut sums = vec![T::ZERO; bias.elem_count()];
            let (images, shared) = shape.parts();
            sums.par_chunks_mut(shape.plane()).enumerate().for_each_init(memory, |memory, (part, sums)| {
                for image in (part / shared..batch).step_by(images) {
                    for head in (part % shared..heads).step_by(shared) {
                        task.head((image, head), memory, Some((&mut *sums, shape)));
                    }
                }
            });
            Some(Tensor::from_vec(sums, bias.shape(), device)?)
        }
        _ => {
            (0..batch * heads).into_par_iter().for_each_init(memory, |memory, index| {
                task.head((index / heads, index % heads), memory, None);
            });
            None
        }
    };
    let of_qkv = Tensor::from_vec(task.board.finish(), qkv.shape(), device)?;
    Ok((of_qkv, of_bias))
}
