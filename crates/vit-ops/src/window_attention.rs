//! Attention within the windows of a grid of tokens.
// A kernel is compiled for an instruction set only where all of it is inlined: see `lanes`.
#![allow(clippy::inline_always)]

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp2, Device, Layout, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::lanes::{Kernel, Lanes, Real, exponentials, map, sum, update};
use crate::rows::{Held, add_up, by_type, has_kernels, slice};
use crate::{AttentionOptions, Error, Result, attention};

/// How a grid of tokens is cut into windows, which may be shifted: attention with shifted windows lets neighbouring
/// windows exchange what they know. (Liu et al. 2021, arXiv 2103.14030.)
#[derive(Debug, Clone)]
pub struct Windows {
    window: (usize, usize),
    /// For each place, window by window, the token that is there.
    order: Arc<[u32]>,
    /// What is added to the products, `(windows, N, N)`: 0, or -100 between tokens that are no neighbours.
    mask: Option<Arc<[f32]>>,
}

/// Added to the products of tokens that only the shift brought together.
const APART: f32 = -100.0;

impl Windows {
    /// Of a grid of `(rows, columns)` tokens, in windows of `(rows, columns)` tokens, moved by `shift` tokens down and
    /// to the right around the grid; tokens that only the shift brought into one window hardly see each other.
    ///
    /// # Errors
    ///
    /// If the windows are empty or don't divide the grid, or the shift is not smaller than a window.
    pub fn new(grid: (usize, usize), window: (usize, usize), shift: usize) -> Result<Self> {
        let range = |argument, expected, found: usize| {
            Err(Error::Range { operation: "windows", argument, expected, found: found as f64 })
        };
        for (grid, window) in [(grid.0, window.0), (grid.1, window.1)] {
            if window == 0 || grid == 0 || !grid.is_multiple_of(window) {
                return range("the grid's side", "a multiple of the window's side", grid);
            }
            if shift >= window {
                return range("shift", "smaller than the window's side", shift);
            }
        }
        let (across, inside) = (grid.1 / window.1, window.0 * window.1);
        let count = grid.0 / window.0 * across;
        // Where a place is on the moved grid.
        let place = |index: usize| {
            let (which, token) = (index / inside, index % inside);
            (which / across * window.0 + token / window.1, which % across * window.1 + token % window.1)
        };
        let order: Arc<[u32]> = (0..grid.0 * grid.1)
            .map(|index| {
                let (row, column) = place(index);
                (((row + shift) % grid.0) * grid.1 + (column + shift) % grid.1) as u32
            })
            .collect();
        let mask = (shift > 0).then(|| {
            let part = |at: usize, side: usize, window: usize| {
                usize::from(at >= side - window) + usize::from(at >= side - shift)
            };
            let region = |index: usize| {
                let (row, column) = place(index);
                (part(row, grid.0, window.0), part(column, grid.1, window.1))
            };
            let pairs = (0..count).flat_map(|which| {
                let of = move |token: usize| which * inside + token;
                (0..inside).flat_map(move |i| (0..inside).map(move |j| (of(i), of(j))))
            });
            pairs.map(|(i, j)| if region(i) == region(j) { 0.0 } else { APART }).collect()
        });
        Ok(Self { window, order, mask })
    }

    /// Tokens N of a window.
    pub fn tokens(&self) -> usize {
        self.window.0 * self.window.1
    }

    /// Windows of a grid.
    pub fn count(&self) -> usize {
        self.order.len() / self.tokens()
    }

    /// For each pair of tokens of a window, row by row `(N, N)`, the row of a table of relative positions
    /// `((2 rows - 1) (2 columns - 1), heads)` that belongs to it.
    pub fn relative_positions(&self) -> Vec<u32> {
        relative_positions(self.window)
    }

    /// `(windows, N, N)`, or nothing without a shift.
    fn mask(&self, like: &Tensor) -> Result<Option<Tensor>> {
        let Some(mask) = &self.mask else { return Ok(None) };
        let shape = (self.count(), self.tokens(), self.tokens());
        Ok(Some(Tensor::from_vec(mask.to_vec(), shape, like.device())?.to_dtype(like.dtype())?))
    }
}

