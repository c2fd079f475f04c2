//! Runs the kernels on the host, from the sources that a GPU runs, and compares with this crate's operations.
//!
//! What `kernel_launch::host`, which plays the GPU, can't show are the speed, the limits of a real card and mistakes that
//! only true parallelism brings out.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::OnceLock;

use candle_core::{DType, Device, Result, Tensor, Var};
use half::{bf16, f16};
use kernel_launch::host::{HostArray, Program};

use super::attention::{self, AttentionShape, Pairs, Qkv};
use super::elements::{self, Form};
use super::maps::Table;
use super::ssim::Windows;
use super::{Arg, Input, Launch, Machine, Rows, columns, maps, rows};
use crate::axis_map::Taps;
use crate::gradient_check::{normal, values};
use crate::{AttentionOptions, Border, Dropout, Gelu, Interpolation, Resample, SsimOptions};

/// Numbers of a tensor as `dtype`.
fn array(tensor: &Tensor, dtype: DType) -> HostArray {
    let values = values(tensor);
    let bytes = match dtype {
        DType::U8 => values.iter().map(|v| *v as u8).collect(),
        DType::U32 => values.iter().flat_map(|v| (*v as u32).to_le_bytes()).collect(),
        DType::F32 => values.iter().flat_map(|v| (*v as f32).to_le_bytes()).collect(),
        DType::F16 => values.iter().flat_map(|v| f16::from_f64(*v).to_le_bytes()).collect(),
        DType::BF16 => values.iter().flat_map(|v| bf16::from_f64(*v).to_le_bytes()).collect(),
        other => panic!("{other:?}"),
    };
    HostArray { dtype, bytes }
}

/// What the tests ask of arrays.
trait Numbers {
    fn values(&self) -> Vec<f64>;
    fn input(&self) -> Input<'_, HostArray>;
}

impl Numbers for HostArray {
    fn values(&self) -> Vec<f64> {
        let size = self.dtype.size_in_bytes();
        let number = |bytes: &[u8]| match self.dtype {
            DType::F32 => f64::from(f32::from_le_bytes(bytes.try_into().unwrap())),
            DType::F16 => f16::from_le_bytes(bytes.try_into().unwrap()).to_f64(),
            DType::BF16 => bf16::from_le_bytes(bytes.try_into().unwrap()).to_f64(),
            other => panic!("{other:?}"),
        };
        self.bytes.chunks_exact(size).map(number).collect()
    }

    fn input(&self) -> Input<'_, HostArray> {
        Input { array: self, start: 0 }
    }
}

/// The host, its threads running in this order or in the reverse.
struct Host {
    backward: bool,
}

/// All kernels, compiled once.
fn program() -> &'static Program {
    static PROGRAM: OnceLock<Program> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cuda");
        let files = ["attention.cu", "columns.cu", "elements.cu", "maps.cu", "rows.cu", "ssim.cu"];
        Program::compile(&files.map(|file| folder.join(file)), &[]).unwrap()
    })
}

impl Machine for Host {
    type Array = HostArray;

    fn array(&self, dtype: DType, len: usize) -> Result<HostArray> {
        Ok(HostArray::unwritten(dtype, len))
    }

    fn launch(&self, launch: &Launch, args: &mut [Arg<'_, HostArray>]) -> Result<()> {
        // Here all files are one program; on a device a kernel is looked for in its module alone.
        let file = format!("{}/src/cuda/{}.cu", env!("CARGO_MANIFEST_DIR"), launch.module.name());
        let (without_type, _) = launch.kernel.rsplit_once('_').unwrap();
        let declared =
            format!("{}_##", without_type.trim_end_matches(|c: char| c == '_' || c.is_ascii_digit()));
        let source = std::fs::read_to_string(&file).unwrap();
        assert!(source.contains(&declared), "{} is not in {file}", launch.kernel);
        program().launch(&launch.kernel, launch.grid, self.backward, args)
    }
}

/// How far a result may be from f64, as a share of one plus its size.
fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 1e-5,
        // 2^-11 and 2^-8: half a unit in the last place of the result, and a few more in the sums of what is stored
        // in between.
        DType::F16 => 2e-3,
        _ => 1.6e-2,
    }
}

#[track_caller]
fn close(what: &str, found: &[f64], wanted: &[f64], dtype: DType) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    for (i, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        let allowed = tolerance(dtype) * (1.0 + wanted.abs());
        assert!((found - wanted).abs() <= allowed, "{what}, {dtype:?}, element {i}: {found}, not {wanted}");
    }
}

