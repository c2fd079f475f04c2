use candle_core::{DType, Tensor};

use crate::{Dropout, Error, Result, softmax};

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
    /// Added to the scaled products; broadcast to `(B, H, N, N)`.
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
    /// The probabilities asked for.
    pub weights: Option<Tensor>,
}

/// Multi-head attention from one packed tensor `(B, N, 3 H d)`: queries, keys, values, each of H heads of d channels.
///
/// (Vaswani et al. 2017, arXiv 1706.03762.)
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
    let split = qkv.reshape((batch, tokens, 3, heads, packed / (3 * heads)))?;
    let part = |i: usize| split.narrow(2, i, 1)?.squeeze(2)?.transpose(1, 2);
    attention_qkv(&part(0)?, &part(1)?, &part(2)?, options)
}

/// Multi-head attention from separate queries, keys and values `(B, H, N, d)`, for instance after rotary positions.
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
    let full = (batch, heads, tokens, tokens);
    let broadcast = |t: Option<&Tensor>| t.map(|t| t.broadcast_as(full)).transpose();
    let bias = broadcast(options.bias)?;
    let mask = broadcast(options.mask)?;
    let scale = options.scale.unwrap_or_else(|| 1.0 / (width as f64).sqrt());

    let tracked = q.track_op() || k.track_op() || v.track_op() || bias.as_ref().is_some_and(Tensor::track_op);
    // Without a graph the probabilities are needed for a moment only: a few images at a time bound them. A drawn
    // dropout mask would come in another order, so that case goes in one piece.
    let per_image = (heads * tokens * tokens).max(1);
    let images = if tracked || options.dropout.is_some() || options.weights == AttentionWeights::Full {
        batch
    } else {
        (CHUNK / per_image).clamp(1, batch.max(1))
    };
    let mut contexts = Vec::new();
    let mut weights = Vec::new();
    let mut start = 0;
    while start < batch {
        let length = images.min(batch - start);
        let of = |t: &Tensor| t.narrow(0, start, length);
        let logits = (of(q)? * scale)?.matmul(&of(k)?.contiguous()?.t()?)?;
        let logits = match &bias {
            Some(bias) => (logits + of(bias)?)?,
            None => logits,
        };
        let logits = match &mask {
            Some(mask) => {
                let allowed = of(mask)?.ne(&of(mask)?.zeros_like()?)?;
                let lowest = Tensor::full(lowest(logits.dtype()), (), logits.device())?
                    .to_dtype(logits.dtype())?
                    .broadcast_as(logits.shape())?;
                allowed.where_cond(&logits, &lowest)?
            }
            None => logits,
        };
        let probabilities = softmax(&logits)?;
        match options.weights {
            AttentionWeights::None => {}
            AttentionWeights::ClassRow => weights.push(probabilities.narrow(2, 0, 1)?.squeeze(2)?),
            AttentionWeights::Full => weights.push(probabilities.clone()),
        }
        let dropped = match &mut options.dropout {
            Some(dropout) => dropout.apply(&probabilities)?,
            None => probabilities,
        };
        let context = dropped.matmul(&of(v)?.contiguous()?)?;
        contexts.push(context.transpose(1, 2)?.reshape((length, tokens, heads * width))?);
        start += length;
    }
    if batch == 0 {
        return Err(Error::shape("attention", "q", "at least one image", q.shape()));
    }
    let weights = match options.weights {
        AttentionWeights::None => None,
        _ => Some(Tensor::cat(&weights, 0)?),
    };
    Ok(Attention { context: Tensor::cat(&contexts, 0)?, weights })
}

/// Probabilities held at once in inference: 16 MiB of f32, about what stays in a shared cache.
const CHUNK: usize = 4 << 20;

/// The most negative finite number of a type: an infinity would turn a fully masked row into NaN.
fn lowest(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => f64::MIN,
        DType::F16 => -65504.0,
        // The largest finite bf16.
        DType::BF16 => -3.389_531_389_251_535_5e38,
        _ => f64::from(f32::MIN),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{AttentionOptions, AttentionWeights, attention, attention_qkv};
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

    #[test]
    fn chunks_give_what_one_piece_gives() {
        // 3 images of 2 * 1200^2 probabilities: one image at a time without a graph, all at once with one.
        let qkv = normal(&[3, 1200, 12], 6).to_dtype(DType::F32).unwrap();
        let mut options =
            AttentionOptions { weights: AttentionWeights::ClassRow, ..AttentionOptions::new(2) };
        let plain = attention(&qkv, &mut options).unwrap();
        let var = Var::from_tensor(&qkv).unwrap();
        let tracked = attention(var.as_tensor(), &mut options).unwrap();
        assert!(!plain.context.track_op() && tracked.context.track_op());
        same(&plain.context, &tracked.context, 1e-6);
        same(&plain.weights.unwrap(), &tracked.weights.unwrap(), 1e-6);
    }

    #[test]
    fn wrong_shapes_are_named() {
        let message =
            attention(&normal(&[1, 2, 10], 0), &mut AttentionOptions::new(2)).unwrap_err().to_string();
        assert!(message.contains("qkv") && message.contains("2 heads"), "{message}");
        let (q, k) = (normal(&[1, 2, 3, 2], 0), normal(&[1, 2, 4, 2], 0));
        assert!(attention_qkv(&q, &k, &q, &mut AttentionOptions::new(2)).is_err());
    }
}
