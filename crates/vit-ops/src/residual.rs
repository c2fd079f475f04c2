// A kernel is compiled for an instruction set only where all of it is inlined: see `lanes`.
#![allow(clippy::inline_always)]

use candle_core::{CpuStorage, CustomOp3, D, Layout, Shape, Tensor, bail};

use crate::kernels::written;
use crate::lanes::{Kernel, Lanes, Real, map, update};
use crate::rows::{Held, add_row, add_up, by_type, has_kernels, slice};
use crate::{Error, Result};

/// `x + scale * (branch + bias)`: the end of a block's half, with its linear layer's bias and `LayerScale` vector
/// (Touvron et al. 2021, arXiv 2103.17239) where it has them.
///
/// `x` and `branch` are `(.., D)`, `bias` and `scale` are `(D,)`.
///
/// # Errors
///
/// If the shapes don't fit.
pub fn add_residual(
    x: &Tensor,
    branch: &Tensor,
    bias: Option<&Tensor>,
    scale: Option<&Tensor>,
) -> Result<Tensor> {
    let width = x.dim(D::Minus1)?;
    if branch.dims() != x.dims() {
        let expected = format!("{:?} like x", x.shape());
        return Err(Error::shape("add_residual", "branch", expected, branch.shape()));
    }
    let mut rows = Vec::new();
    for (argument, row) in [("bias", bias), ("scale", scale)] {
        match row {
            Some(row) if row.dims() != [width] => {
                return Err(Error::shape("add_residual", argument, format!("({width},)"), row.shape()));
            }
            Some(row) => rows.push(row),
            None => {}
        }
    }
    let one_type = [branch].iter().chain(&rows).all(|t| t.dtype() == x.dtype());
    #[cfg(feature = "cuda")]
    if let Some(result) = crate::cuda::operations::add_residual(x, branch, bias, scale)? {
        return Ok(result);
    }
    if rows.is_empty() || !has_kernels(x) || !one_type {
        return composed(x, branch, bias, scale);
    }
    // An operation of our own takes three tensors: the rows go as one.
    let both = Tensor::cat(&rows, 0)?.contiguous()?;
    let operation = Fused { width, bias: bias.is_some(), scale: scale.is_some() };
    Ok(x.contiguous()?.apply_op3(&branch.contiguous()?, &both, operation)?)
}

fn composed(x: &Tensor, branch: &Tensor, bias: Option<&Tensor>, scale: Option<&Tensor>) -> Result<Tensor> {
    let biased = match bias {
        Some(bias) => &add_row("add_residual", branch, bias)?,
        None => branch,
    };
    let scaled = match scale {
        Some(scale) => &biased.broadcast_mul(scale)?,
        None => biased,
    };
    Ok((x + scaled)?)
}

/// Over x, branch, and the rows there are: the bias first, then the scale.
#[derive(Debug, Clone, Copy)]
struct Fused {
    width: usize,
    bias: bool,
    scale: bool,
}

/// The bias and the scale.
type Rows<'a, T> = (Option<&'a [T]>, Option<&'a [T]>);

impl Fused {
    fn rows<T>(self, both: &[T]) -> Rows<'_, T> {
        let scale = &both[if self.bias { self.width } else { 0 }..];
        (self.bias.then(|| &both[..self.width]), self.scale.then_some(scale))
    }
}

/// One row.
struct Forward<'a, T> {
    out: &'a mut [T],
    x: &'a [T],
    branch: &'a [T],
    rows: Rows<'a, T>,
}

impl<T: Real> Kernel<T> for Forward<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Number = T>>(self, lanes: L) {
        let Self { out, x, branch, rows } = self;
        match rows {
            (None, None) => map(
                lanes,
                out,
                [x, branch],
                #[inline(always)]
                |[x, y]| lanes.add(x, y),
            ),
            (Some(bias), None) => {
                map(
                    lanes,
                    out,
                    [x, branch, bias],
                    #[inline(always)]
                    |[x, y, bias]| lanes.add(x, lanes.add(y, bias)),
                );
            }
            (None, Some(scale)) => {
                map(
                    lanes,
                    out,
                    [x, branch, scale],
                    #[inline(always)]
                    |[x, y, scale]| lanes.mul_add(scale, y, x),
                );
            }
            (Some(bias), Some(scale)) => {
                map(
                    lanes,
                    out,
                    [x, branch, bias, scale],
                    #[inline(always)]
                    |[x, y, bias, scale]| lanes.mul_add(scale, lanes.add(y, bias), x),
                );
            }
        }
    }
}