/// Normal numbers, rounded to what `dtype` holds, as f64.
fn rounded(shape: &[usize], seed: u64, dtype: DType) -> Tensor {
    normal(shape, seed).to_dtype(dtype).unwrap().to_dtype(DType::F64).unwrap()
}

/// Every type with both orders of the threads.
fn everywhere(test: impl Fn(&Host, DType)) {
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        for backward in [false, true] {
            test(&Host { backward }, dtype);
        }
    }
}

/// The result of `f` and the gradients of its inputs under the result's gradient, in f64.
fn reference(
    inputs: &[&Tensor],
    gradient: Option<&Tensor>,
    f: impl Fn(&[Tensor]) -> crate::Result<Tensor>,
) -> (Vec<f64>, Vec<Vec<f64>>) {
    let vars: Vec<Var> = inputs.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let y = f(&tensors).unwrap();
    let Some(gradient) = gradient else { return (values(&y), Vec::new()) };
    let gradients = (&y * gradient).unwrap().sum_all().unwrap().backward().unwrap();
    (values(&y), vars.iter().map(|v| values(gradients.get(v).unwrap())).collect())
}

#[test]
#[ignore = "needs a C++ compiler"]
fn kernels_on_host_layer_norm() {
    // Widths below, at and above a warp; more rows than one part of a sum over columns has.
    for (count, width) in [(5, 7), (3, 32), (70, 65)] {
        everywhere(|host, dtype| {
            let t = [&[count, width][..], &[width], &[width], &[count, width]];
            let t: Vec<Tensor> = (0..).zip(t).map(|(seed, shape)| rounded(shape, seed, dtype)).collect();
            let a: Vec<HostArray> = t.iter().map(|t| array(t, dtype)).collect();
            let (value, gradients) = reference(&[&t[0], &t[1], &t[2]], Some(&t[3]), |t| {
                crate::layer_norm(&t[0], &t[1], &t[2], 1e-3)
            });
            let rows = Rows { count, width };
            let [x, weight, bias, gradient] = [&a[0], &a[1], &a[2], &a[3]].map(Numbers::input);
            let found = rows::layer_norm(host, dtype, x, weight, bias, rows, 1e-3).unwrap();
            close("layer norm", &found.values(), &value, dtype);
            let found = rows::layer_norm_backward(host, dtype, x, weight, gradient, rows, 1e-3).unwrap();
            // Sums over rows are as large as their terms.
            close("layer norm's gradients", &found.values(), &gradients.concat(), dtype);
        });
    }
}

#[test]
#[ignore = "needs a C++ compiler"]
fn kernels_on_host_softmax() {
    for (count, width) in [(9, 5), (2, 32), (3, 70)] {
        everywhere(|host, dtype| {
            let (x, gradient) = (rounded(&[count, width], 0, dtype), rounded(&[count, width], 1, dtype));
            let (value, gradients) = reference(&[&x], Some(&gradient), |t| crate::softmax(&t[0]));
            let rows = Rows { count, width };
            let (x, gradient) = (array(&x, dtype), array(&gradient, dtype));
            let found = rows::softmax(host, dtype, x.input(), rows).unwrap();
            close("softmax", &found.values(), &value, dtype);
            let found = rows::softmax_backward(host, dtype, found.input(), gradient.input(), rows).unwrap();
            close("softmax's gradient", &found.values(), &gradients[0], dtype);
        });
    }
}

