//! Multi-head attention without an N x N matrix.

use candle_core::{DType, Result, bail};

use super::rows::per_row;
use super::{Arg, Input, Launch, Machine, Module, blocks, small};

/// Threads of a block, 16 x 16.
const THREADS: u32 = 256;
/// The widths of a head that there are kernels for, and how many tokens a tile of each has.
const WIDTHS: [(usize, usize); 3] = [(32, 32), (64, 32), (128, 16)];

/// The widest head that the kernels take.
pub(crate) const WIDEST: usize = WIDTHS[WIDTHS.len() - 1].0;

/// The words of the kernels' `struct Shape`, which [`AttentionShape`] is passed as.
const WORDS: usize = 15;

/// How queries, keys and values lie in memory: all three alike, a head's channels side by side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttentionShape {
    pub(crate) batch: usize,
    pub(crate) heads: usize,
    pub(crate) tokens: usize,
    /// Channels of a head.
    pub(crate) width: usize,
    /// From one image, head and token to the next, in elements.
    pub(crate) strides: [usize; 3],
    /// What the products are multiplied by.
    pub(crate) scale: f64,
}

impl AttentionShape {
    /// A packed tensor `(B, N, 3 H d)`.
    pub(crate) fn packed(batch: usize, heads: usize, tokens: usize, width: usize, scale: f64) -> Self {
        let row = 3 * heads * width;
        Self { batch, heads, tokens, width, strides: [tokens * row, width, row], scale }
    }

    /// Numbers of the queries alone.
    fn elements(&self) -> usize {
        self.batch * self.heads * self.tokens * self.width
    }

    fn words<A>(&self, pairs: &Pairs<'_, A>) -> Result<[u32; WORDS]> {
        let mut words = [0; WORDS];
        let bias = pairs.bias.map_or([0; 4], |(_, strides)| strides);
        let mask = pairs.mask.map_or([0; 4], |(_, strides)| strides);
        let numbers =
            [self.heads, self.tokens, self.width].into_iter().chain(self.strides).chain(bias).chain(mask);
        for (word, number) in words.iter_mut().zip(numbers) {
            *word = small(number)?;
        }
        words[14] = (self.scale as f32).to_bits();
        Ok(words)
    }

    /// The kernel for this width of a head: `kernel_WIDTH`, a block a tile of every head of every image.
    fn launch(&self, kernel: &str, dtype: DType) -> Result<Launch> {
        let Some((width, tile)) = WIDTHS.into_iter().find(|(width, _)| self.width <= *width) else {
            bail!("the CUDA kernels of attention take heads of at most {WIDEST} channels, not {}", self.width)
        };
        let tiles = self.tokens.div_ceil(tile) * self.batch * self.heads;
        Launch::new(Module::Attention, &format!("{kernel}_{width}"), dtype, (blocks(tiles, 1)?, 1), THREADS)
    }
}

/// What belongs to pairs of a query and a key. The strides are over batch, head, query and key, 0 where broadcast.
pub(crate) struct Pairs<'a, A> {
    /// Added to the scaled products; of the type of the queries.
    pub(crate) bias: Option<(Input<'a, A>, [usize; 4])>,
    /// u8; 0: the query may not attend to the key.
    pub(crate) mask: Option<(Input<'a, A>, [usize; 4])>,
    /// What dropout multiplies the probabilities with, `(B, H, N, N)`; of the type of the queries.
    pub(crate) keep: Option<Input<'a, A>>,
}

impl<A> Pairs<'_, A> {
    /// Neither bias nor mask nor dropout.
    #[cfg(test)]
    pub(crate) const NONE: Self = Self { bias: None, mask: None, keep: None };
}

/// Queries, keys and values: three starts in one array.
pub(crate) struct Qkv<'a, A> {
    pub(crate) q: Input<'a, A>,
    pub(crate) k: Input<'a, A>,
    pub(crate) v: Input<'a, A>,
}

impl<'a, A> Qkv<'a, A> {
    /// From a packed tensor `(B, N, 3 H d)`.
    pub(crate) fn packed(qkv: Input<'a, A>, shape: &AttentionShape) -> Self {
        let part = |i: usize| Input { start: qkv.start + i * shape.heads * shape.width, ..qkv };
        Self { q: part(0), k: part(1), v: part(2) }
    }

