mod frozen;
mod trained;

use std::sync::Arc;

use candle_core::{D, DType, Device, Tensor};

use crate::activation::gelu_in_place;
use crate::kernels::{Packed, Path};
use crate::rows::{Held, add_row, has_kernels};
use crate::{Error, Gelu, Precision, Result, add_residual, bias_gelu, gelu, swiglu};
use frozen::{Frozen, FrozenResidual};
use trained::{Trained, TrainedWithBias};

/// A linear layer: `x W^T + b`.
///
/// A frozen layer (weight without a graph) in f32 on the host keeps its weight once, in the panels that the processor's
/// kernel reads. A trainable one (weight of a `Var`, or computed from one) keeps the tensor it was given, so that
/// gradients reach the `Var`.
///
/// A frozen layer off the host keeps an f32 weight in bf16 where that is its precision. One whose weight is kept in bf16
/// or f16 ([`Linear::half`]) takes inputs of two types: it rounds f32 ones and gives f32, and gives its own type for
/// inputs of that type, so that what lies between two such layers need not be wider than they are.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Weight,
    bias: Option<Tensor>,
    /// The bias in the type of the weight, where that is another one and the bias has no graph.
    half_bias: Option<Tensor>,
    inputs: usize,
    outputs: usize,
    precision: Precision,
}

#[derive(Debug, Clone)]
enum Weight {
    /// On the host, with the bias's numbers if it has no graph.
    Packed(Arc<Packed>, Option<Arc<[f32]>>),
    /// `(in, out)`, contiguous: other devices and types. And the type it was given in.
    Frozen(Tensor, DType),
    /// `(out, in)`, contiguous.
    Tracked(Tensor),
}

impl Weight {
    fn half(&self) -> Option<DType> {
        match self {
            Self::Frozen(weight, _) => Some(weight.dtype()).filter(|t| matches!(t, DType::F16 | DType::BF16)),
            _ => None,
        }
    }
}

