//! Convolutions of images, forward and backward as matrix products.

use candle_core::Tensor;

use crate::columns::Geometry;
use crate::own_gradient::with_gradients;
use crate::rows::has_kernels;
use crate::{Error, Result};

/// A convolution (as networks call the correlation): `x` `(B, C, H, W)` and `weight` `(O, C, kh, kw)` give
/// `(B, O, rows, columns)` with `rows = floor((H + 2 padding - kh) / stride) + 1`, plus `bias` `(O,)`.
///
/// Unlike candle's it also goes backward where a stride leaves different remainders along both axes, and on the host
/// its backward pass is made of matrix products. Groups and dilation are not taken: no network here has them, and
/// candle's own are right.
///
/// # Errors
///
/// If the shapes do not fit each other, the stride is 0, or the image with its padding is smaller than the kernel.
pub fn conv2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
    padding: usize,
) -> Result<Tensor> {
    const NAME: &str = "conv2d";
    let (outputs, channels, kh, kw) = kernel(NAME, "(O, C, kh, kw)", weight)?;
    let (height, width) = match x.dims4() {
        Ok((_, c, h, w)) if c == channels && h + 2 * padding >= kh && w + 2 * padding >= kw => (h, w),
        _ => {
            let least = |k: usize| k.saturating_sub(2 * padding);
            let expected = format!("(B, {channels}, at least {}, at least {})", least(kh), least(kw));
            return Err(Error::shape(NAME, "x", expected, x.shape()));
        }
    };
    check_stride(NAME, stride)?;
    let geometry = Geometry {
        channels,
        height,
        width,
        window: (kh, kw),
        stride,
        padding,
        rows: (height + 2 * padding - kh) / stride + 1,
        columns: (width + 2 * padding - kw) / stride + 1,
    };
    let y = if has_kernels(x) && x.dtype() == weight.dtype() {
        let value = correlate(geometry, &x.detach(), &weight.detach())?;
        with_gradients(x, weight, &value, move |x, weight, gradient| {
            Ok((spread(geometry, gradient, weight)?, weight_gradient(geometry, x, gradient)?))
        })?
    } else {
        // What no window reaches goes first: candle's backward pass takes one remainder for both axes.
        let (rows, columns) = ((geometry.rows - 1) * stride + kh, (geometry.columns - 1) * stride + kw);
        let padded = x.pad_with_zeros(2, padding, padding)?.pad_with_zeros(3, padding, padding)?;
        padded.narrow(2, 0, rows)?.narrow(3, 0, columns)?.conv2d(weight, 0, stride, 1, 1)?
    };
    add_bias(NAME, y, bias, outputs)
}

/// A transposed convolution, the adjoint of [`conv2d`]: `x` `(B, C, H, W)` and `weight` `(C, O, kh, kw)` give
/// `(B, O, (H - 1) stride - 2 padding + kh, (W - 1) stride - 2 padding + kw)`, plus `bias` `(O,)`.
///
/// Groups, dilation and output padding are not taken: no network here has them.
///
/// # Errors
///
/// If the shapes do not fit each other, the stride is 0, or nothing is left inside of the padding.
pub fn conv_transpose2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
    padding: usize,
) -> Result<Tensor> {
    const NAME: &str = "conv_transpose2d";
    let (channels, outputs, kh, kw) = kernel(NAME, "(C, O, kh, kw)", weight)?;
    check_stride(NAME, stride)?;
    let (rows, columns) = match x.dims4() {
        Ok((_, c, h, w))
            if c == channels
                && h > 0
                && w > 0
                && (h - 1) * stride + kh > 2 * padding
                && (w - 1) * stride + kw > 2 * padding =>
        {
            (h, w)
        }
        _ => {
            let expected = format!("(B, {channels}, H, W) with something left inside of the padding");
            return Err(Error::shape(NAME, "x", expected, x.shape()));
        }
    };
    let geometry = Geometry {
        channels: outputs,
        height: (rows - 1) * stride + kh - 2 * padding,
        width: (columns - 1) * stride + kw - 2 * padding,
        window: (kh, kw),
        stride,
        padding,
        rows,
        columns,
    };
    let y = if has_kernels(x) && x.dtype() == weight.dtype() {
        let value = spread(geometry, &x.detach(), &weight.detach())?;
        with_gradients(x, weight, &value, move |x, weight, gradient| {
            Ok((correlate(geometry, gradient, weight)?, weight_gradient(geometry, gradient, x)?))
        })?
    } else {
        x.conv_transpose2d(weight, padding, 0, stride, 1)?
    };
    add_bias(NAME, y, bias, outputs)
}