/// One row of the branch's gradient, with a scale; and what the row adds to the sums.
struct Backward<'a, T> {
    out: &'a mut [T],
    /// Of the gradient.
    sums: &'a mut [T],
    /// Of the gradient times the branch.
    products: &'a mut [T],
    branch: &'a [T],
    scale: &'a [T],
    gradient: &'a [T],
}

impl<T: Real> Kernel<T> for Backward<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Number = T>>(self, lanes: L) {
        let Self { out, sums, products, branch, scale, gradient } = self;
        map(
            lanes,
            out,
            [gradient, scale],
            #[inline(always)]
            |[g, scale]| lanes.mul(g, scale),
        );
        update(
            lanes,
            sums,
            [gradient],
            #[inline(always)]
            |sum, [g]| lanes.add(sum, g),
        );
        update(
            lanes,
            products,
            [gradient, branch],
            #[inline(always)]
            |sum, [g, y]| lanes.mul_add(g, y, sum),
        );
    }
}

/// The gradients of the branch and of the rows.
fn backward<T: Real>(
    operation: Fused,
    branch: &Tensor,
    both: &Tensor,
    gradient: &Tensor,
) -> candle_core::Result<(Tensor, Tensor)> {
    let Fused { width, .. } = operation;
    let device = branch.device();
    let (held_branch, held_rows, held_gradient) = (Held::new(branch), Held::new(both), Held::new(gradient));
    let (y, rows, g) = (held_branch.slice::<T>()?, held_rows.slice::<T>()?, held_gradient.slice::<T>()?);
    let (bias, Some(scale)) = operation.rows(rows) else {
        // Nothing but a bias: the branch's gradient is the one that came.
        let sums = crate::rows::column_sums(g, width);
        return Ok((gradient.clone(), Tensor::from_vec(sums, width, device)?));
    };
    let start = || vec![T::ZERO; 2 * width];
    let (of_branch, sums) = written(y.len() / width, width, start, |sums: &mut Vec<T>, index, out| {
        let (sums, products) = sums.split_at_mut(width);
        let row = index * width..(index + 1) * width;
        let (branch, gradient) = (&y[row.clone()], &g[row]);
        T::run(Backward { out, sums, products, branch, scale, gradient });
    });
    let sums = add_up(&sums, 2 * width);
    let (sums, products) = sums.split_at(width);
    let mut of_rows = Vec::with_capacity(2 * width);
    if let Some(bias) = bias {
        of_rows.extend(sums.iter().zip(scale).map(|(&sum, &scale)| sum * scale));
        let of_scale = sums.iter().zip(products).zip(bias);
        of_rows.extend(of_scale.map(|((&sum, &product), &bias)| product + sum * bias));
    } else {
        of_rows.extend_from_slice(products);
    }
    let count = of_rows.len();
    Ok((Tensor::from_vec(of_branch, branch.shape(), device)?, Tensor::from_vec(of_rows, count, device)?))
}

