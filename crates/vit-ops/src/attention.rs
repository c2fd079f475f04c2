mod blockwise;
mod gradient;
mod sets;

use candle_core::{DType, Tensor};

use crate::rows::has_kernels;
use crate::{Dropout, Error, Result, softmax};
use blockwise::Blockwise;
pub(crate) use sets::Kept;
use sets::{Mask, four_axes};

/// Which attention probabilities to return beside the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AttentionWeights {
    /// None.
    #[default]
    None,
    /// The row of token 0, the class token: `(B, H, N)`.
    ClassRow,
    /// All: `(B, H, N, N)`.
    Full,
}

/// How attention is computed.
#[derive(Debug)]
pub struct AttentionOptions<'a> {
    /// The number of heads H.
    pub heads: usize,
    /// What the products of queries and keys are multiplied by; `1 / sqrt(d)`, d the width of a head, if left out.
    pub scale: Option<f64>,
    /// Added to the scaled products; broadcast to `(B, H, N, N)`. What a query attends to whose
    /// allowed keys all have a bias of minus infinity is undefined.
    pub bias: Option<&'a Tensor>,
    /// Which key (last axis) a query (axis before) may attend to: not 0 = it may; broadcast to `(B, H, N, N)`. A
    /// query without any key attends to all of them evenly.
    pub mask: Option<&'a Tensor>,
    /// Dropout of the probabilities, `(B, H, N, N)`; the weights returned are those before it.
    pub dropout: Option<Dropout<'a>>,
    /// What to return beside the context.
    pub weights: AttentionWeights,
}

impl AttentionOptions<'_> {
    /// Plain attention with `heads` heads.
    pub fn new(heads: usize) -> Self {
        Self { heads, scale: None, bias: None, mask: None, dropout: None, weights: AttentionWeights::None }
    }
}

/// What [`attention`] returns.
#[derive(Debug, Clone)]
pub struct Attention {
    /// `(B, N, H * d)`: the heads' results side by side.
    pub context: Tensor,
    /// The probabilities asked for; f32 where the queries are f16 or bf16.
    pub weights: Option<Tensor>,
}

/// Multi-head attention from one packed tensor `(B, N, 3 H d)`: queries, keys, values, each of H heads of d channels.
///
/// On the host, the N x N probabilities of a head exist in blocks of query rows only, forward as backward, unless all
/// of them are asked for; values are added up before they are divided by the sum of their weights, so N times the largest
/// value has to be a finite number. (Vaswani et al. 2017, arXiv 1706.03762; block by block: Dao et al. 2022, arXiv 2205.14135.)
///
/// # Errors
///
/// If `qkv` is not of three axes with a last one that divides by `3 H`, or bias or mask cannot be broadcast.
pub fn attention(qkv: &Tensor, options: &mut AttentionOptions<'_>) -> Result<Attention> {
    let heads = options.heads;
    let (batch, tokens, packed) = match qkv.dims3() {
        Ok((b, n, p)) if heads > 0 && p % (3 * heads) == 0 => (b, n, p),
        _ => {
            let expected = format!("(B, N, 3 * {heads} heads * d)");
            return Err(Error::shape("attention", "qkv", expected, qkv.shape()));
        }
    };
    let sizes = Sizes { batch, tokens, heads, width: packed / (3 * heads) };
    if qkv.elem_count() == 0 {
        return of_nothing(qkv, sizes, options.weights);
    }
    if has_kernels(qkv) && options.bias.is_none_or(|bias| bias.dtype() == qkv.dtype()) {
        return in_blocks(qkv, sizes, options);
    }
    #[cfg(feature = "cuda")]
    if crate::cuda::operations::takes_attention(qkv, sizes.width, options.bias, options.mask) {
        return on_gpu(qkv, sizes, options);
    }
    let parts = parts(qkv, sizes)?;
    composed(&parts, sizes, options)
}