#[test]
#[ignore = "needs a C++ compiler"]
fn kernels_on_host_activations() {
    let (count, width) = (70, 9);
    let rows = Rows { count, width };
    for form in [Form::GeluErf, Form::GeluTanh, Form::GeluQuick, Form::Silu, Form::Identity] {
        everywhere(|host, dtype| {
            let t = [&[count, width][..], &[width], &[count, width]];
            let t: Vec<Tensor> = (0..).zip(t).map(|(seed, shape)| rounded(shape, seed, dtype)).collect();
            let (value, gradients) = reference(&[&t[0], &t[1]], Some(&t[2]), |t| {
                let biased = t[0].broadcast_add(&t[1])?;
                match form {
                    Form::GeluErf => crate::gelu(&biased, Gelu::Erf),
                    Form::GeluTanh => crate::gelu(&biased, Gelu::Tanh),
                    Form::GeluQuick => crate::gelu(&biased, Gelu::Quick),
                    Form::Silu => crate::silu(&biased),
                    Form::Identity => Ok(biased),
                }
            });
            let a: Vec<HostArray> = t.iter().map(|t| array(t, dtype)).collect();
            let [x, bias, gradient] = [&a[0], &a[1], &a[2]].map(Numbers::input);
            let found = elements::bias_activation(host, dtype, x, Some(bias), rows, form).unwrap();
            close("activation", &found.values(), &value, dtype);
            let found = elements::bias_activation_backward(host, dtype, x, Some(bias), gradient, rows, form);
            let found = found.unwrap();
            close("activation's gradient", &found.values(), &gradients[0], dtype);
            let found = columns::column_sums(host, dtype, found.input(), rows).unwrap();
            // The terms were rounded, and add up to more than their sum.
            let share = if dtype == DType::F32 { 1.0 } else { 4.0 };
            let scale = |v: &[f64]| v.iter().map(|v| v / share).collect::<Vec<_>>();
            close("a bias' gradient", &scale(&found.values()), &scale(&gradients[1]), dtype);
        });
    }
    // Without a bias, far from 0.
    let x = Tensor::new(&[-1e4_f64, -100., -9., 9., 100., 1e4], &Device::Cpu).unwrap();
    let far = array(&x, DType::F32);
    let rows = Rows { count: 1, width: 6 };
    let host = Host { backward: false };
    for form in [Form::GeluErf, Form::GeluTanh, Form::GeluQuick] {
        let found = elements::bias_activation(&host, DType::F32, far.input(), None, rows, form).unwrap();
        close("far", &found.values(), &[0., 0., 0., 9., 100., 1e4], DType::F32);
        let one = array(&x.ones_like().unwrap(), DType::F32);
        let slope =
            elements::bias_activation_backward(&host, DType::F32, far.input(), None, one.input(), rows, form);
        close("far slope", &slope.unwrap().values(), &[0., 0., 0., 1., 1., 1.], DType::F32);
    }
}

#[test]
#[ignore = "needs a C++ compiler"]
fn kernels_on_host_residual() {
    let (count, width) = (130, 33);
    let rows = Rows { count, width };
    everywhere(|host, dtype| {
        let t = [&[count, width][..], &[count, width], &[width], &[width], &[count, width]];
        let t: Vec<Tensor> = (0..).zip(t).map(|(seed, shape)| rounded(shape, seed, dtype)).collect();
        let a: Vec<HostArray> = t.iter().map(|t| array(t, dtype)).collect();
        let [x, branch, bias, scale, gradient] = [&a[0], &a[1], &a[2], &a[3], &a[4]].map(Numbers::input);
        let (value, gradients) = reference(&[&t[0], &t[1], &t[2], &t[3]], Some(&t[4]), |t| {
            crate::add_residual(&t[0], &t[1], Some(&t[2]), Some(&t[3]))
        });
        let found = elements::residual(host, dtype, x, branch, Some(bias), Some(scale), rows).unwrap();
        close("residual", &found.values(), &value, dtype);
        let found =
            elements::residual_backward(host, dtype, branch, Some(bias), scale, gradient, rows).unwrap();
        close("residual's gradients", &found.values(), &gradients[1..].concat(), dtype);
        let (value, _) = reference(&[&t[0], &t[1]], None, |t| crate::add_residual(&t[0], &t[1], None, None));
        let found = elements::residual(host, dtype, x, branch, None, None, rows).unwrap();
        close("plain residual", &found.values(), &value, dtype);
    });
}