impl CustomOp3 for Fused {
    fn name(&self) -> &'static str {
        "add_residual"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        branch: &CpuStorage,
        branch_layout: &Layout,
        both: &CpuStorage,
        both_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        fn run<T: Real>(operation: Fused, x: &[T], branch: &[T], both: &[T]) -> Vec<T> {
            let (width, rows) = (operation.width, operation.rows(both));
            let fill = |(): &mut (), index: usize, out: &mut [T]| {
                let row = index * width..(index + 1) * width;
                T::run(Forward { out, x: &x[row.clone()], branch: &branch[row], rows });
            };
            written(x.len() / width, width, || (), fill).0
        }
        let storage = match x {
            CpuStorage::F32(_) => CpuStorage::F32(run(
                *self,
                slice(x, x_layout)?,
                slice(branch, branch_layout)?,
                slice(both, both_layout)?,
            )),
            CpuStorage::F64(_) => CpuStorage::F64(run(
                *self,
                slice(x, x_layout)?,
                slice(branch, branch_layout)?,
                slice(both, both_layout)?,
            )),
            _ => bail!("the kernel of add_residual takes f32 and f64"),
        };
        Ok((storage, x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        branch: &Tensor,
        both: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let contiguous = gradient.contiguous()?;
        let (of_branch, of_rows) =
            by_type!(branch, "add_residual", backward(*self, branch, both, &contiguous))?;
        // What nothing asks for would be added up for nothing.
        let of_x = x.track_op().then(|| gradient.clone());
        Ok((of_x, branch.track_op().then_some(of_branch), both.track_op().then_some(of_rows)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{add_residual, composed};
    use crate::gradient_check::{check_gradients, normal, same};
    use candle_core::{DType, Device, Tensor};

    #[test]
    fn the_formula_holds() {
        let t = |v: &[f64]| Tensor::new(v, &Device::Cpu).unwrap();
        let (x, branch, bias, scale) = (t(&[1., 2.]), t(&[3., 4.]), t(&[10., 20.]), t(&[2., 0.5]));
        let value = |b, s| add_residual(&x, &branch, b, s).unwrap().to_vec1::<f64>().unwrap();
        assert_eq!(value(None, None), [4., 6.]);
        assert_eq!(value(Some(&bias), None), [14., 26.]);
        assert_eq!(value(None, Some(&scale)), [7., 4.]);
        assert_eq!(value(Some(&bias), Some(&scale)), [27., 14.]);
    }

    #[test]
    fn gradients_are_right() {
        // More rows than a block holds, and a branch that is strided.
        let inputs = [normal(&[2, 33, 4], 0), normal(&[4, 33, 2], 1), normal(&[4], 2), normal(&[4], 3)];
        let branch = |t: &[Tensor]| t[1].transpose(0, 2);
        check_gradients(&inputs, |t| add_residual(&t[0], &branch(t)?, Some(&t[2]), Some(&t[3])));
        check_gradients(&inputs, |t| composed(&t[0], &branch(t)?, Some(&t[2]), Some(&t[3])));
        check_gradients(&inputs[..3], |t| add_residual(&t[0], &branch(t)?, Some(&t[2]), None));
        check_gradients(&inputs[..3], |t| add_residual(&t[0], &branch(t)?, None, Some(&t[2])));
        check_gradients(&inputs[..2], |t| add_residual(&t[0], &branch(t)?, None, None));
    }

    #[test]
    fn what_is_frozen_gets_no_gradient_and_does_no_harm() {
        let (x, bias, scale) = (normal(&[3, 4], 4), normal(&[4], 5), normal(&[4], 6));
        check_gradients(&[normal(&[3, 4], 7)], |t| add_residual(&x, &t[0], Some(&bias), Some(&scale)));
        check_gradients(&[normal(&[3, 4], 7)], |t| add_residual(&t[0], &x, Some(&bias), None));
        check_gradients(&[normal(&[4], 7)], |t| add_residual(&x, &x, Some(&t[0]), Some(&scale)));
    }

    #[test]
    fn f32_is_as_good_as_f64() {
        let inputs = [normal(&[70, 19], 8), normal(&[70, 19], 9), normal(&[19], 10), normal(&[19], 11)];
        let single: Vec<Tensor> = inputs.iter().map(|t| t.to_dtype(DType::F32).unwrap()).collect();
        let of = |t: &[Tensor]| add_residual(&t[0], &t[1], Some(&t[2]), Some(&t[3])).unwrap();
        same(&of(&single), &of(&inputs), 2e-6);
    }

    #[test]
    fn rows_may_be_strided() {
        let [x, branch] = [0, 1].map(|seed| normal(&[2, 3], seed));
        let row = normal(&[3, 2], 2).narrow(1, 1, 1).unwrap().squeeze(1).unwrap();
        for (bias, scale) in [(Some(&row), None), (None, Some(&row)), (Some(&row), Some(&row))] {
            let copy = row.copy().unwrap();
            let wanted = add_residual(&x, &branch, bias.map(|_| &copy), scale.map(|_| &copy)).unwrap();
            same(&add_residual(&x, &branch, bias, scale).unwrap(), &wanted, 0.0);
        }
    }

    #[test]
    fn wrong_shapes_are_named() {
        let (x, short) = (normal(&[2, 3], 0), normal(&[2], 0));
        let message = add_residual(&x, &x, None, Some(&short)).unwrap_err().to_string();
        assert!(message.contains("scale") && message.contains("(3,)"), "{message}");
        assert!(add_residual(&x, &normal(&[2, 4], 0), None, None).is_err());
    }
}