/// For each pair of tokens of a window of `(rows, columns)`, row by row `(N, N)`, the row of a table of relative
/// positions `((2 rows - 1) (2 columns - 1), heads)`: row `(y - y' + rows - 1) (2 columns - 1) + x - x' + columns - 1`
/// for a query at `(y, x)` and a key at `(y', x')`.
pub fn relative_positions((rows, columns): (usize, usize)) -> Vec<u32> {
    let tokens = rows * columns;
    let pairs = (0..tokens).flat_map(|i| (0..tokens).map(move |j| (i, j)));
    pairs
        .map(|(i, j)| {
            let down = i / columns + rows - 1 - j / columns;
            let right = i % columns + columns - 1 - j % columns;
            (down * (2 * columns - 1) + right) as u32
        })
        .collect()
}

/// Multi-head attention of each token to those of its window, from one packed tensor `(B, T, 3 H d)` over the T tokens
/// of a grid, row by row: queries, keys, values, each of H heads of d channels. `bias` `(H, N, N)` is added to the
/// products after they were scaled by `1 / sqrt(d)`. The result is `(B, T, H d)`, in the grid's order: on the host nothing
/// is moved around on the way.
///
/// # Errors
///
/// If `qkv` has another number of tokens than the grid, its last axis does not divide by `3 heads`, or `bias` has
/// another shape.
pub fn window_attention(qkv: &Tensor, bias: &Tensor, windows: &Windows, heads: usize) -> Result<Tensor> {
    const NAME: &str = "window_attention";
    let (tokens, inside) = (windows.order.len(), windows.tokens());
    let channels = match qkv.dims3() {
        Ok((_, t, packed)) if t == tokens && heads > 0 && packed % (3 * heads) == 0 => packed / 3,
        _ => {
            let expected = format!("(B, {tokens}, 3 * {heads} heads * d)");
            return Err(Error::shape(NAME, "qkv", expected, qkv.shape()));
        }
    };
    if bias.dims() != [heads, inside, inside] {
        let expected = format!("({heads}, {inside}, {inside})");
        return Err(Error::shape(NAME, "bias", expected, bias.shape()));
    }
    if qkv.elem_count() == 0 {
        return Ok(qkv.narrow(2, 0, channels)?.contiguous()?);
    }
    if has_kernels(qkv) && bias.dtype() == qkv.dtype() {
        let operation = Within { windows: windows.clone(), heads, channels };
        return Ok(qkv.contiguous()?.apply_op2(&bias.contiguous()?, operation)?);
    }
    composed(qkv, bias, windows, heads)
}

/// By moving tokens into their windows and back.
fn composed(qkv: &Tensor, bias: &Tensor, windows: &Windows, heads: usize) -> Result<Tensor> {
    let (batch, tokens, packed) = qkv.dims3()?;
    let (count, inside) = (windows.count(), windows.tokens());
    let mut inverse = vec![0_u32; tokens];
    for (place, &token) in windows.order.iter().enumerate() {
        inverse[token as usize] = place as u32;
    }
    let index = |numbers: &[u32]| Tensor::new(numbers, qkv.device());
    let moved = qkv.index_select(&index(&windows.order)?, 1)?.reshape((batch * count, inside, packed))?;
    let bias = match windows.mask(bias)? {
        None => bias.unsqueeze(0)?,
        Some(mask) => {
            let one = mask.unsqueeze(1)?.broadcast_add(&bias.unsqueeze(0)?)?;
            one.unsqueeze(0)?.broadcast_as((batch, count, heads, inside, inside))?.reshape((
                batch * count,
                heads,
                inside,
                inside,
            ))?
        }
    };
    let mut options = AttentionOptions { bias: Some(&bias), ..AttentionOptions::new(heads) };
    let context = attention(&moved, &mut options)?.context.reshape((batch, tokens, packed / 3))?;
    Ok(context.index_select(&index(&inverse)?, 1)?)
}