impl Linear {
    /// A layer of `weight` `(out, in)` and `bias` `(out,)` in f32 precision.
    ///
    /// # Errors
    ///
    /// If the shapes are not these, or the weight is empty.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Result<Self> {
        Self::with_precision(weight, bias, Precision::F32)
    }

    /// A layer of `weight` `(out, in)` and `bias` `(out,)` whose products have this precision, the gradients' too. It
    /// concerns f32 tensors; f64 ones are multiplied as they are.
    ///
    /// # Errors
    ///
    /// If the shapes are not these, or the weight is empty.
    // The weight is the layer's from here on, in whatever form.
    #[allow(clippy::needless_pass_by_value)]
    pub fn with_precision(weight: Tensor, bias: Option<Tensor>, precision: Precision) -> Result<Self> {
        let Ok((outputs, inputs)) = weight.dims2() else {
            return Err(Error::shape("linear", "weight", "(out, in)", weight.shape()));
        };
        if outputs == 0 || inputs == 0 {
            return Err(Error::shape("linear", "weight", "(out, in), neither of them 0", weight.shape()));
        }
        if let Some(bias) = &bias
            && bias.dims() != [outputs]
        {
            return Err(Error::shape("linear", "bias", format!("({outputs},)"), bias.shape()));
        }
        let weight = if weight.track_op() {
            Weight::Tracked(weight.contiguous()?)
        } else if has_kernels(&weight) && weight.dtype() == DType::F32 {
            let rows = weight.contiguous()?;
            let packed =
                Packed::transposed(Path::best(), precision, Held::new(&rows).slice::<f32>()?, inputs);
            let bias = match &bias {
                Some(bias) if !bias.track_op() => Some(bias.to_vec1::<f32>()?.into()),
                _ => None,
            };
            Weight::Packed(Arc::new(packed), bias)
        } else {
            let given = weight.dtype();
            let is_half = given == DType::F32 && precision == Precision::Bf16 && !weight.device().is_cpu();
            let kept = if is_half { DType::BF16 } else { given };
            Weight::Frozen(weight.t()?.contiguous()?.to_dtype(kept)?, given)
        };
        let half_bias = match (weight.half(), &bias) {
            (Some(half), Some(bias)) if bias.dtype() != half && !bias.track_op() => {
                Some(bias.to_dtype(half)?)
            }
            _ => None,
        };
        Ok(Self { weight, bias, half_bias, inputs, outputs, precision })
    }

    /// The layer applied to `x` `(.., in)`: `(.., out)`.
    ///
    /// # Errors
    ///
    /// If the last axis of `x` has another length than `in`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.check(x)?;
        if let (Weight::Tracked(weight), Some(bias)) = (&self.weight, &self.bias)
            && has_kernels(x)
            && x.dtype() == bias.dtype()
        {
            let operation = TrainedWithBias(self.precision);
            return Ok(x.contiguous()?.apply_op3(weight, &bias.contiguous()?, operation)?);
        }
        if let Some(layer) = self.frozen(x, true, None)? {
            return Ok(x.contiguous()?.apply_op1(layer)?);
        }
        let product = self.forward_without_bias(x)?;
        Ok(match self.bias_of(product.dtype())? {
            Some(bias) => add_row("linear", &product, &bias)?,
            None => product,
        })
    }

    /// The bias in the type of what it is added to, where the weight is kept in a half type; else as it is.
    fn bias_of(&self, dtype: DType) -> Result<Option<Tensor>> {
        match (&self.half_bias, &self.bias) {
            (Some(half), _) if half.dtype() == dtype => Ok(Some(half.clone())),
            (_, Some(bias)) if self.weight.half().is_some() => Ok(Some(bias.to_dtype(dtype)?)),
            (_, bias) => Ok(bias.clone()),
        }
    }

    /// `x W^T` alone, for callers that add the bias in a later operation ([`bias_gelu`](crate::bias_gelu),
    /// [`add_residual`](crate::add_residual)).
    ///
    /// # Errors
    ///
    /// If the last axis of `x` has another length than `in`.
    pub fn forward_without_bias(&self, x: &Tensor) -> Result<Tensor> {
        self.check(x)?;
        match &self.weight {
            Weight::Tracked(weight) if has_kernels(x) => {
                return Ok(x.contiguous()?.apply_op2(weight, Trained(self.precision))?);
            }
            Weight::Packed(weight, _) if has_kernels(x) => {
                let layer = self.operation(weight, None, None);
                return Ok(x.contiguous()?.apply_op1(layer)?);
            }
            _ => {}
        }
        // All rows in one product: candle would otherwise do one small product per image.
        let rows = x.elem_count() / self.inputs;
        let flat = x.reshape((rows, self.inputs))?;
        let product = match &self.weight {
            Weight::Packed(..) => flat.matmul(&self.weight()?.t()?)?,
            Weight::Frozen(weight, _) => self.composed(&flat, weight)?,
            Weight::Tracked(weight) => self.composed(&flat, &weight.t()?)?,
        };
        let mut dims = x.dims().to_vec();
        if let Some(last) = dims.last_mut() {
            *last = self.outputs;
        }
        Ok(product.reshape(dims)?)
    }

    /// `x` `(rows, in)` times `weight` `(in, out)` by candle's products.
    fn composed(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        if x.dtype() == DType::F32
            && let Some(half) = self.weight.half()
        {
            return Ok(x.to_dtype(half)?.matmul(weight)?.to_dtype(DType::F32)?);
        }
        if x.dtype() != DType::F32 || x.device().is_cpu() {
            return Ok(x.matmul(weight)?);
        }
        let rounded = |t: &Tensor| t.to_dtype(DType::BF16);
        Ok(match self.precision {
            Precision::F32 => x.matmul(weight)?,
            Precision::Bf16 => rounded(x)?.matmul(&rounded(weight)?)?.to_dtype(DType::F32)?,
            Precision::Bf16x3 => {
                // Numbers of bf16 in f32: the device's own product of bf16 would round its sums.
                let high = |t: &Tensor| rounded(t)?.to_dtype(DType::F32);
                let (x_high, weight_high) = (high(x)?, high(weight)?);
                let (x_low, weight_low) = (high(&(x - &x_high)?)?, high(&(weight - &weight_high)?)?);
                let small = (x_low.matmul(&weight_high)? + x_high.matmul(&weight_low)?)?;
                (small + x_high.matmul(&weight_high)?)?
            }
        })
    }

    fn check(&self, x: &Tensor) -> Result<()> {
        if x.dim(D::Minus1)? == self.inputs {
            return Ok(());
        }
        Err(Error::shape("linear", "x", format!("(.., {})", self.inputs), x.shape()))
    }

    /// The layer as one operation on `x`, if it is packed and `x` and the bias can be taken.
    fn frozen(&self, x: &Tensor, gradient: bool, map: Option<fn(&mut [f32])>) -> Result<Option<Frozen>> {
        self.check(x)?;
        let Weight::Packed(weight, bias) = &self.weight else { return Ok(None) };
        let bias_fits = self.bias.is_none() || bias.is_some();
        if !bias_fits || !has_kernels(x) || (x.track_op() && !gradient) {
            return Ok(None);
        }
        Ok(Some(self.operation(weight, bias.clone(), map)))
    }

    fn operation(
        &self,
        weight: &Arc<Packed>,
        bias: Option<Arc<[f32]>>,
        map: Option<fn(&mut [f32])>,
    ) -> Frozen {
        Frozen { weight: Arc::clone(weight), bias, map, inputs: self.inputs, outputs: self.outputs }
    }

    /// GELU of the layer applied to `x` `(.., in)`: `(.., out)`.
    ///
    /// # Errors
    ///
    /// If the last axis of `x` has another length than `in`.
    pub fn forward_gelu(&self, x: &Tensor, form: Gelu) -> Result<Tensor> {
        if let Some(layer) = self.frozen(x, false, Some(gelu_in_place(form)))? {
            return Ok(x.contiguous()?.apply_op1_no_bwd(&layer)?);
        }
        let product = self.forward_without_bias(x)?;
        match self.bias_of(product.dtype())? {
            Some(bias) => bias_gelu(&product, &bias, form),
            None => gelu(&product, form),
        }
    }

    /// [`swiglu`] of the layer applied to `x` `(.., in)`: `(.., out / 2)`.
    ///
    /// # Errors
    ///
    /// If the last axis of `x` has another length than `in`, or `out` is odd.
    pub fn forward_swiglu(&self, x: &Tensor) -> Result<Tensor> {
        let product = self.forward_without_bias(x)?;
        swiglu(&product, self.bias_of(product.dtype())?.as_ref())
    }

    /// The layer applied to `branch` `(.., in)`, times `scale` `(out,)` where there is one, added to `x` `(.., out)`.
    /// `x` may be f32 where `branch` and the layer are of a half type: then so is the sum.
    ///
    /// # Errors
    ///
    /// If the shapes are not these.
    pub fn forward_residual(&self, branch: &Tensor, x: &Tensor, scale: Option<&Tensor>) -> Result<Tensor> {
        let tracked = x.track_op() || scale.is_some_and(Tensor::track_op);
        if !tracked
            && has_kernels(x)
            && let Some(layer) = self.frozen(branch, false, None)?
        {
            let shape = frozen::with_last(branch.shape(), self.outputs);
            if x.shape() != &shape {
                return Err(Error::shape("linear", "x", format!("{shape:?}"), x.shape()));
            }
            if let Some(scale) = scale
                && scale.dims() != [self.outputs]
            {
                let expected = format!("({},)", self.outputs);
                return Err(Error::shape("linear", "scale", expected, scale.shape()));
            }
            let scale = scale.map(Tensor::to_vec1).transpose()?;
            let operation = FrozenResidual { layer, scale };
            return Ok(branch.contiguous()?.apply_op2_no_bwd(&x.contiguous()?, &operation)?);
        }
        let mut product = self.forward_without_bias(branch)?;
        if x.dtype() == DType::F32 && self.half() == Some(product.dtype()) {
            product = product.to_dtype(DType::F32)?;
        }
        let scale = match scale {
            Some(scale) if self.weight.half().is_some() => Some(scale.to_dtype(product.dtype())?),
            scale => scale.cloned(),
        };
        add_residual(x, &product, self.bias_of(product.dtype())?.as_ref(), scale.as_ref())
    }

    /// The type, bf16 or f16, that a frozen weight is kept in, if it is one of them: inputs of that type need no
    /// rounding, and give results of it. None where a bias of another type is trained, which takes f32.
    pub fn half(&self) -> Option<DType> {
        self.weight.half().filter(|half| {
            let fits = |bias: &Tensor| bias.dtype() == *half || !bias.track_op();
            self.bias.as_ref().is_none_or(fits)
        })
    }

    /// The weight, `(out, in)`: that of a trainable layer itself, that of a frozen one as a copy, with as many of its
    /// digits as the layer's precision keeps.
    ///
    /// # Errors
    ///
    /// If the tensor cannot be made; not known to happen.
    pub fn weight(&self) -> Result<Tensor> {
        Ok(match &self.weight {
            Weight::Packed(weight, _) => {
                Tensor::from_vec(weight.weight(), (self.outputs, self.inputs), &Device::Cpu)?
            }
            Weight::Frozen(weight, given) => weight.to_dtype(*given)?.t()?,
            Weight::Tracked(weight) => weight.clone(),
        })
    }

    /// The bias, `(out,)`, if the layer has one.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// The length of the input's last axis.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// The length of the output's last axis.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// The precision of its products.
    pub fn precision(&self) -> Precision {
        self.precision
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::Linear;
    use crate::gradient_check::{check_gradients, normal, same, values};
    use crate::{Gelu, Precision, add_residual, bias_gelu};
    use candle_core::{DType, Tensor, Var};

    fn single(shape: &[usize], seed: u64) -> Tensor {
        normal(shape, seed).to_dtype(DType::F32).unwrap()
    }

    /// The gradients of the sum of squares of what `f` gives, one a tensor.
    fn gradients(inputs: &[Tensor], f: impl Fn(&[Tensor]) -> crate::Result<Tensor>) -> Vec<Tensor> {
        let vars: Vec<Var> = inputs.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
        let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
        let store = f(&tensors).unwrap().sqr().unwrap().sum_all().unwrap().backward().unwrap();
        vars.iter().map(|var| store.get(var).unwrap().clone()).collect()
    }

    #[test]
    fn single_precision_goes_both_ways_like_double() {
        // More rows than a task has; sizes that fill no panel.
        let double = [normal(&[3, 50, 37], 0), normal(&[29, 37], 1), normal(&[29], 2)];
        let single = double.clone().map(|t| t.to_dtype(DType::F32).unwrap());
        let layer = |t: &[Tensor]| Linear::new(t[1].clone(), Some(t[2].clone()))?.forward(&t[0]);
        same(&layer(&single).unwrap(), &layer(&double).unwrap(), 1e-4);
        for (a, b) in gradients(&single, layer).iter().zip(&gradients(&double, layer)) {
            same(a, b, 2e-3);
        }
        let without = |t: &[Tensor]| Linear::new(t[1].clone(), None)?.forward(&t[0]);
        for (a, b) in gradients(&single[..2], without).iter().zip(&gradients(&double[..2], without)) {
            same(a, b, 2e-3);
        }
    }

    #[test]
    fn only_what_is_tracked_gets_a_gradient() {
        let (x, w) = (Var::from_tensor(&single(&[4, 3], 0)).unwrap(), single(&[2, 3], 1));
        let bias = Var::from_tensor(&single(&[2], 2)).unwrap();
        // A trained bias on a frozen weight.
        let layer = Linear::new(w.clone(), Some(bias.as_tensor().clone())).unwrap();
        let store = layer.forward(&x).unwrap().sum_all().unwrap().backward().unwrap();
        same(store.get(&bias).unwrap(), &Tensor::full(4_f32, 2, x.device()).unwrap(), 1e-6);
        let rows = w.sum(0).unwrap().broadcast_as((4, 3)).unwrap();
        same(store.get(&x).unwrap(), &rows, 1e-5);
        // A trained weight and a plain input.
        let var = Var::from_tensor(&w).unwrap();
        let layer = Linear::new(var.as_tensor().clone(), None).unwrap();
        let y = layer.forward(&x.as_detached_tensor()).unwrap();
        assert!(y.sum_all().unwrap().backward().unwrap().get(&var).is_some());
    }

    #[test]
    fn endings_are_those_of_the_operations() {
        let (branch, w, b) = (single(&[2, 9, 20], 0), single(&[13, 20], 1), single(&[13], 2));
        let (x, scale) = (single(&[2, 9, 13], 3), single(&[13], 4));
        for bias in [None, Some(b)] {
            let layer = Linear::new(w.clone(), bias.clone()).unwrap();
            let product = layer.forward_without_bias(&branch).unwrap();
            for scale in [None, Some(&scale)] {
                let wanted = add_residual(&x, &product, bias.as_ref(), scale).unwrap();
                let found = layer.forward_residual(&branch, &x, scale).unwrap();
                assert!(!found.track_op());
                same(&found, &wanted, 1e-5);
                let tracked = Var::from_tensor(&branch).unwrap();
                let found = layer.forward_residual(&tracked, &x, scale).unwrap();
                assert!(found.track_op());
                same(&found, &wanted, 1e-5);
            }
            let zeros = b_or_zeros(bias.as_ref());
            for form in [Gelu::Erf, Gelu::Tanh, Gelu::Quick] {
                let wanted = bias_gelu(&product, &zeros, form).unwrap();
                same(&layer.forward_gelu(&branch, form).unwrap(), &wanted, 1e-5);
                let tracked = Var::from_tensor(&branch).unwrap();
                let found = layer.forward_gelu(&tracked, form).unwrap();
                assert!(found.track_op());
                same(&found, &wanted, 1e-5);
            }
        }
        let layer = Linear::new(w, None).unwrap();
        let message = layer.forward_residual(&branch, &branch, None).unwrap_err().to_string();
        assert!(message.contains("linear: x"), "{message}");
        let message = layer.forward_residual(&branch, &x, Some(&x)).unwrap_err().to_string();
        assert!(message.contains("linear: scale"), "{message}");
    }

    fn b_or_zeros(bias: Option<&Tensor>) -> Tensor {
        bias.cloned().unwrap_or_else(|| single(&[13], 0).zeros_like().unwrap())
    }

    #[test]
    fn a_precision_holds_forward_and_backward_frozen_and_trained() {
        let (x, w) = (normal(&[70, 64], 0), normal(&[40, 64], 1));
        let exact = gradients(&[x.clone(), w.clone()], |t| Linear::new(t[1].clone(), None)?.forward(&t[0]));
        let y = Linear::new(w.clone(), None).unwrap().forward(&x).unwrap();
        let error = |a: &Tensor, b: &Tensor| {
            let (a, b) = (values(a), values(b));
            let sum = |f: &dyn Fn(usize) -> f64| (0..a.len()).map(|i| f(i).powi(2)).sum::<f64>();
            (sum(&|i| a[i] - b[i]) / sum(&|i| b[i])).sqrt()
        };
        let (x, w) = (x.to_dtype(DType::F32).unwrap(), w.to_dtype(DType::F32).unwrap());
        for (precision, range) in
            [(Precision::F32, 0.0..1e-6), (Precision::Bf16x3, 1e-6..2e-5), (Precision::Bf16, 1e-3..1e-2)]
        {
            let layer = |w: &Tensor| Linear::with_precision(w.clone(), None, precision).unwrap();
            let frozen = layer(&w);
            assert_eq!(frozen.precision(), precision);
            let var = Var::from_tensor(&w).unwrap();
            assert!(range.contains(&error(&frozen.forward(&x).unwrap(), &y)), "{precision}");
            assert!(range.contains(&error(&layer(&var).forward(&x).unwrap(), &y)), "{precision}");
            let found = gradients(&[x.clone(), w.clone()], |t| layer(&t[1]).forward(&t[0]));
            let of_x = &gradients(std::slice::from_ref(&x), |t| frozen.forward(&t[0]))[0];
            for (a, b) in [(&found[0], &exact[0]), (&found[1], &exact[1]), (of_x, &exact[0])] {
                assert!(range.contains(&error(a, b)), "{precision}: {}", error(a, b));
            }
        }
    }

    #[test]
    fn half_weights_take_both_types_and_give_what_they_get() {
        // The host multiplies f16, which stands here for a GPU's bf16.
        let half = |t: &Tensor| t.to_dtype(DType::F16).unwrap();
        let (x, w, b) = (single(&[2, 9, 20], 0), single(&[14, 20], 1), single(&[14], 2));
        let w = (w * 0.1).unwrap();
        let exact =
            Linear::new(half(&w).to_dtype(DType::F64).unwrap(), Some(b.to_dtype(DType::F64).unwrap()));
        let (exact, layer) = (exact.unwrap(), Linear::new(half(&w), Some(b.clone())).unwrap());
        let with_half_bias = Linear::new(half(&w), Some(half(&b))).unwrap();
        assert_eq!((layer.half(), exact.half()), (Some(DType::F16), None));
        assert_eq!(with_half_bias.half(), Some(DType::F16));
        assert_eq!(layer.weight().unwrap().dtype(), DType::F16);
        let (residual, scale) = (single(&[2, 9, 14], 3), single(&[14], 4));
        let calls: [fn(&Linear, &Tensor) -> Tensor; 4] = [
            |layer, x| layer.forward(x).unwrap(),
            |layer, x| layer.forward_gelu(x, Gelu::Erf).unwrap(),
            |layer, x| layer.forward_swiglu(x).unwrap(),
            |layer, x| layer.forward_without_bias(x).unwrap(),
        ];
        for call in calls {
            let wanted = call(&exact, &half(&x).to_dtype(DType::F64).unwrap());
            for (x, dtype) in [(&x, DType::F32), (&half(&x), DType::F16)] {
                for layer in [&layer, &with_half_bias] {
                    let found = call(layer, x);
                    assert_eq!(found.dtype(), dtype);
                    same(&found, &wanted, 5e-3);
                }
            }
        }
        // A trained bias is used as it is now, not as it was.
        let trained = Var::from_tensor(&b).unwrap();
        let layer_of_trained = Linear::new(half(&w), Some(trained.as_tensor().clone())).unwrap();
        assert_eq!(layer_of_trained.half(), None);
        trained.set(&b.zeros_like().unwrap()).unwrap();
        let wanted = layer.forward_without_bias(&x).unwrap();
        same(&layer_of_trained.forward(&x).unwrap(), &wanted, 0.0);
        // The stream that results are added to stays wide.
        let wide = |t: &Tensor| half(t).to_dtype(DType::F64).unwrap();
        let wanted = exact
            .forward_residual(&wide(&x), &residual.to_dtype(DType::F64).unwrap(), Some(&wide(&scale)))
            .unwrap();
        for x in [&x, &half(&x)] {
            for (layer, scale) in [(&layer, &scale), (&with_half_bias, &half(&scale))] {
                let found = layer.forward_residual(x, &residual, Some(scale)).unwrap();
                assert_eq!(found.dtype(), DType::F32);
                same(&found, &wanted, 5e-3);
            }
        }
    }

    #[test]
    fn no_rows_give_no_rows() {
        let layer = Linear::new(single(&[5, 4], 1), Some(single(&[5], 2))).unwrap();
        let none = single(&[1, 4], 0).narrow(0, 0, 0).unwrap();
        assert_eq!(layer.forward(&none).unwrap().dims(), [0, 5]);
    }

    #[test]
    fn gradients_are_right() {
        check_gradients(&[normal(&[2, 3, 4], 0), normal(&[5, 4], 1), normal(&[5], 2)], |t| {
            Linear::new(t[1].clone(), Some(t[2].clone()))?.forward(&t[0])
        });
    }

    #[test]
    fn frozen_weights_pass_the_gradient_on() {
        let layer = Linear::new(normal(&[5, 4], 1), Some(normal(&[5], 2))).unwrap();
        check_gradients(&[normal(&[4, 3, 2], 0)], |t| layer.forward(&t[0].transpose(0, 2)?));
    }

    #[test]
    fn frozen_and_trainable_agree() {
        let (x, w, b) = (normal(&[2, 3, 4], 0), normal(&[5, 4], 1), normal(&[5], 2));
        let frozen = Linear::new(w.clone(), Some(b.clone())).unwrap();
        let var = Var::from_tensor(&w).unwrap();
        let trainable = Linear::new(var.as_tensor().clone(), Some(b)).unwrap();
        same(&frozen.forward(&x).unwrap(), &trainable.forward(&x).unwrap(), 1e-12);
        same(&frozen.weight().unwrap(), &w, 0.0);
        assert!(!frozen.forward(&x).unwrap().track_op());
        let single = Linear::new(w.to_dtype(DType::F32).unwrap(), None).unwrap();
        same(&single.weight().unwrap(), &w, 1e-7);
    }

    #[test]
    fn wrong_shapes_are_named() {
        let layer = Linear::new(normal(&[5, 4], 1), None).unwrap();
        assert!(layer.forward(&normal(&[2, 5], 0)).unwrap_err().to_string().contains("(.., 4)"));
        let bias = Some(normal(&[4], 0));
        assert!(Linear::new(normal(&[5, 4], 1), bias).unwrap_err().to_string().contains("bias"));
        assert!(Linear::new(normal(&[5], 1), None).unwrap_err().to_string().contains("(out, in)"));
        for empty in [[0, 4], [4, 0]] {
            let message = Linear::new(normal(&empty, 1), None).unwrap_err().to_string();
            assert!(message.contains("neither of them 0"), "{message}");
        }
    }
}