#[test]
#[ignore = "needs a C++ compiler"]
fn kernels_on_host_attention() {
    // Widths below, at and between the kernels' sizes; tokens below and above a tile.
    for (batch, heads, tokens, width) in [(2, 2, 5, 6), (1, 3, 37, 32), (1, 2, 70, 64), (1, 1, 35, 80)] {
        everywhere(|host, dtype| {
            if dtype == DType::F16 && tokens > 40 {
                return; // the other types have seen this path
            }
            let qkv = rounded(&[batch, tokens, 3 * heads * width], 0, dtype);
            let gradient = rounded(&[batch, tokens, heads * width], 1, dtype);
            let (value, gradients) = reference(&[&qkv], Some(&gradient), |t| {
                Ok(crate::attention(&t[0], &mut AttentionOptions::new(heads))?.context)
            });
            let shape = AttentionShape::packed(batch, heads, tokens, width, 1.0 / (width as f64).sqrt());
            let (qkv, gradient) = (array(&qkv, dtype), array(&gradient, dtype));
            let parts = Qkv::packed(qkv.input(), &shape);
            let found = attention::attention(host, dtype, &parts, &Pairs::NONE, &shape).unwrap();
            close("attention", &found.values(), &value, dtype);
            let found = attention::attention_backward(
                host,
                dtype,
                &parts,
                &Pairs::NONE,
                &shape,
                gradient.input(),
                false,
            );
            close("attention's gradient", &found.unwrap().qkv.values(), &gradients[0], dtype);
        });
    }
}

#[test]
#[ignore = "needs a C++ compiler"]
fn kernels_on_host_attention_with_every_option() {
    let (batch, heads, tokens, width) = (2, 2, 37, 8);
    let device = Device::Cpu;
    // Query 3 may attend to nothing.
    let allowed = |query: usize, key: usize| u8::from(query != 3 && !(query * 7 + key * 5).is_multiple_of(3));
    let mask: Vec<u8> = (0..tokens * tokens).map(|pair| allowed(pair / tokens, pair % tokens)).collect();
    let mask = Tensor::from_vec(mask, (tokens, tokens), &device).unwrap();
    let drawn: Vec<f64> = (0..batch * heads * tokens * tokens).map(|i| f64::from(i % 5 != 0)).collect();
    let drawn = Tensor::from_vec(drawn, (batch, heads, tokens, tokens), &device).unwrap();
    everywhere(|host, dtype| {
        let qkv = rounded(&[batch, tokens, 3 * heads * width], 0, dtype);
        // One bias a head, for all images.
        let bias = rounded(&[heads, tokens, tokens], 3, dtype);
        let gradient = rounded(&[batch, tokens, heads * width], 4, dtype);
        let (value, gradients) = reference(&[&qkv, &bias], Some(&gradient), |t| {
            let mut options = AttentionOptions {
                bias: Some(&t[1]),
                mask: Some(&mask),
                // A rate whose factor, 4/3, is rounded below as the kernel gets it.
                dropout: Some(Dropout::given(0.25, &drawn)),
                scale: Some(0.4),
                ..AttentionOptions::new(heads)
            };
            Ok(crate::attention(&t[0], &mut options)?.context)
        });
        let shape = AttentionShape::packed(batch, heads, tokens, width, 0.4);
        let keep = array(&(&drawn / 0.75).unwrap(), dtype);
        let qkv = array(&qkv, dtype);
        let (bias, mask) = (array(&bias, dtype), array(&mask, DType::U8));
        let gradient = array(&gradient, dtype);
        let qkv = Qkv::packed(qkv.input(), &shape);
        let pairs = Pairs {
            bias: Some((bias.input(), [0, tokens * tokens, tokens, 1])),
            mask: Some((mask.input(), [0, 0, tokens, 1])),
            keep: Some(keep.input()),
        };
        let found = attention::attention(host, dtype, &qkv, &pairs, &shape).unwrap();
        close("attention", &found.values(), &value, dtype);
        let found =
            attention::attention_backward(host, dtype, &qkv, &pairs, &shape, gradient.input(), true).unwrap();
        close("attention's gradients", &found.qkv.values(), &gradients[0], dtype);
        let of_bias = Tensor::from_vec(found.bias.unwrap().values(), (batch, heads, tokens, tokens), &device);
        close("a bias' gradient", &values(&of_bias.unwrap().sum(0).unwrap()), &gradients[1], dtype);
    });
}

/// A map's taps in the host's memory.
struct HostTaps {
    places: HostArray,
    weights: HostArray,
    inputs: usize,
    outputs: usize,
}

impl HostTaps {
    fn new(taps: &Taps) -> Self {
        let tensor = |values: Vec<f64>| Tensor::new(values, &Device::Cpu).unwrap();
        Self {
            places: array(&tensor(taps.places.iter().copied().map(f64::from).collect()), DType::U32),
            weights: array(&tensor(taps.weights.iter().copied().map(f64::from).collect()), DType::F32),
            inputs: taps.inputs,
            outputs: taps.outputs,
        }
    }

