//! Structural similarity: the moments of all windows along one axis and then the other, and the map from them.

use candle_core::{DType, Result};

use super::maps::{Table, map_axis, per_element};
use super::{Arg, Input, Machine, Module, small};

/// Of x, y, their squares and their product.
const MOMENTS: usize = 5;

/// The two images, row by row, and what a window is: along columns (the last axis) and along rows.
#[derive(Debug)]
pub(crate) struct Windows<'a, A> {
    pub(crate) x: Input<'a, A>,
    pub(crate) y: Input<'a, A>,
    /// Images times channels.
    pub(crate) planes: usize,
    pub(crate) columns: Table<'a, A>,
    pub(crate) rows: Table<'a, A>,
    pub(crate) c1: f64,
    pub(crate) c2: f64,
}

impl<A> Windows<'_, A> {
    /// Of the map.
    fn elements(&self) -> usize {
        self.planes * self.rows.outputs * self.columns.outputs
    }

    /// `(5, planes, rows, columns)`, in f32.
    fn moments<M: Machine<Array = A>>(&self, machine: &M, dtype: DType) -> Result<A> {
        let along_columns = self.planes * self.rows.inputs * self.columns.outputs;
        let mut across = machine.array(DType::F32, MOMENTS * along_columns)?;
        machine.launch(
            &per_element(Module::Ssim, "ssim_moments", dtype, along_columns)?,
            &mut [
                self.x.arg(),
                self.y.arg(),
                self.columns.places.arg(),
                self.columns.weights.arg(),
                Arg::Write(&mut across, 0),
                Arg::Size(along_columns),
                Arg::U32(small(self.columns.inputs)?),
                Arg::U32(small(self.columns.outputs)?),
            ],
        )?;
        let across = Input { array: &across, start: 0 };
        map_axis(machine, DType::F32, across, &self.rows, MOMENTS * self.planes, self.columns.outputs)
    }

    /// The similarity around every pixel, `(planes, rows, columns)`.
    pub(crate) fn map<M: Machine<Array = A>>(&self, machine: &M, dtype: DType) -> Result<A> {
        let moments = self.moments(machine, dtype)?;
        let elements = self.elements();
        let mut out = machine.array(dtype, elements)?;
        machine.launch(
            &per_element(Module::Ssim, "ssim_map", dtype, elements)?,
            &mut [
                Arg::Read(&moments, 0),
                Arg::Write(&mut out, 0),
                Arg::Size(elements),
                Arg::F32(self.c1 as f32),
                Arg::F32(self.c2 as f32),
            ],
        )?;
        Ok(out)
    }

    /// The gradients of x and y, one behind the other, from that of the map. `back` has the transposed maps, along
    /// columns and along rows. The moments are computed again: to keep them would take five times the map's memory.
    pub(crate) fn backward<M: Machine<Array = A>>(
        &self,
        machine: &M,
        dtype: DType,
        gradient: Input<'_, A>,
        back: (&Table<'_, A>, &Table<'_, A>),
    ) -> Result<A> {
        let moments = self.moments(machine, dtype)?;
        let elements = self.elements();
        let mut of_moments = machine.array(DType::F32, MOMENTS * elements)?;
        machine.launch(
            &per_element(Module::Ssim, "ssim_map_backward", dtype, elements)?,
            &mut [
                Arg::Read(&moments, 0),
                gradient.arg(),
                Arg::Write(&mut of_moments, 0),
                Arg::Size(elements),
                Arg::F32(self.c1 as f32),
                Arg::F32(self.c2 as f32),
            ],
        )?;
        let (columns, rows) = back;
        let of_moments = Input { array: &of_moments, start: 0 };
        let planes = MOMENTS * self.planes;
        let across = map_axis(machine, DType::F32, of_moments, rows, planes, self.columns.outputs)?;
        let pixels = self.planes * self.rows.inputs * self.columns.inputs;
        let mut out = machine.array(dtype, 2 * pixels)?;
        machine.launch(
            &per_element(Module::Ssim, "ssim_moments_backward", dtype, pixels)?,
            &mut [
                self.x.arg(),
                self.y.arg(),
                columns.places.arg(),
                columns.weights.arg(),
                Arg::Read(&across, 0),
                Arg::Write(&mut out, 0),
                Arg::Size(pixels),
                Arg::U32(small(self.columns.inputs)?),
                Arg::U32(small(self.columns.outputs)?),
            ],
        )?;
        Ok(out)
    }
}