/// Multi-head attention from separate queries, keys and values `(B, H, N, d)`. Where there is a choice, packed ones
/// ([`attention`]) save a copy.
///
/// # Errors
///
/// If the shapes differ from each other or from `options.heads`, or bias or mask cannot be broadcast.
pub fn attention_qkv(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    options: &mut AttentionOptions<'_>,
) -> Result<Attention> {
    let (batch, heads, tokens, width) = match q.dims4() {
        Ok((b, h, n, d)) if h == options.heads => (b, h, n, d),
        _ => {
            let expected = format!("(B, {}, N, d)", options.heads);
            return Err(Error::shape("attention_qkv", "q", expected, q.shape()));
        }
    };
    for (argument, tensor) in [("k", k), ("v", v)] {
        if tensor.dims() != q.dims() {
            let expected = format!("{:?} like q", q.shape());
            return Err(Error::shape("attention_qkv", argument, expected, tensor.shape()));
        }
    }
    #[cfg(feature = "cuda")]
    let has_kernels =
        |q| has_kernels(q) || crate::cuda::operations::takes_attention(q, width, options.bias, options.mask);
    if has_kernels(q) {
        let parts = [q.transpose(1, 2)?, k.transpose(1, 2)?, v.transpose(1, 2)?];
        return attention(&Tensor::stack(&parts, 2)?.reshape((batch, tokens, 3 * heads * width))?, options);
    }
    composed(&[q.clone(), k.clone(), v.clone()], Sizes { batch, tokens, heads, width }, options)
}

/// The attention of no image, or of images without a token.
fn of_nothing(qkv: &Tensor, sizes: Sizes, weights: AttentionWeights) -> Result<Attention> {
    let (batch, heads, tokens, _) = sizes.of_weights();
    let dtype = if qkv.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let weights = match weights {
        AttentionWeights::None => None,
        AttentionWeights::ClassRow => Some(Tensor::zeros((batch, heads, tokens), dtype, qkv.device())?),
        AttentionWeights::Full => Some(Tensor::zeros(sizes.of_weights(), dtype, qkv.device())?),
    };
    Ok(Attention { context: qkv.narrow(2, 0, sizes.heads * sizes.width)?.contiguous()?, weights })
}

/// What a packed tensor holds.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    batch: usize,
    tokens: usize,
    heads: usize,
    /// Of a head.
    width: usize,
}

impl Sizes {
    fn of_weights(self) -> (usize, usize, usize, usize) {
        (self.batch, self.heads, self.tokens, self.tokens)
    }

    fn scale(self, options: &AttentionOptions<'_>) -> f64 {
        options.scale.unwrap_or_else(|| 1.0 / (self.width as f64).sqrt())
    }
}

/// Queries, keys and values `(B, H, N, d)`, views.
fn parts(qkv: &Tensor, sizes: Sizes) -> Result<[Tensor; 3]> {
    let Sizes { batch, tokens, heads, width } = sizes;
    let split = qkv.reshape((batch, tokens, 3, heads, width))?;
    let part = |i: usize| split.narrow(2, i, 1)?.squeeze(2)?.transpose(1, 2);
    Ok([part(0)?, part(1)?, part(2)?])
}

/// The weights that are asked for, by themselves: they are seldom asked for, and then mostly one row of them.
fn weights_apart(qkv: &Tensor, sizes: Sizes, options: &AttentionOptions<'_>) -> Result<Option<Tensor>> {
    Ok(match options.weights {
        AttentionWeights::None => None,
        AttentionWeights::ClassRow => {
            let [q, k, _] = parts(qkv, sizes)?;
            let row = probabilities(&q.narrow(2, 0, 1)?, &k, sizes, options)?;
            Some(row.squeeze(2)?)
        }
        AttentionWeights::Full => {
            let [q, k, _] = parts(qkv, sizes)?;
            Some(probabilities(&q, &k, sizes, options)?)
        }
    })
}

