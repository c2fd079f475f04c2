//! The types of numbers that operations take, and half types where candle has no sums for them.

use candle_core::{DType, Tensor};

use crate::{Error, Result};

/// Refuses what is not of a floating-point type: candle gives zeros for it, or panics.
pub(crate) fn floating(operation: &'static str, argument: &'static str, x: &Tensor) -> Result<()> {
    if x.dtype().is_float() {
        return Ok(());
    }
    Err(Error::Type { operation, argument, found: x.dtype() })
}

/// The arguments in f32, if all of them are of one half type: candle adds such numbers up in the type itself on the host,
/// where a sum of bf16 stands still from 256 times its terms on.
pub(crate) fn widened<const N: usize>(arguments: [&Tensor; N]) -> Result<Option<[Tensor; N]>> {
    let is_half = |dtype: DType| matches!(dtype, DType::F16 | DType::BF16);
    let first = arguments.first().map(|x| x.dtype());
    if !first.is_some_and(is_half) || arguments.iter().any(|x| Some(x.dtype()) != first) {
        return Ok(None);
    }
    let mut wide = arguments.map(Tensor::clone);
    for x in &mut wide {
        *x = x.to_dtype(DType::F32)?;
    }
    Ok(Some(wide))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::{DType, Device, Tensor, Var};

    use crate::gradient_check::{normal, values};
    use crate::{
        Gelu, SsimOptions, VarianceGradient, avg_pool2d, batch_norm_rows_train, batch_norm_train, bias_gelu,
        binary_cross_entropy, binary_cross_entropy_with_logits, gelu, layer_norm, norm_last_dim, safe_sqrt,
        silu, softmax, softplus, squared_error, ssim, swiglu,
    };

    /// Operations that add up, over rows of `(2, 4096)` or images of `(4, 2, 32, 32)` and the vectors they need.
    type Operation = fn(&Tensor, &Tensor, &Tensor) -> Tensor;

    const OVER_ROWS: [(&str, Operation); 4] = [
        ("softmax", |x, _, _| softmax(x).unwrap()),
        ("layer_norm", |x, w, b| layer_norm(x, w, b, 1e-6).unwrap()),
        ("norm_last_dim", |x, _, _| norm_last_dim(x).unwrap()),
        ("squared_error", |x, w, _| {
            squared_error(x, &w.broadcast_as(x.shape()).unwrap().contiguous().unwrap()).unwrap()
        }),
    ];

    fn plane_norm(x: &Tensor, weight: &Tensor, bias: &Tensor) -> crate::BatchNormed {
        batch_norm_train(x, weight, bias, 1e-5, VarianceGradient::True).unwrap()
    }

    fn last_norm(x: &Tensor, weight: &Tensor, bias: &Tensor) -> crate::BatchNormed {
        batch_norm_rows_train(&x.permute((0, 2, 3, 1)).unwrap(), weight, bias, 1e-5).unwrap()
    }

    const OVER_IMAGES: [(&str, Operation); 7] = [
        ("batch_norm_train", |x, w, b| plane_norm(x, w, b).y),
        ("batch_norm_train's mean", |x, w, b| plane_norm(x, w, b).statistics.mean),
        ("batch_norm_train's variance", |x, w, b| plane_norm(x, w, b).statistics.variance),
        ("batch_norm_rows_train", |x, w, b| last_norm(x, w, b).y),
        ("batch_norm_rows_train's mean", |x, w, b| last_norm(x, w, b).statistics.mean),
        ("ssim", |x, _, _| ssim(x, &x.flip(&[3]).unwrap(), &SsimOptions::default()).unwrap()),
        ("avg_pool2d", |x, _, _| avg_pool2d(x, crate::PoolWindows::new(32), true).unwrap()),
    ];

    #[test]
    fn sums_of_half_types_keep_their_digits() {
        let rows = [(normal(&[2, 4096], 0) * 3.0).unwrap(), normal(&[4096], 1), normal(&[4096], 2)];
        let images = [(normal(&[4, 2, 32, 32], 3) + 1.0).unwrap(), normal(&[2], 4), normal(&[2], 5)];
        let all = OVER_ROWS.map(|one| (one, &rows)).into_iter().chain(OVER_IMAGES.map(|one| (one, &images)));
        for ((name, operation), arguments) in all {
            for (dtype, tolerance) in [(DType::F16, 1e-3), (DType::BF16, 8e-3)] {
                let half = arguments.each_ref().map(|t| t.to_dtype(dtype).unwrap());
                let exact = half.each_ref().map(|t| t.to_dtype(DType::F64).unwrap());
                let found = operation(&half[0], &half[1], &half[2]);
                assert_eq!(found.dtype(), dtype, "{name}");
                let wanted = values(&operation(&exact[0], &exact[1], &exact[2]));
                let largest = wanted.iter().fold(0.0, |most: f64, v| most.max(v.abs()));
                for (found, wanted) in values(&found).into_iter().zip(wanted) {
                    assert!(
                        (found - wanted).abs() <= tolerance * largest,
                        "{name}, {dtype:?}: {found} {wanted}"
                    );
                }
            }
        }
    }

    #[test]
    fn gradients_in_half_types_are_finite_far_out() {
        for dtype in [DType::F16, DType::BF16] {
            let far =
                Tensor::new(&[-300_f32, -50., 50., 300.], &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
            let far = Var::from_tensor(&far).unwrap();
            let store = gelu(&far, Gelu::Tanh).unwrap().sum_all().unwrap().backward().unwrap();
            assert_eq!(values(store.get(&far).unwrap()), [0.0, 0.0, 1.0, 1.0]);
        }
        // The sum of more rows than bf16 can count.
        let (x, row) = (
            Tensor::zeros((1000, 2), DType::BF16, &Device::Cpu).unwrap(),
            Var::zeros(2, DType::BF16, &Device::Cpu).unwrap(),
        );
        let store = bias_gelu(&x, &row, Gelu::Quick).unwrap().sum_all().unwrap().backward().unwrap();
        assert_eq!(values(store.get(&row).unwrap()), [500.0, 500.0]);
    }

    #[test]
    fn whole_numbers_are_refused_by_name() {
        let x = Tensor::new(&[[1_u32, 2], [3, 4]], &Device::Cpu).unwrap();
        let row = Tensor::new(&[1_u32, 2], &Device::Cpu).unwrap();
        let image = x.reshape((1, 1, 2, 2)).unwrap();
        for (name, found) in [
            ("gelu", gelu(&x, Gelu::Erf)),
            ("bias_gelu", bias_gelu(&x, &row, Gelu::Tanh)),
            ("silu", silu(&x)),
            ("swiglu", swiglu(&x, Some(&row))),
            ("softmax", softmax(&x)),
            ("layer_norm", layer_norm(&x, &row, &row, 1e-6)),
            ("squared_error", squared_error(&x, &x)),
            ("norm_last_dim", norm_last_dim(&x)),
            ("safe_sqrt", safe_sqrt(&x)),
            ("softplus", softplus(&x)),
            ("binary_cross_entropy", binary_cross_entropy(&x, &x)),
            ("binary_cross_entropy_with_logits", binary_cross_entropy_with_logits(&x, &x)),
            ("ssim", ssim(&image, &image, &SsimOptions { radius: 0, ..SsimOptions::default() })),
        ] {
            let message = found.unwrap_err().to_string();
            assert!(message.starts_with(name) && message.ends_with("is u32"), "{name}: {message}");
        }
    }
}
