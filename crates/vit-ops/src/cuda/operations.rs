//! The operations on a GPU's tensors, with their gradients.

use candle_core::backend::BackendStorage;
use candle_core::op::BackpropOp;
use candle_core::{
    CpuStorage, CudaDevice, CudaStorage, CustomOp1, CustomOp2, CustomOp3, DType, Device, Layout, Result,
    Shape, Storage, StorageRef, Tensor, bail,
};

use super::attention::{AttentionShape, Pairs, Qkv, WIDEST};
use super::device::input;
use super::elements::Form;
use super::{Input, Rows, attention, columns, elements, rows};

/// Whether the kernels take such tensors.
pub(crate) fn takes(x: &Tensor) -> bool {
    x.device().is_cuda() && matches!(x.dtype(), DType::F32 | DType::F16 | DType::BF16) && x.elem_count() > 0
}

/// Whether the kernels take `x` together with all of `others`, which have to be on the same GPU.
pub(super) fn takes_all(x: &Tensor, others: &[&Tensor]) -> bool {
    takes(x) && others.iter().all(|other| is_beside(x, other) && other.dtype() == x.dtype())
}

/// Whether both are on one device: a kernel is given addresses, which mean something else on another.
fn is_beside(x: &Tensor, other: &Tensor) -> bool {
    x.device().location() == other.device().location()
}

/// The rows of a tensor.
fn rows_of(shape: &Shape) -> Rows {
    let width = shape.dims().last().copied().unwrap_or(1);
    Rows { count: shape.elem_count() / width.max(1), width }
}

/// A tensor on a GPU, held for reading.
pub(super) struct Held<'a> {
    storage: StorageRef<'a>,
    layout: &'a Layout,
}

impl<'a> Held<'a> {
    pub(super) fn new(tensor: &'a Tensor) -> Self {
        let (storage, layout) = tensor.storage_and_layout();
        Self { storage, layout }
    }

    pub(super) fn input(&self) -> Result<Input<'_, CudaStorage>> {
        match &*self.storage {
            Storage::Cuda(storage) => input(storage, self.layout),
            _ => bail!("a CUDA kernel takes tensors on a GPU"),
        }
    }
}

pub(super) fn device_of(tensor: &Tensor) -> Result<&CudaDevice> {
    match tensor.device() {
        Device::Cuda(device) => Ok(device),
        _ => bail!("a CUDA kernel takes tensors on a GPU"),
    }
}

/// A tensor without a graph.
pub(super) fn tensor(storage: CudaStorage, shape: impl Into<Shape>) -> Tensor {
    Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false)
}

/// What candle asks of every operation, and none of these is given.
fn on_the_host(operation: &str) -> Result<(CpuStorage, Shape)> {
    bail!("this form of {operation} is for GPUs")
}

/// [`crate::layer_norm`] of arguments that fit; `None` if there is no kernel for them.
pub(crate) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Option<Tensor>> {
    if !takes_all(x, &[weight, bias]) {
        return Ok(None);
    }
    let (x, weight, bias) = (x.contiguous()?, weight.contiguous()?, bias.contiguous()?);
    x.apply_op3(&weight, &bias, LayerNorm { eps }).map(Some)
}