/// The operation on the host: images in parallel, each window by window.
struct Within {
    windows: Windows,
    heads: usize,
    channels: usize,
}

/// One head of one window.
#[derive(Clone, Copy)]
struct Place<'a> {
    /// Which token is where.
    tokens: &'a [u32],
    head: usize,
    /// Of a head.
    width: usize,
    /// Of all heads.
    channels: usize,
}

impl Place<'_> {
    /// The queries (part 0), keys (1) or values (2) of a token of the window, in a packed array.
    #[inline(always)]
    fn packed(self, part: usize, token: usize) -> std::ops::Range<usize> {
        let start = (self.tokens[token] as usize * 3 + part) * self.channels + self.head * self.width;
        start..start + self.width
    }

    /// A token's numbers in an array of contexts.
    #[inline(always)]
    fn context(self, token: usize) -> std::ops::Range<usize> {
        let start = self.tokens[token] as usize * self.channels + self.head * self.width;
        start..start + self.width
    }
}

#[inline(always)]
fn dot<L: Lanes>(lanes: L, a: &[L::Number], b: &[L::Number]) -> L::Number {
    let [sum] = sum(
        lanes,
        [a, b],
        #[inline(always)]
        |[a, b]| [lanes.mul(a, b)],
    );
    sum
}

/// `out += factor row`.
#[inline(always)]
fn add_scaled<L: Lanes>(lanes: L, out: &mut [L::Number], row: &[L::Number], factor: L::Number) {
    let factor = lanes.splat(factor);
    update(
        lanes,
        out,
        [row],
        #[inline(always)]
        |sum, [value]| lanes.mul_add(value, factor, sum),
    );
}

/// One image.
struct Image<'a, T> {
    operation: &'a Within,
    qkv: &'a [T],
    bias: &'a [T],
}

impl<T: Real> Image<'_, T> {
    fn places(&self) -> impl Iterator<Item = (usize, Place<'_>)> {
        let Within { windows, heads, channels } = self.operation;
        let (heads, channels) = (*heads, *channels);
        windows.order.chunks_exact(windows.tokens()).enumerate().flat_map(move |(window, tokens)| {
            (0..heads).map(move |head| (window, Place { tokens, head, width: channels / heads, channels }))
        })
    }

    /// The attention probabilities of a head of a window, `(N, N)`.
    #[inline(always)]
    fn probabilities<L: Lanes<Number = T>>(&self, lanes: L, window: usize, place: Place<'_>, into: &mut [T]) {
        let tokens = place.tokens.len();
        let scale = T::of(1.0 / (place.width as f64).sqrt());
        let bias = &self.bias[place.head * tokens * tokens..][..tokens * tokens];
        for i in 0..tokens {
            let query = &self.qkv[place.packed(0, i)];
            for j in 0..tokens {
                into[i * tokens + j] = dot(lanes, query, &self.qkv[place.packed(1, j)]) * scale;
            }
        }
        for (product, &bias) in into.iter_mut().zip(bias) {
            *product += bias;
        }
        if let Some(mask) = &self.operation.windows.mask {
            let mask = &mask[window * tokens * tokens..][..tokens * tokens];
            for (product, &apart) in into.iter_mut().zip(mask) {
                *product += T::of(f64::from(apart));
            }
        }
        for row in into.chunks_exact_mut(tokens) {
            let mut highest = row[0];
            for &product in &*row {
                if product > highest {
                    highest = product;
                }
            }
            for product in row {
                *product -= highest;
            }
        }
        // All rows in one vector, or few.
        exponentials(lanes, into, T::ZERO);
        for row in into.chunks_exact_mut(tokens) {
            let mut total = T::ZERO;
            for &value in &*row {
                total += value;
            }
            let share = T::ONE / total;
            for value in row {
                *value *= share;
            }
        }
    }
}

struct Forward<'a, T> {
    image: Image<'a, T>,
    out: &'a mut [T],
}

