//! Resampling, filtering and structural similarity on a GPU's tensors, with their gradients.

use candle_core::{CudaStorage, Device, Result, Tensor};

use super::maps::{self, Table};
use super::operations::{Held, device_of, takes, takes_all, tensor};
use super::ssim::Windows;
use crate::axis_map::{AxisMap, Taps};
use crate::own_gradient::{with_gradient, with_gradients};

/// A map's taps on a device.
struct Placed {
    places: Tensor,
    weights: Tensor,
    inputs: usize,
    outputs: usize,
}

impl Placed {
    fn new(taps: Taps, device: &Device) -> Result<Self> {
        let Taps { inputs, outputs, places, mut weights } = taps;
        if weights.is_empty() {
            weights.push(0.0); // never read; the driver allocates no empty array
        }
        let (listed, weighed) = (places.len(), weights.len());
        Ok(Self {
            places: Tensor::from_vec(places, listed, device)?,
            weights: Tensor::from_vec(weights, weighed, device)?,
            inputs,
            outputs,
        })
    }

    fn hold(&self) -> HeldTable<'_> {
        HeldTable {
            places: Held::new(&self.places),
            weights: Held::new(&self.weights),
            inputs: self.inputs,
            outputs: self.outputs,
        }
    }
}

/// The same, held for reading.
struct HeldTable<'a> {
    places: Held<'a>,
    weights: Held<'a>,
    inputs: usize,
    outputs: usize,
}

impl HeldTable<'_> {
    fn table(&self) -> Result<Table<'_, CudaStorage>> {
        Ok(Table {
            places: self.places.input()?,
            weights: self.weights.input()?,
            inputs: self.inputs,
            outputs: self.outputs,
        })
    }
}

/// `rows` along the middle axis and `columns` along the last of `x` `(P, rows.inputs, columns.inputs)`; `None` if there
/// is no kernel.
pub(crate) fn along_both(rows: &AxisMap, columns: &AxisMap, x: &Tensor) -> Result<Option<Tensor>> {
    if !takes(x) || rows.outputs * columns.outputs == 0 {
        return Ok(None);
    }
    let planes = x.dim(0)?;
    let across = along_axis(columns, x, planes * rows.inputs, 1, (planes, rows.inputs, columns.outputs))?;
    along_axis(rows, &across, planes, columns.outputs, (planes, rows.outputs, columns.outputs)).map(Some)
}

/// The map along the middle axis of `x`, seen as `(outer, inputs, inner)`.
fn along_axis(
    map: &AxisMap,
    x: &Tensor,
    outer: usize,
    inner: usize,
    shape: (usize, usize, usize),
) -> Result<Tensor> {
    if map.is_identity() {
        return Ok(x.clone());
    }
    let x = x.contiguous()?;
    let value = mapped(map.taps_by_output(), &x, outer, inner)?.reshape(shape)?;
    // Of the map only what the way back needs is kept.
    let back = x.track_op().then(|| map.taps_by_input());
    with_gradient(&x, &value, move |x, _, gradient| {
        let back = back.clone().ok_or_else(|| candle_core::Error::msg("a gradient of a constant"))?;
        mapped(back, &gradient.contiguous()?, outer, inner)?.reshape(x.shape())
    })
}

/// The flat result of a contiguous `x`.
fn mapped(taps: Taps, x: &Tensor, outer: usize, inner: usize) -> Result<Tensor> {
    let elements = outer * taps.outputs * inner;
    let placed = Placed::new(taps, x.device())?;
    let (x_held, held) = (Held::new(x), placed.hold());
    let out = maps::map_axis(device_of(x)?, x.dtype(), x_held.input()?, &held.table()?, outer, inner)?;
    Ok(tensor(out, elements))
}

/// What [`crate::ssim`] looks at.
#[derive(Clone)]
pub(crate) struct Windowing {
    pub(crate) rows: AxisMap,
    pub(crate) columns: AxisMap,
    pub(crate) c1: f64,
    pub(crate) c2: f64,
}

/// The structural similarity of `x` and `y` `(B, C, H, W)`; `None` if there is no kernel.
pub(crate) fn ssim(x: &Tensor, y: &Tensor, windowing: &Windowing) -> Result<Option<Tensor>> {
    if !takes_all(x, &[y]) || windowing.rows.outputs * windowing.columns.outputs == 0 {
        return Ok(None);
    }
    let (batch, channels, _, _) = x.dims4()?;
    let (x, y) = (x.contiguous()?, y.contiguous()?);
    let value = windowing.launch(&x, &y, None)?;
    let value = value.reshape((batch, channels, windowing.rows.outputs, windowing.columns.outputs))?;
    let again = windowing.clone();
    let with = with_gradients(&x, &y, &value, move |x, y, gradient| {
        let both = again.launch(x, y, Some(&gradient.contiguous()?))?;
        let count = x.elem_count();
        let of_x = both.narrow(0, 0, count)?.reshape(x.shape())?;
        Ok((of_x, both.narrow(0, count, count)?.reshape(y.shape())?))
    });
    with.map(Some)
}

impl Windowing {
    /// The flat map of contiguous images; given its gradient, those of x and y, one behind the other.
    fn launch(&self, x: &Tensor, y: &Tensor, gradient: Option<&Tensor>) -> Result<Tensor> {
        let (batch, channels, _, _) = x.dims4()?;
        let planes = batch * channels;
        let place = |taps: Taps| Placed::new(taps, x.device());
        let (columns, rows) = (place(self.columns.taps_by_output())?, place(self.rows.taps_by_output())?);
        let (held_x, held_y) = (Held::new(x), Held::new(y));
        let (held_columns, held_rows) = (columns.hold(), rows.hold());
        let windows = Windows {
            x: held_x.input()?,
            y: held_y.input()?,
            planes,
            columns: held_columns.table()?,
            rows: held_rows.table()?,
            c1: self.c1,
            c2: self.c2,
        };
        let (device, dtype) = (device_of(x)?, x.dtype());
        let Some(gradient) = gradient else {
            return Ok(tensor(windows.map(device, dtype)?, planes * rows.outputs * columns.outputs));
        };
        let (columns, rows) = (place(self.columns.taps_by_input())?, place(self.rows.taps_by_input())?);
        let (held_columns, held_rows) = (columns.hold(), rows.hold());
        let back = (&held_columns.table()?, &held_rows.table()?);
        let out = windows.backward(device, dtype, Held::new(gradient).input()?, back)?;
        Ok(tensor(out, 2 * x.elem_count()))
    }
}