    fn args(&self, pairs: &Pairs<'a, A>) -> Vec<Arg<'a, A>> {
        vec![
            self.q.arg(),
            self.k.arg(),
            self.v.arg(),
            Input::optional(pairs.bias.map(|(input, _)| input)),
            Input::optional(pairs.mask.map(|(input, _)| input)),
            Input::optional(pairs.keep),
        ]
    }
}

/// The context `(B, N, H d)`.
pub(crate) fn attention<'a, M: Machine>(
    machine: &M,
    dtype: DType,
    qkv: &Qkv<'a, M::Array>,
    pairs: &Pairs<'a, M::Array>,
    shape: &AttentionShape,
) -> Result<M::Array> {
    let words = shape.words(pairs)?;
    let mut out = machine.array(dtype, shape.elements())?;
    let mut args = qkv.args(pairs);
    args.extend([Arg::Write(&mut out, 0), Arg::Null, Arg::Words(&words)]);
    machine.launch(&shape.launch("attention_forward", dtype)?, &mut args)?;
    Ok(out)
}

/// What [`attention_backward`] returns.
pub(crate) struct Gradients<A> {
    /// Of the queries, keys and values, packed `(B, N, 3 H d)`.
    pub(crate) qkv: A,
    /// Of the bias before it was broadcast, `(B, H, N, N)`.
    pub(crate) bias: Option<A>,
}

/// The gradients of attention, from that of its result, `(B, N, H d)`.
pub(crate) fn attention_backward<'a, M: Machine>(
    machine: &M,
    dtype: DType,
    qkv: &Qkv<'a, M::Array>,
    pairs: &Pairs<'a, M::Array>,
    shape: &AttentionShape,
    gradient: Input<'_, M::Array>,
    with_bias: bool,
) -> Result<Gradients<M::Array>> {
    let words = shape.words(pairs)?;
    let (elements, rows) = (shape.elements(), shape.batch * shape.heads * shape.tokens);

    // The forward pass once more, for the largest logit and the sum of every row; its result serves for `delta`.
    let mut context = machine.array(dtype, elements)?;
    let mut stats = machine.array(DType::F32, 2 * rows)?;
    let mut args = qkv.args(pairs);
    args.extend([Arg::Write(&mut context, 0), Arg::Write(&mut stats, 0), Arg::Words(&words)]);
    machine.launch(&shape.launch("attention_forward", dtype)?, &mut args)?;

    let mut delta = machine.array(DType::F32, rows)?;
    machine.launch(
        &per_row(Module::Attention, "row_products", dtype, rows)?,
        &mut [
            Arg::Read(&context, 0),
            gradient.arg(),
            Arg::Write(&mut delta, 0),
            Arg::U32(small(rows)?),
            Arg::U32(small(shape.width)?),
        ],
    )?;

    // Queries, keys and values of a token follow each other.
    let part = shape.heads * shape.width;
    let mut out = machine.array(dtype, 3 * elements)?;
    let pair_count = rows * shape.tokens;
    let mut of_bias = if with_bias { Some(machine.array(dtype, pair_count)?) } else { None };
    let mut args = qkv.args(pairs);
    args.extend([
        gradient.arg(),
        Arg::Read(&stats, 0),
        Arg::Read(&delta, 0),
        Arg::Write(&mut out, 0),
        of_bias.as_mut().map_or(Arg::Null, |array| Arg::Write(array, 0)),
        Arg::Words(&words),
    ]);
    machine.launch(&shape.launch("attention_backward_queries", dtype)?, &mut args)?;

    let mut args = qkv.args(pairs);
    args.extend([
        gradient.arg(),
        Arg::Read(&stats, 0),
        Arg::Read(&delta, 0),
        Arg::Write(&mut out, 0),
        Arg::Size(part),
        Arg::Size(2 * part),
        Arg::Words(&words),
    ]);
    machine.launch(&shape.launch("attention_backward_keys", dtype)?, &mut args)?;
    Ok(Gradients { qkv: out, bias: of_bias })
}