impl<T: Real> Kernel<T> for Forward<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Number = T>>(self, lanes: L) {
        let Self { image, out } = self;
        let tokens = image.operation.windows.tokens();
        let mut probabilities = vec![T::ZERO; tokens * tokens];
        for (window, place) in image.places() {
            image.probabilities(lanes, window, place, &mut probabilities);
            for i in 0..tokens {
                let context = &mut out[place.context(i)];
                let shares = &probabilities[i * tokens..][..tokens];
                let first = lanes.splat(shares[0]);
                map(
                    lanes,
                    context,
                    [&image.qkv[place.packed(2, 0)]],
                    #[inline(always)]
                    |[value]| lanes.mul(value, first),
                );
                for (j, &share) in shares.iter().enumerate().skip(1) {
                    add_scaled(lanes, context, &image.qkv[place.packed(2, j)], share);
                }
            }
        }
    }
}

struct Backward<'a, T> {
    image: Image<'a, T>,
    /// Of the context.
    gradient: &'a [T],
    /// Zeros at first.
    of_qkv: &'a mut [T],
    of_bias: &'a mut [T],
}

impl<T: Real> Kernel<T> for Backward<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Number = T>>(self, lanes: L) {
        let Self { image, gradient, of_qkv, of_bias } = self;
        let tokens = image.operation.windows.tokens();
        let mut probabilities = vec![T::ZERO; tokens * tokens];
        let mut of_products = vec![T::ZERO; tokens * tokens];
        for (window, place) in image.places() {
            image.probabilities(lanes, window, place, &mut probabilities);
            let scale = T::of(1.0 / (place.width as f64).sqrt());
            for i in 0..tokens {
                let of_context = &gradient[place.context(i)];
                let shares = &probabilities[i * tokens..][..tokens];
                let of_row = &mut of_products[i * tokens..][..tokens];
                let mut mean = T::ZERO;
                for j in 0..tokens {
                    of_row[j] = dot(lanes, of_context, &image.qkv[place.packed(2, j)]);
                    mean += of_row[j] * shares[j];
                    add_scaled(lanes, &mut of_qkv[place.packed(2, j)], of_context, shares[j]);
                }
                for j in 0..tokens {
                    of_row[j] = shares[j] * (of_row[j] - mean);
                }
            }
            let of_bias = &mut of_bias[place.head * tokens * tokens..][..tokens * tokens];
            for (sum, &value) in of_bias.iter_mut().zip(&of_products) {
                *sum += value;
            }
            for i in 0..tokens {
                for j in 0..tokens {
                    let factor = of_products[i * tokens + j] * scale;
                    let key = &image.qkv[place.packed(1, j)];
                    add_scaled(lanes, &mut of_qkv[place.packed(0, i)], key, factor);
                    let query = &image.qkv[place.packed(0, i)];
                    add_scaled(lanes, &mut of_qkv[place.packed(1, j)], query, factor);
                }
            }
        }
    }
}