struct LayerNorm {
    eps: f64,
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        on_the_host(self.name())
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        weight: &CudaStorage,
        weight_layout: &Layout,
        bias: &CudaStorage,
        bias_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let shape = x_layout.shape();
        let inputs = (input(x, x_layout)?, input(weight, weight_layout)?, input(bias, bias_layout)?);
        let out =
            rows::layer_norm(x.device(), x.dtype(), inputs.0, inputs.1, inputs.2, rows_of(shape), self.eps)?;
        Ok((out, shape.clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let (held_x, held_weight, held_gradient) = (Held::new(x), Held::new(weight), Held::new(&gradient));
        let packed = rows::layer_norm_backward(
            device_of(x)?,
            x.dtype(),
            held_x.input()?,
            held_weight.input()?,
            held_gradient.input()?,
            rows_of(x.shape()),
            self.eps,
        )?;
        let (count, width) = (x.elem_count(), weight.elem_count());
        let packed = tensor(packed, count + 2 * width);
        let of_x = packed.narrow(0, 0, count)?.reshape(x.shape())?;
        let of_weight = packed.narrow(0, count, width)?;
        let of_bias = packed.narrow(0, count + width, width)?;
        Ok((Some(of_x), Some(of_weight), Some(of_bias)))
    }
}

/// [`crate::softmax`]; `None` if there is no kernel.
pub(crate) fn softmax(x: &Tensor) -> Result<Option<Tensor>> {
    if !takes(x) {
        return Ok(None);
    }
    x.contiguous()?.apply_op1(Softmax).map(Some)
}

struct Softmax;

impl CustomOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        on_the_host(self.name())
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let out = rows::softmax(x.device(), x.dtype(), input(x, layout)?, rows_of(layout.shape()))?;
        Ok((out, layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?;
        let (held_result, held_gradient) = (Held::new(result), Held::new(&gradient));
        let out = rows::softmax_backward(
            device_of(x)?,
            x.dtype(),
            held_result.input()?,
            held_gradient.input()?,
            rows_of(x.shape()),
        )?;
        Ok(Some(tensor(out, x.shape())))
    }
}

/// `f(x + bias)`; `None` if there is no kernel. The bias is `(D,)` of `x` `(.., D)`.
pub(crate) fn activation(x: &Tensor, bias: Option<&Tensor>, form: Form) -> Result<Option<Tensor>> {
    if x.rank() == 0 || !takes_all(x, bias.as_slice()) {
        return Ok(None);
    }
    let x = x.contiguous()?;
    match bias {
        Some(bias) => x.apply_op2(&bias.contiguous()?, Activation { form }),
        None => x.apply_op1(Activation { form }),
    }
    .map(Some)
}

struct Activation {
    form: Form,
}

impl Activation {
    fn gradient_of_x(&self, x: &Tensor, bias: Option<&Tensor>, gradient: &Tensor) -> Result<Tensor> {
        if self.form == Form::Identity {
            return Ok(gradient.clone());
        }
        let (held_x, held_bias, held_gradient) = (Held::new(x), bias.map(Held::new), Held::new(gradient));
        let out = elements::bias_activation_backward(
            device_of(x)?,
            x.dtype(),
            held_x.input()?,
            held_bias.as_ref().map(Held::input).transpose()?,
            held_gradient.input()?,
            rows_of(x.shape()),
            self.form,
        )?;
        Ok(tensor(out, x.shape()))
    }
}

/// The sum of all rows of a contiguous tensor.
fn column_sums(x: &Tensor) -> Result<Tensor> {
    let rows = rows_of(x.shape());
    let held = Held::new(x);
    Ok(tensor(columns::column_sums(device_of(x)?, x.dtype(), held.input()?, rows)?, rows.width))
}

impl CustomOp1 for Activation {
    fn name(&self) -> &'static str {
        "activation"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        on_the_host("activation")
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let rows = rows_of(layout.shape());
        let out = elements::bias_activation(x.device(), x.dtype(), input(x, layout)?, None, rows, self.form)?;
        Ok((out, layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        self.gradient_of_x(x, None, &gradient.contiguous()?).map(Some)
    }
}

impl CustomOp2 for Activation {
    fn name(&self) -> &'static str {
        "bias_activation"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        on_the_host("bias_activation")
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        bias: &CudaStorage,
        bias_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let shape = x_layout.shape();
        let (inputs, bias) = (input(x, x_layout)?, input(bias, bias_layout)?);
        let out =
            elements::bias_activation(x.device(), x.dtype(), inputs, Some(bias), rows_of(shape), self.form)?;
        Ok((out, shape.clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let of_x = self.gradient_of_x(x, Some(bias), &gradient.contiguous()?)?;
        let of_bias = if bias.track_op() { Some(column_sums(&of_x)?) } else { None };
        Ok((Some(of_x), of_bias))
    }
}

/// [`crate::add_residual`] of arguments that fit, with a bias or a scale; `None` if there is no kernel.
pub(crate) fn add_residual(
    x: &Tensor,
    branch: &Tensor,
    bias: Option<&Tensor>,
    scale: Option<&Tensor>,
) -> Result<Option<Tensor>> {
    let vectors: Vec<&Tensor> = [bias, scale].into_iter().flatten().collect();
    if vectors.is_empty() || !takes_all(x, &[branch]) || !takes_all(x, &vectors) {
        return Ok(None);
    }
    // An operation of our own takes three tensors: bias and scale go as one.
    let both = Tensor::cat(&vectors, 0)?.contiguous()?;
    let operation = Residual { bias: bias.is_some(), scale: scale.is_some() };
    x.contiguous()?.apply_op3(&branch.contiguous()?, &both, operation).map(Some)
}

/// Over x, branch, and the vectors there are: the bias first, then the scale.
struct Residual {
    bias: bool,
    scale: bool,
}

type Optional<'a> = Option<Input<'a, CudaStorage>>;

impl Residual {
    fn split<'a>(&self, both: Input<'a, CudaStorage>, width: usize) -> (Optional<'a>, Optional<'a>) {
        let behind = if self.bias { width } else { 0 };
        let scale = Input { start: both.start + behind, ..both };
        (self.bias.then_some(both), self.scale.then_some(scale))
    }
}

impl CustomOp3 for Residual {
    fn name(&self) -> &'static str {
        "add_residual"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        on_the_host(self.name())
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        branch: &CudaStorage,
        branch_layout: &Layout,
        both: &CudaStorage,
        both_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let shape = x_layout.shape();
        let rows = rows_of(shape);
        let (bias, scale) = self.split(input(both, both_layout)?, rows.width);
        let (inputs, branch) = (input(x, x_layout)?, input(branch, branch_layout)?);
        let out = elements::residual(x.device(), x.dtype(), inputs, branch, bias, scale, rows)?;
        Ok((out, shape.clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        branch: &Tensor,
        both: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let rows = rows_of(x.shape());
        let (held_branch, held_both, held_gradient) =
            (Held::new(branch), Held::new(both), Held::new(&gradient));
        let (bias, Some(scale)) = self.split(held_both.input()?, rows.width) else {
            // Nothing but a bias: the branch's gradient is the one that came.
            let of_bias = column_sums(&gradient)?;
            return Ok((Some(gradient.clone()), Some(gradient.clone()), Some(of_bias)));
        };
        let packed = elements::residual_backward(
            device_of(x)?,
            x.dtype(),
            held_branch.input()?,
            bias,
            scale,
            held_gradient.input()?,
            rows,
        )?;
        let count = x.elem_count();
        let packed = tensor(packed, count + 2 * rows.width);
        let of_branch = packed.narrow(0, 0, count)?.reshape(x.shape())?;
        let vectors = both.elem_count();
        let of_both = packed.narrow(0, count + 2 * rows.width - vectors, vectors)?;
        Ok((Some(gradient.clone()), Some(of_branch), Some(of_both)))
    }
}

/// Attention's sizes and what belongs to its pairs beside a bias.
pub(crate) struct Attention {
    pub(crate) heads: usize,
    pub(crate) scale: f64,
    /// u8, of four axes that broadcast to `(B, H, N, N)`; 0: not allowed.
    pub(crate) mask: Option<Tensor>,
    /// What the probabilities are multiplied with, `(B, H, N, N)`.
    pub(crate) keep: Option<Tensor>,
}

/// Whether there are kernels for this packed tensor of heads of `width` channels, this bias and this mask.
pub(crate) fn takes_attention(
    qkv: &Tensor,
    width: usize,
    bias: Option<&Tensor>,
    mask: Option<&Tensor>,
) -> bool {
    width <= WIDEST && takes_all(qkv, bias.as_slice()) && mask.is_none_or(|mask| is_beside(qkv, mask))
}

/// The context `(B, N, H d)` of `qkv` `(B, N, 3 H d)`; the bias has four axes that broadcast to `(B, H, N, N)`.
pub(crate) fn attend(qkv: &Tensor, bias: Option<&Tensor>, operation: Attention) -> Result<Tensor> {
    let qkv = qkv.contiguous()?;
    match bias {
        Some(bias) => qkv.apply_op2(&bias.contiguous()?, operation),
        None => qkv.apply_op1(operation),
    }
}

/// The strides of a contiguous tensor of four axes; 0 where it is broadcast.
fn broadcast_strides(shape: &Shape) -> Result<[usize; 4]> {
    let (batch, heads, queries, keys) = shape.dims4()?;
    let mut strides = [heads * queries * keys, queries * keys, keys, 1];
    for (stride, length) in strides.iter_mut().zip([batch, heads, queries, keys]) {
        if length == 1 {
            *stride = 0;
        }
    }
    Ok(strides)
}

impl Attention {
    fn shape(&self, qkv: &Shape) -> Result<AttentionShape> {
        let (batch, tokens, packed) = qkv.dims3()?;
        Ok(AttentionShape::packed(batch, self.heads, tokens, packed / (3 * self.heads), self.scale))
    }