fn kernel(name: &'static str, expected: &str, weight: &Tensor) -> Result<(usize, usize, usize, usize)> {
    match weight.dims4() {
        Ok((a, b, kh, kw)) if a > 0 && b > 0 && kh > 0 && kw > 0 => Ok((a, b, kh, kw)),
        _ => Err(Error::shape(name, "weight", format!("{expected}, nothing empty"), weight.shape())),
    }
}

fn check_stride(operation: &'static str, stride: usize) -> Result<()> {
    if stride == 0 {
        return Err(Error::Range { operation, argument: "stride", expected: "at least 1", found: 0.0 });
    }
    Ok(())
}

fn add_bias(name: &'static str, y: Tensor, bias: Option<&Tensor>, outputs: usize) -> Result<Tensor> {
    let Some(bias) = bias else { return Ok(y) };
    if bias.dims() != [outputs] {
        return Err(Error::shape(name, "bias", format!("({outputs},)"), bias.shape()));
    }
    let value = y.detach().broadcast_add(&bias.detach().reshape((1, outputs, 1, 1))?)?;
    Ok(with_gradients(&y, bias, &value, |y, _, gradient| {
        let (batch, channels, rows, columns) = y.dims4()?;
        let sums = gradient.contiguous()?.reshape((batch, channels, rows * columns))?.sum(2)?.sum(0)?;
        Ok((gradient.clone(), sums))
    })?)
}

/// Each window of `images` `(B, C, H, W)` times each kernel of `weight` `(O, C, kh, kw)`: `(B, O, rows, columns)`.
fn correlate(geometry: Geometry, images: &Tensor, weight: &Tensor) -> candle_core::Result<Tensor> {
    let (images, batch, maps) = (images.contiguous()?, images.dim(0)?, weight.dim(0)?);
    let kernels = weight.reshape((maps, geometry.elements()))?;
    let shape = (batch, maps, geometry.rows, geometry.columns);
    let out = Tensor::zeros(shape, images.dtype(), images.device())?;
    for chunk in geometry.chunks(batch) {
        let columns = geometry.unfold(&images, &chunk)?;
        geometry.put(&out, &chunk, &kernels.matmul(&columns)?)?;
    }
    Ok(out)
}

/// The adjoint of [`correlate`] in the images: a map `(B, O, rows, columns)` to `(B, C, H, W)`.
fn spread(geometry: Geometry, map: &Tensor, weight: &Tensor) -> candle_core::Result<Tensor> {
    let (map, (batch, maps, _, _)) = (map.contiguous()?, map.dims4()?);
    let kernels = weight.reshape((maps, geometry.elements()))?.t()?;
    let shape = (batch, geometry.channels, geometry.height, geometry.width);
    let out = Tensor::zeros(shape, map.dtype(), map.device())?;
    for chunk in geometry.chunks(batch) {
        let columns = kernels.matmul(&geometry.take(&map, &chunk)?)?;
        geometry.fold(&out, &chunk, &columns)?;
    }
    Ok(out)
}