impl CustomOp2 for Within {
    fn name(&self) -> &'static str {
        "window_attention"
    }

    fn cpu_fwd(
        &self,
        qkv: &CpuStorage,
        qkv_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        fn run<T: Real>(operation: &Within, qkv: &[T], bias: &[T]) -> Vec<T> {
            let image = operation.windows.order.len() * operation.channels;
            let mut out = vec![T::ZERO; qkv.len() / 3];
            out.par_chunks_mut(image).zip(qkv.par_chunks(3 * image)).for_each(|(out, qkv)| {
                T::run(Forward { image: Image { operation, qkv, bias }, out });
            });
            out
        }
        let storage = match qkv {
            CpuStorage::F32(_) => {
                CpuStorage::F32(run(self, slice(qkv, qkv_layout)?, slice(bias, bias_layout)?))
            }
            CpuStorage::F64(_) => {
                CpuStorage::F64(run(self, slice(qkv, qkv_layout)?, slice(bias, bias_layout)?))
            }
            _ => bail!("the kernel of window_attention takes f32 and f64"),
        };
        let (batch, tokens, _) = qkv_layout.shape().dims3()?;
        Ok((storage, Shape::from((batch, tokens, self.channels))))
    }

    fn bwd(
        &self,
        qkv: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        fn run<T: Real>(
            operation: &Within,
            qkv: &Tensor,
            bias: &Tensor,
            gradient: &Tensor,
        ) -> candle_core::Result<(Tensor, Tensor)> {
            let (held_qkv, held_bias, held_gradient) = (Held::new(qkv), Held::new(bias), Held::new(gradient));
            let (numbers, bias_numbers) = (held_qkv.slice::<T>()?, held_bias.slice::<T>()?);
            let image = operation.windows.order.len() * operation.channels;
            let mut of_qkv = vec![T::ZERO; numbers.len()];
            // One sum an image, added up in order: the same on every number of threads.
            let parts: Vec<Vec<T>> = of_qkv
                .par_chunks_mut(3 * image)
                .zip(numbers.par_chunks(3 * image))
                .zip(held_gradient.slice::<T>()?.par_chunks(image))
                .map(|((of_qkv, qkv), gradient)| {
                    let mut of_bias = vec![T::ZERO; bias_numbers.len()];
                    let image = Image { operation, qkv, bias: bias_numbers };
                    T::run(Backward { image, gradient, of_qkv, of_bias: &mut of_bias });
                    of_bias
                })
                .collect();
            let of_bias = add_up(&parts, bias_numbers.len());
            Ok((
                Tensor::from_vec(of_qkv, qkv.shape(), &Device::Cpu)?,
                Tensor::from_vec(of_bias, bias.shape(), &Device::Cpu)?,
            ))
        }
        let gradient = gradient.contiguous()?;
        let (of_qkv, of_bias) = by_type!(qkv, "window_attention", run(self, qkv, bias, &gradient))?;
        Ok((Some(of_qkv), Some(of_bias)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Windows, composed, relative_positions, window_attention};
    use crate::gradient_check::{check_gradients, normal, same};
    use candle_core::{DType, Tensor, Var};

    /// Grid, window, shift.
    type Cut = ((usize, usize), (usize, usize), usize);

    /// Without and with a shift, several windows, one window, one token.
    const ALL: [Cut; 5] = [
        ((4, 6), (2, 2), 0),
        ((4, 6), (2, 2), 1),
        ((6, 3), (3, 3), 2),
        ((2, 2), (2, 2), 0),
        ((1, 1), (1, 1), 0),
    ];

    #[test]
    fn the_kernel_is_the_composed_form_forward_and_backward() {
        for (grid, window, shift) in ALL {
            let windows = Windows::new(grid, window, shift).unwrap();
            let (tokens, inside) = (grid.0 * grid.1, windows.tokens());
            for (width, dtype, tolerance) in
                [(3, DType::F64, 1e-12), (16, DType::F32, 1e-5), (5, DType::F32, 1e-5)]
            {
                let typed = |t: Tensor| Var::from_tensor(&t.to_dtype(dtype).unwrap()).unwrap();
                let qkv = typed(normal(&[3, tokens, 3 * 2 * width], 0));
                let bias = typed(normal(&[2, inside, inside], 1));
                let cotangent = normal(&[3, tokens, 2 * width], 2).to_dtype(dtype).unwrap();
                let all = [window_attention, composed].map(|f| {
                    let y = f(&qkv, &bias, &windows, 2).unwrap();
                    let gradients = (&y * &cotangent).unwrap().sum_all().unwrap().backward().unwrap();
                    [y.detach(), gradients.get(&qkv).unwrap().clone(), gradients.get(&bias).unwrap().clone()]
                });
                for (found, wanted) in all[0].iter().zip(&all[1]) {
                    same(found, wanted, tolerance);
                }
            }
        }
    }

    #[test]
    fn gradients_are_right() {
        for (grid, window, shift) in ALL {
            let windows = Windows::new(grid, window, shift).unwrap();
            let inside = windows.tokens();
            let inputs = [normal(&[2, grid.0 * grid.1, 12], 3), normal(&[2, inside, inside], 4)];
            check_gradients(&inputs, |t| window_attention(&t[0], &t[1], &windows, 2));
        }
    }

    #[test]
    fn a_window_of_one_token_has_no_gradient_but_that_of_its_values() {
        let windows = Windows::new((2, 2), (1, 1), 0).unwrap();
        let qkv = Var::from_tensor(&normal(&[1, 4, 6], 5)).unwrap();
        let bias = Var::from_tensor(&normal(&[1, 1, 1], 6)).unwrap();
        let y = window_attention(&qkv, &bias, &windows, 1).unwrap();
        same(&y, &qkv.narrow(2, 4, 2).unwrap(), 0.0);
        let gradients = y.sum_all().unwrap().backward().unwrap();
        let of_keys = gradients.get(&qkv).unwrap().narrow(2, 0, 4).unwrap();
        same(&of_keys, &of_keys.zeros_like().unwrap(), 0.0);
        same(gradients.get(&bias).unwrap(), &bias.zeros_like().unwrap(), 0.0);
    }

    #[test]
    fn tokens_that_only_the_shift_brought_together_are_apart() {
        let windows = Windows::new((4, 4), (2, 2), 1).unwrap();
        assert_eq!(windows.order[..4], [5, 6, 9, 10]);
        let mask = windows.mask.as_ref().unwrap();
        // The first window is whole; the last holds the four corners, which are no neighbours.
        assert!(mask[..16].iter().all(|&apart| apart == 0.0));
        assert_eq!(windows.order[12..], [15, 12, 3, 0]);
        let last: Vec<f32> = (0..16).map(|pair| if pair / 4 == pair % 4 { 0.0 } else { -100.0 }).collect();
        assert_eq!(mask[48..], last);
    }

    #[test]
    fn relative_positions_count_from_the_far_corner() {
        assert_eq!(relative_positions((1, 1)), [0]);
        assert_eq!(relative_positions((1, 3)), [2, 1, 0, 3, 2, 1, 4, 3, 2]);
        let square = relative_positions((2, 2));
        assert_eq!(square, [4, 3, 1, 0, 5, 4, 2, 1, 7, 6, 4, 3, 8, 7, 5, 4]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(Windows::new((4, 5), (2, 2), 0).unwrap_err().to_string().contains("multiple"));
        assert!(Windows::new((4, 4), (0, 2), 0).is_err());
        assert!(Windows::new((4, 4), (2, 2), 2).unwrap_err().to_string().contains("shift"));
        let windows = Windows::new((4, 4), (2, 2), 0).unwrap();
        let bias = normal(&[2, 4, 4], 0);
        let wrong = window_attention(&normal(&[1, 15, 12], 0), &bias, &windows, 2).unwrap_err().to_string();
        assert!(wrong.contains("qkv") && wrong.contains("16"), "{wrong}");
        let wrong = window_attention(&normal(&[1, 16, 12], 0), &normal(&[1, 4, 4], 0), &windows, 2);
        assert!(wrong.unwrap_err().to_string().contains("bias"));
    }

    #[test]
    fn types_may_differ_and_images_be_none() {
        for (dtype, of_bias) in
            [(DType::F16, DType::F32), (DType::BF16, DType::F32), (DType::F32, DType::F64)]
        {
            for shift in [0, 1] {
                let windows = Windows::new((4, 4), (2, 2), shift).unwrap();
                let qkv = normal(&[1, 16, 12], 0).to_dtype(dtype).unwrap();
                let bias = normal(&[2, 4, 4], 1).to_dtype(of_bias).unwrap();
                let found = window_attention(&qkv, &bias, &windows, 2).unwrap();
                assert_eq!(found.dtype(), dtype);
                let double = |t: &Tensor| t.to_dtype(DType::F64).unwrap();
                let wanted = window_attention(&double(&qkv), &double(&bias), &windows, 2).unwrap();
                same(&found, &wanted, 2e-2);
                let none = qkv.narrow(0, 0, 0).unwrap();
                assert_eq!(window_attention(&none, &bias, &windows, 2).unwrap().dims(), [0, 16, 4]);
            }
        }
    }
}