    fn forward(
        &self,
        (qkv, qkv_layout): (&CudaStorage, &Layout),
        bias: Option<(&CudaStorage, &Layout)>,
    ) -> Result<(CudaStorage, Shape)> {
        let shape = self.shape(qkv_layout.shape())?;
        let (mask, keep) = (self.mask.as_ref().map(Held::new), self.keep.as_ref().map(Held::new));
        let bias = match bias {
            Some((bias, layout)) => Some((input(bias, layout)?, broadcast_strides(layout.shape())?)),
            None => None,
        };
        let pairs = pairs(bias, mask.as_ref(), keep.as_ref())?;
        let parts = Qkv::packed(input(qkv, qkv_layout)?, &shape);
        let out = attention::attention(qkv.device(), qkv.dtype(), &parts, &pairs, &shape)?;
        Ok((out, Shape::from((shape.batch, shape.tokens, shape.heads * shape.width))))
    }

    /// The gradients of qkv and of the bias.
    fn backward(
        &self,
        qkv: &Tensor,
        bias: Option<&Tensor>,
        gradient: &Tensor,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let shape = self.shape(qkv.shape())?;
        let gradient = gradient.contiguous()?;
        let (held_qkv, held_gradient) = (Held::new(qkv), Held::new(&gradient));
        let (mask, keep) = (self.mask.as_ref().map(Held::new), self.keep.as_ref().map(Held::new));
        let held_bias = bias.map(Held::new);
        let of_bias = match &held_bias {
            Some(held) => Some((held.input()?, broadcast_strides(held.layout.shape())?)),
            None => None,
        };
        let pairs = pairs(of_bias, mask.as_ref(), keep.as_ref())?;
        let found = attention::attention_backward(
            device_of(qkv)?,
            qkv.dtype(),
            &Qkv::packed(held_qkv.input()?, &shape),
            &pairs,
            &shape,
            held_gradient.input()?,
            bias.is_some_and(Tensor::track_op),
        )?;
        let of_bias = match (bias, found.bias) {
            (Some(bias), Some(logits)) => {
                let full = (shape.batch, shape.heads, shape.tokens, shape.tokens);
                let mut sum = tensor(logits, full);
                for (axis, length) in bias.dims().iter().enumerate() {
                    if *length == 1 {
                        sum = sum.sum_keepdim(axis)?;
                    }
                }
                Some(sum)
            }
            _ => None,
        };
        Ok((tensor(found.qkv, qkv.shape()), of_bias))
    }
}

fn pairs<'a>(
    bias: Option<(Input<'a, CudaStorage>, [usize; 4])>,
    mask: Option<&'a Held<'_>>,
    keep: Option<&'a Held<'_>>,
) -> Result<Pairs<'a, CudaStorage>> {
    let mask = match mask {
        Some(mask) => Some((mask.input()?, broadcast_strides(mask.layout.shape())?)),
        None => None,
    };
    Ok(Pairs { bias, mask, keep: keep.map(Held::input).transpose()? })
}

impl CustomOp1 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        on_the_host("attention")
    }

    fn cuda_fwd(&self, qkv: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        self.forward((qkv, layout), None)
    }

    fn bwd(&self, qkv: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.backward(qkv, None, gradient)?.0))
    }
}

impl CustomOp2 for Attention {
    fn name(&self) -> &'static str {
        "attention_with_bias"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        on_the_host("attention_with_bias")
    }

    fn cuda_fwd(
        &self,
        qkv: &CudaStorage,
        qkv_layout: &Layout,
        bias: &CudaStorage,
        bias_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.forward((qkv, qkv_layout), Some((bias, bias_layout)))
    }

    fn bwd(
        &self,
        qkv: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (of_qkv, of_bias) = self.backward(qkv, Some(bias), gradient)?;
        Ok((Some(of_qkv), of_bias))
    }
}