/// The adjoint of [`correlate`] in the weight: `(O, C, kh, kw)`.
fn weight_gradient(geometry: Geometry, images: &Tensor, map: &Tensor) -> candle_core::Result<Tensor> {
    let (images, map) = (images.contiguous()?, map.contiguous()?);
    let (batch, maps, _, _) = map.dims4()?;
    let mut sum = Tensor::zeros((maps, geometry.elements()), map.dtype(), map.device())?;
    for chunk in geometry.chunks(batch) {
        let columns = geometry.unfold(&images, &chunk)?;
        sum = (sum + geometry.take(&map, &chunk)?.matmul(&columns.t()?)?)?;
    }
    let (kh, kw) = geometry.window;
    sum.reshape((maps, geometry.channels, kh, kw))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{conv_transpose2d, conv2d};
    use crate::gradient_check::{check_gradients, normal, same, values};
    use candle_core::{DType, Device, Tensor, Var};

    /// Element by element: what `output(row, y, dy)` calls true takes part.
    fn by_loops(
        x: &Tensor,
        weight: &Tensor,
        size: (usize, usize),
        transposed: bool,
        (stride, padding): (usize, usize),
    ) -> Tensor {
        let (batch, _, h, w) = x.dims4().unwrap();
        let (first, second, kh, kw) = weight.dims4().unwrap();
        let (inputs, outputs) = if transposed { (first, second) } else { (second, first) };
        let (data, weights) = (values(x), values(weight));
        let mut out = vec![0.0; batch * outputs * size.0 * size.1];
        for (b, i, o) in
            (0..batch).flat_map(|b| (0..inputs).flat_map(move |i| (0..outputs).map(move |o| (b, i, o))))
        {
            for (dy, dx) in (0..kh).flat_map(|dy| (0..kw).map(move |dx| (dy, dx))) {
                let kernel = if transposed { i * outputs + o } else { o * inputs + i };
                let weight = weights[(kernel * kh + dy) * kw + dx];
                for (y, x) in (0..h).flat_map(|y| (0..w).map(move |x| (y, x))) {
                    for (row, column) in
                        (0..size.0).flat_map(|row| (0..size.1).map(move |column| (row, column)))
                    {
                        let meets = if transposed {
                            row + padding == y * stride + dy && column + padding == x * stride + dx
                        } else {
                            y + padding == row * stride + dy && x + padding == column * stride + dx
                        };
                        if meets {
                            out[((b * outputs + o) * size.0 + row) * size.1 + column] +=
                                weight * data[((b * inputs + i) * h + y) * w + x];
                        }
                    }
                }
            }
        }
        Tensor::from_vec(out, (batch, outputs, size.0, size.1), &Device::Cpu).unwrap()
    }

    /// Kernel, stride, padding; 7 x 8 pixels leave every pair of remainders.
    const ALL: [((usize, usize), usize, usize); 7] = [
        ((3, 3), 1, 1),
        ((3, 3), 2, 1),
        ((4, 4), 2, 1),
        ((1, 1), 2, 0),
        ((3, 2), 3, 0),
        ((5, 5), 3, 2),
        ((2, 2), 1, 3),
    ];

    #[test]
    fn values_are_those_of_plain_loops() {
        for ((kh, kw), stride, padding) in ALL {
            let (x, weight) = (normal(&[2, 3, 7, 8], 0), normal(&[4, 3, kh, kw], 1));
            let size = ((7 + 2 * padding - kh) / stride + 1, (8 + 2 * padding - kw) / stride + 1);
            let found = conv2d(&x, &weight, None, stride, padding).unwrap();
            same(&found, &by_loops(&x, &weight, size, false, (stride, padding)), 1e-12);

            let (x, weight) = (normal(&[2, 3, 4, 5], 2), normal(&[3, 2, kh, kw], 3));
            if 3 * stride + kh <= 2 * padding {
                continue;
            }
            let size = (3 * stride + kh - 2 * padding, 4 * stride + kw - 2 * padding);
            let found = conv_transpose2d(&x, &weight, None, stride, padding).unwrap();
            same(&found, &by_loops(&x, &weight, size, true, (stride, padding)), 1e-12);
        }
    }

    #[test]
    fn gradients_are_right_for_every_remainder() {
        for ((kh, kw), stride, padding) in ALL {
            for (h, w) in [(5, 6), (6, 5), (5, 5)] {
                let inputs = [normal(&[2, 2, h, w], 4), normal(&[3, 2, kh, kw], 5), normal(&[3], 6)];
                check_gradients(&inputs, |t| conv2d(&t[0], &t[1], Some(&t[2]), stride, padding));
            }
            if stride + kw > 2 * padding {
                let inputs = [normal(&[2, 3, 3, 2], 7), normal(&[3, 2, kh, kw], 8), normal(&[2], 9)];
                check_gradients(&inputs, |t| conv_transpose2d(&t[0], &t[1], Some(&t[2]), stride, padding));
            }
        }
        let strided = [normal(&[1, 2, 6, 5], 10), normal(&[2, 3, 3, 3], 11)];
        check_gradients(&strided, |t| conv2d(&t[0].transpose(2, 3)?, &t[1].transpose(0, 1)?, None, 2, 1));
        check_gradients(&strided, |t| conv_transpose2d(&t[0].transpose(2, 3)?, &t[1], None, 2, 1));
    }

    #[test]
    fn images_beyond_one_chunk_are_put_together() {
        // 2 * 25 * 210 * 210 elements of windows: more than a chunk for one image; and many small images a chunk.
        for (batch, side) in [(2, 210), (60, 40)] {
            let x = normal(&[batch, 2, side, side], 12).to_dtype(DType::F32).unwrap();
            let weight = normal(&[3, 2, 5, 5], 13).to_dtype(DType::F32).unwrap();
            let cotangent = normal(&[batch, 3, side, side], 14).to_dtype(DType::F32).unwrap();
            let (x, weight) = (Var::from_tensor(&x).unwrap(), Var::from_tensor(&weight).unwrap());
            let ways = [conv2d(&x, &weight, None, 1, 2).unwrap(), x.conv2d(&weight, 2, 1, 1, 1).unwrap()];
            same(&ways[0], &ways[1], 1e-4);
            let [ours, theirs] =
                ways.map(|y| (y * &cotangent).unwrap().sum_all().unwrap().backward().unwrap());
            same(ours.get(&x).unwrap(), theirs.get(&x).unwrap(), 1e-4);
            let (ours, theirs) = (ours.get(&weight).unwrap(), theirs.get(&weight).unwrap());
            same(ours, theirs, 1e-2);
        }
    }

    #[test]
    fn the_transposed_is_the_adjoint() {
        // No remainder: what the padding cuts off is the same on all sides.
        let (x, weight) = (normal(&[2, 3, 10, 9], 15), normal(&[4, 3, 4, 3], 16));
        let y = conv2d(&x, &weight, None, 2, 1).unwrap();
        let map = normal(y.dims(), 17);
        let back = conv_transpose2d(&map, &weight, None, 2, 1).unwrap();
        assert_eq!(back.dims(), x.dims());
        let dot = |a: &Tensor, b: &Tensor| values(&(a * b).unwrap().sum_all().unwrap())[0];
        assert!((dot(&y, &map) - dot(&x, &back)).abs() < 1e-10);
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let (x, weight) = (normal(&[1, 2, 4, 4], 18), normal(&[3, 2, 3, 3], 19));
        let says = |found: crate::Result<Tensor>, word: &str| {
            let message = found.unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        };
        says(conv2d(&normal(&[1, 3, 4, 4], 0), &weight, None, 1, 0), "conv2d: x");
        says(conv2d(&normal(&[1, 2, 2, 4], 0), &weight, None, 1, 0), "at least 3");
        says(conv2d(&x, &weight, None, 0, 0), "stride");
        says(conv2d(&x, &weight, Some(&normal(&[2], 0)), 1, 0), "bias");
        says(conv2d(&x, &normal(&[3, 2, 3], 0), None, 1, 0), "weight");
        says(conv_transpose2d(&x, &weight, None, 1, 0), "conv_transpose2d: x");
        says(conv_transpose2d(&normal(&[1, 3, 1, 1], 0), &weight, None, 1, 2), "padding");
        says(conv_transpose2d(&normal(&[1, 3, 1, 1], 0), &weight, None, 0, 0), "stride");
    }
}