/// With the kernels for GPUs.
#[cfg(feature = "cuda")]
fn on_gpu(qkv: &Tensor, sizes: Sizes, options: &mut AttentionOptions<'_>) -> Result<Attention> {
    let full = sizes.of_weights();
    let weights = weights_apart(qkv, sizes, options)?;
    let in_four_axes = |t: &Tensor| -> Result<Tensor> {
        // Only for its error.
        t.broadcast_as(full)?;
        Ok(t.reshape(four_axes(t.dims()))?.contiguous()?)
    };
    let mask = match options.mask {
        Some(mask) => Some(in_four_axes(&mask.ne(&mask.zeros_like()?)?)?),
        None => None,
    };
    let keep = match &mut options.dropout {
        Some(dropout) if dropout.rate != 0.0 => {
            Some(dropout.apply(&Tensor::ones(full, qkv.dtype(), qkv.device())?)?.contiguous()?)
        }
        _ => None,
    };
    let bias = options.bias.map(in_four_axes).transpose()?;
    let scale = sizes.scale(options);
    let operation = crate::cuda::operations::Attention { heads: sizes.heads, scale, mask, keep };
    Ok(Attention { context: crate::cuda::operations::attend(qkv, bias.as_ref(), operation)?, weights })
}

/// With the kernels of the host.
fn in_blocks(qkv: &Tensor, sizes: Sizes, options: &mut AttentionOptions<'_>) -> Result<Attention> {
    let full = sizes.of_weights();
    let weights = weights_apart(qkv, sizes, options)?;
    let mask = options.mask.map(|mask| Mask::new(mask, full)).transpose()?;
    let kept = match &mut options.dropout {
        Some(dropout) => dropout.kept(full)?,
        None => None,
    };
    let operation = Blockwise { sizes, scale: sizes.scale(options), mask, kept };
    let qkv = qkv.contiguous()?;
    let context = match options.bias {
        None => qkv.apply_op1(operation)?,
        Some(bias) => {
            // Only for its error.
            bias.broadcast_as(full)?;
            qkv.apply_op2(&bias.reshape(four_axes(bias.dims()))?.contiguous()?, operation)?
        }
    };
    Ok(Attention { context, weights })
}

/// From plain operations: what other devices and types run.
fn composed([q, k, v]: &[Tensor; 3], sizes: Sizes, options: &mut AttentionOptions<'_>) -> Result<Attention> {
    let Sizes { batch, tokens, heads, width } = sizes;
    let all = probabilities(q, k, sizes, options)?;
    let weights = match options.weights {
        AttentionWeights::None => None,
        AttentionWeights::ClassRow => Some(all.narrow(2, 0, 1)?.squeeze(2)?),
        AttentionWeights::Full => Some(all.clone()),
    };
    let dropped = match &mut options.dropout {
        Some(dropout) => dropout.apply(&all)?,
        None => all,
    };
    let context = dropped.to_dtype(v.dtype())?.matmul(&v.contiguous()?)?;
    let context = context.transpose(1, 2)?.reshape((batch, tokens, heads * width))?;
    Ok(Attention { context, weights })
}