    fn table(&self) -> Table<'_, HostArray> {
        Table {
            places: self.places.input(),
            weights: self.weights.input(),
            inputs: self.inputs,
            outputs: self.outputs,
        }
    }
}

#[test]
#[ignore = "needs a C++ compiler"]
fn kernels_on_host_maps_along_an_axis() {
    let interpolations = [Interpolation::Linear, Interpolation::CubicAntialias, Interpolation::Nearest];
    for (at, interpolation) in interpolations.into_iter().enumerate() {
        let (old, new) = [((5, 7), (9, 4)), ((6, 3), (4, 8)), ((2, 9), (1, 3))][at];
        let resample = Resample::new(interpolation, old, new).unwrap();
        everywhere(|host, dtype| {
            let x = rounded(&[3, old.0, old.1], 0, dtype);
            let gradient = rounded(&[3, new.0, new.1], 1, dtype);
            let (value, gradients) = reference(&[&x], Some(&gradient), |t| resample.apply(&t[0]));
            let (rows, columns) = resample.axes();
            let along = |taps: &Taps, x: &HostArray, outer: usize, inner: usize| {
                let taps = HostTaps::new(taps);
                maps::map_axis(host, dtype, x.input(), &taps.table(), outer, inner).unwrap()
            };
            let across = along(&columns.taps_by_output(), &array(&x, dtype), 3 * old.0, 1);
            let found = along(&rows.taps_by_output(), &across, 3, new.1);
            close("resampling", &found.values(), &value, dtype);
            let across = along(&rows.taps_by_input(), &array(&gradient, dtype), 3, new.1);
            let found = along(&columns.taps_by_input(), &across, 3 * old.0, 1);
            close("resampling's gradient", &found.values(), &gradients[0], dtype);
        });
    }
}

#[test]
#[ignore = "needs a C++ compiler"]
fn kernels_on_host_ssim() {
    for border in [Border::Symmetric, Border::Zero, Border::Valid] {
        let options = SsimOptions { radius: 2, sigma: 1.1, range: 2.0, border };
        everywhere(|host, dtype| {
            let (height, width) = (7, 9);
            // Images of contrast: where nothing varies, similarities are quotients of rounding errors.
            let (x, y) =
                (rounded(&[2, 2, height, width], 0, dtype), rounded(&[2, 2, height, width], 1, dtype));
            let map = crate::ssim(&x, &y, &options).unwrap();
            let gradient = rounded(map.dims(), 2, dtype);
            let (value, gradients) =
                reference(&[&x, &y], Some(&gradient), |t| crate::ssim(&t[0], &t[1], &options));
            let window = crate::filter::gaussian_window(options.sigma, options.radius).unwrap();
            let (rows, columns) = crate::filter::axes(&x, &window, border).unwrap();
            let [x, y, gradient] = [&x, &y, &gradient].map(|t| array(t, dtype));
            let taps = [columns.taps_by_output(), rows.taps_by_output()];
            let [by_columns, by_rows] = [HostTaps::new(&taps[0]), HostTaps::new(&taps[1])];
            let windows = Windows {
                x: x.input(),
                y: y.input(),
                planes: 4,
                columns: by_columns.table(),
                rows: by_rows.table(),
                c1: 4e-4,
                c2: 36e-4,
            };
            close("similarity", &windows.map(host, dtype).unwrap().values(), &value, dtype);
            let [by_columns, by_rows] =
                [HostTaps::new(&columns.taps_by_input()), HostTaps::new(&rows.taps_by_input())];
            let back = (&by_columns.table(), &by_rows.table());
            let found = windows.backward(host, dtype, gradient.input(), back).unwrap();
            close("similarity's gradients", &found.values(), &gradients.concat(), dtype);
        });
    }
}

#[test]
fn what_no_kernel_takes_is_refused() {
    let host = Host { backward: false };
    let x = array(&normal(&[2, 3], 0), DType::F32);
    let rows = Rows { count: 2, width: 3 };
    let message = rows::softmax(&host, DType::F64, x.input(), rows).err().unwrap().to_string();
    assert!(message.contains("not f64"), "{message}");
    let shape = AttentionShape::packed(1, 1, 2, 129, 1.0);
    let parts = Qkv::packed(x.input(), &shape);
    let message = attention::attention(&host, DType::F32, &parts, &Pairs::NONE, &shape).err().unwrap();
    assert!(message.to_string().contains("at most 128"), "{message}");
}