/// The softmax of all products of the queries, `(B, H, N, d)` or their first row `(B, H, 1, d)`, with the keys; in f32 at
/// least.
fn probabilities(q: &Tensor, k: &Tensor, sizes: Sizes, options: &AttentionOptions<'_>) -> Result<Tensor> {
    let rows = q.dim(2)?;
    let dtype = if q.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let (q, k) = (q.to_dtype(dtype)?, k.to_dtype(dtype)?);
    let of = |t: &Tensor| -> Result<Tensor> { Ok(t.broadcast_as(sizes.of_weights())?.narrow(2, 0, rows)?) };
    let logits = (&q * sizes.scale(options))?.matmul(&k.contiguous()?.t()?)?;
    let logits = match options.bias {
        Some(bias) => (logits + of(bias)?.to_dtype(dtype)?)?,
        None => logits,
    };
    let logits = match options.mask {
        Some(mask) => {
            let mask = of(mask)?;
            let allowed = mask.ne(&mask.zeros_like()?)?;
            // An infinity would turn a fully masked row into NaN.
            let lowest = if dtype == DType::F64 { f64::MIN } else { f64::from(f32::MIN) };
            let lowest = Tensor::full(lowest, (), logits.device())?.to_dtype(dtype)?;
            let lowest = lowest.broadcast_as(logits.shape())?;
            allowed.where_cond(&logits, &lowest)?
        }
        None => logits,
    };
    softmax(&logits)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{AttentionOptions, AttentionWeights, Sizes, attention, attention_qkv, composed, parts};
    use crate::Dropout;
    use crate::gradient_check::{check_gradients, normal, same, values};
    use candle_core::{DType, Device, Tensor, Var};
    use random_streams::Streams;

    /// Loops and nothing else.
    #[allow(clippy::too_many_arguments)]
    fn by_hand(qkv: &[f64], b: usize, n: usize, h: usize, d: usize, scale: f64) -> (Vec<f64>, Vec<f64>) {
        let at = |i: usize, t: usize, part: usize, head: usize, c: usize| {
            qkv[((i * n + t) * 3 + part) * h * d + head * d + c]
        };
        let mut context = vec![0.0; b * n * h * d];
        let mut weights = vec![0.0; b * h * n * n];
        for i in 0..b {
            for head in 0..h {
                for q in 0..n {
                    let products: Vec<f64> = (0..n)
                        .map(|k| {
                            scale * (0..d).map(|c| at(i, q, 0, head, c) * at(i, k, 1, head, c)).sum::<f64>()
                        })
                        .collect();
                    let sum: f64 = products.iter().map(|p| p.exp()).sum();
                    for k in 0..n {
                        let p = products[k].exp() / sum;
                        weights[((i * h + head) * n + q) * n + k] = p;
                        for c in 0..d {
                            context[(i * n + q) * h * d + head * d + c] += p * at(i, k, 2, head, c);
                        }
                    }
                }
            }
        }
        (context, weights)
    }

    #[test]
    fn values_are_those_of_plain_loops() {
        let (b, n, h, d) = (2, 5, 3, 2);
        let qkv = normal(&[b, n, 3 * h * d], 0);
        for scale in [None, Some(0.3)] {
            let mut options =
                AttentionOptions { scale, weights: AttentionWeights::Full, ..AttentionOptions::new(h) };
            let found = attention(&qkv, &mut options).unwrap();
            let (context, weights) =
                by_hand(&values(&qkv), b, n, h, d, scale.unwrap_or(1.0 / (d as f64).sqrt()));
            let context = Tensor::from_vec(context, (b, n, h * d), &Device::Cpu).unwrap();
            let weights = Tensor::from_vec(weights, (b, h, n, n), &Device::Cpu).unwrap();
            same(&found.context, &context, 1e-12);
            same(found.weights.as_ref().unwrap(), &weights, 1e-12);
            options.weights = AttentionWeights::ClassRow;
            let row = attention(&qkv, &mut options).unwrap().weights.unwrap();
            same(&row, &weights.narrow(2, 0, 1).unwrap().squeeze(2).unwrap(), 1e-12);
        }
    }

    #[test]
    fn gradients_are_right_with_every_option() {
        let mask = Tensor::from_vec(vec![1_u8, 0, 1, 1, 1, 1, 0, 1, 1], (3, 3), &Device::Cpu).unwrap();
        let keep = Tensor::from_vec(
            Streams::new(0).stream("dropout").keep_mask(2 * 2 * 9, 0.3),
            (2, 2, 3, 3),
            &Device::Cpu,
        )
        .unwrap();
        check_gradients(&[normal(&[2, 3, 12], 0), normal(&[2, 3, 3], 1)], |t| {
            let mut options = AttentionOptions {
                bias: Some(&t[1]),
                mask: Some(&mask),
                dropout: Some(Dropout::given(0.3, &keep)),
                ..AttentionOptions::new(2)
            };
            Ok(attention(&t[0], &mut options)?.context)
        });
        check_gradients(&[normal(&[2, 3, 12], 0)], |t| {
            let mut options =
                AttentionOptions { weights: AttentionWeights::ClassRow, ..AttentionOptions::new(2) };
            Ok(attention(&t[0], &mut options)?.weights.unwrap())
        });
        check_gradients(
            &[normal(&[1, 2, 3, 2], 2), normal(&[1, 2, 3, 2], 3), normal(&[1, 2, 3, 2], 4)],
            |t| Ok(attention_qkv(&t[0], &t[1], &t[2], &mut AttentionOptions::new(2))?.context),
        );
    }

    #[test]
    fn masked_keys_get_nothing_and_an_empty_row_stays_finite() {
        let mask = Tensor::from_vec(vec![1_f32, 0., 0., 0.], (2, 2), &Device::Cpu).unwrap();
        let mut options = AttentionOptions {
            mask: Some(&mask),
            weights: AttentionWeights::Full,
            ..AttentionOptions::new(1)
        };
        let found = attention(&normal(&[1, 2, 6], 5), &mut options).unwrap().weights.unwrap();
        assert_eq!(values(&found), [1., 0., 0.5, 0.5]);
    }

    /// Two blocks of query rows, the second one shorter.
    const LONG: usize = 150;

    /// Context, and the gradients of a weighted sum of it.
    fn with_gradients(
        inputs: &[Tensor],
        f: impl Fn(&[Tensor]) -> crate::Result<super::Attention>,
    ) -> Vec<Tensor> {
        let vars: Vec<Var> = inputs.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
        let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
        let context = f(&tensors).unwrap().context;
        let weights = normal(context.dims(), 99).to_dtype(context.dtype()).unwrap();
        let gradients = (&context * weights).unwrap().sum_all().unwrap().backward().unwrap();
        let mut all = vec![context.detach()];
        all.extend(vars.iter().map(|var| gradients.get(var).unwrap().clone()));
        all
    }

    fn every_option<'a>(bias: &'a Tensor, mask: &'a Tensor, keep: &'a Tensor) -> AttentionOptions<'a> {
        AttentionOptions {
            bias: Some(bias),
            mask: Some(mask),
            dropout: Some(Dropout::given(0.1, keep)),
            ..AttentionOptions::new(2)
        }
    }

    fn single(t: &Tensor) -> Tensor {
        t.to_dtype(DType::F32).unwrap()
    }

    #[test]
    fn blocks_in_f32_give_what_plain_operations_give_in_f64() {
        let (b, n, h, d) = (2, LONG, 2, 8);
        let sizes = Sizes { batch: b, tokens: n, heads: h, width: d };
        let qkv = normal(&[b, n, 3 * h * d], 20);
        let mask = Streams::new(1).stream("mask").keep_mask(n * n, 0.2);
        let mask = Tensor::from_vec(mask, (n, n), &Device::Cpu).unwrap();
        let keep = Streams::new(2).stream("keep").keep_mask(b * h * n * n, 0.1);
        let keep = Tensor::from_vec(keep, (b, h, n, n), &Device::Cpu).unwrap();
        // Every way that a bias can be shared.
        let shapes: [&[usize]; 6] =
            [&[h, n, n], &[b, 1, n, n], &[n, n], &[b, h, n, n], &[b, 1, 1, n], &[1, h, n, 1]];
        for (seed, shape) in shapes.into_iter().enumerate() {
            let bias = normal(shape, 30 + seed as u64);
            let wanted = with_gradients(&[qkv.clone(), bias.clone()], |t| {
                composed(&parts(&t[0], sizes)?, sizes, &mut every_option(&t[1], &mask, &keep))
            });
            let found = with_gradients(&[single(&qkv), single(&bias)], |t| {
                attention(&t[0], &mut every_option(&t[1], &mask, &keep))
            });
            for (found, wanted) in found.iter().zip(&wanted) {
                // A bias that is the same for all keys has a gradient of zero; elsewhere sums grow with what is summed.
                let size = values(wanted).iter().fold(0.1_f64, |size, v| size.max(v.abs()));
                same(found, wanted, 1e-5 * size);
            }
        }
        let wanted = with_gradients(std::slice::from_ref(&qkv), |t| {
            composed(&parts(&t[0], sizes)?, sizes, &mut AttentionOptions::new(h))
        });
        let found = with_gradients(&[single(&qkv)], |t| attention(&t[0], &mut AttentionOptions::new(h)));
        for (found, wanted) in found.iter().zip(&wanted) {
            same(found, wanted, 1e-5);
        }
    }

    #[test]
    fn threads_and_batches_do_not_matter() {
        let qkv = single(&normal(&[3, LONG, 48], 21));
        let bias = single(&normal(&[2, LONG, LONG], 22));
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                with_gradients(&[qkv.clone(), bias.clone()], |t| {
                    let options = AttentionOptions { bias: Some(&t[1]), ..AttentionOptions::new(2) };
                    attention(&t[0], &mut { options })
                })
            })
        };
        for (one, three) in run(1).iter().zip(&run(3)) {
            same(one, three, 0.0);
        }
        let plain = |qkv: &Tensor| attention(qkv, &mut AttentionOptions::new(2)).unwrap().context;
        let all = plain(&qkv);
        for image in 0..3 {
            let alone = plain(&qkv.narrow(0, image, 1).unwrap());
            same(&alone, &all.narrow(0, image, 1).unwrap(), 0.0);
        }
    }

    #[test]
    fn drawn_dropout_takes_the_draws_of_one_mask() {
        let qkv = normal(&[2, 7, 12], 23);
        let (mut stream, mut again) = (Streams::new(4).stream("x"), Streams::new(4).stream("x"));
        let mut options =
            AttentionOptions { dropout: Some(Dropout::drawn(0.4, &mut stream)), ..AttentionOptions::new(2) };
        let found = attention(&qkv, &mut options).unwrap().context;
        let keep = Tensor::from_vec(again.keep_mask(2 * 2 * 49, 0.4), (2, 2, 7, 7), &Device::Cpu).unwrap();
        let dropout = Some(Dropout::given(0.4, &keep));
        let wanted = attention(&qkv, &mut AttentionOptions { dropout, ..AttentionOptions::new(2) }).unwrap();
        same(&found, &wanted.context, 0.0);
        assert_eq!(stream.position(), again.position());
        let wrong = Tensor::ones((2, 2, 7, 6), DType::F32, &Device::Cpu).unwrap();
        let dropout = Some(Dropout::given(0.4, &wrong));
        let mut options = AttentionOptions { dropout, ..AttentionOptions::new(2) };
        assert!(attention(&qkv, &mut options).unwrap_err().to_string().contains("mask"));
    }

    #[test]
    fn wrong_shapes_are_named() {
        let message =
            attention(&normal(&[1, 2, 10], 0), &mut AttentionOptions::new(2)).unwrap_err().to_string();
        assert!(message.contains("qkv") && message.contains("2 heads"), "{message}");
        let (q, k) = (normal(&[1, 2, 3, 2], 0), normal(&[1, 2, 4, 2], 0));
        assert!(attention_qkv(&q, &k, &q, &mut AttentionOptions::new(2)).is_err());
    }

    #[test]
    fn nothing_gives_nothing() {
        for (shape, context) in [([0, 5, 12], [0, 5, 4]), ([2, 0, 12], [2, 0, 4])] {
            for dtype in [DType::F32, DType::F16] {
                let qkv = normal(&shape, 0).to_dtype(dtype).unwrap();
                let [b, n, _] = shape;
                for (weights, wanted) in [
                    (AttentionWeights::None, None),
                    (AttentionWeights::ClassRow, Some(vec![b, 2, n])),
                    (AttentionWeights::Full, Some(vec![b, 2, n, n])),
                ] {
                    let options = &mut AttentionOptions { weights, ..AttentionOptions::new(2) };
                    let found = attention(&qkv, options).unwrap();
                    assert_eq!((found.context.dims(), found.context.dtype()), (context.as_slice(), dtype));
                    assert_eq!(found.weights.map(|weights| weights.dims().to_vec()), wanted);
                }
            }
        }
    }
}
