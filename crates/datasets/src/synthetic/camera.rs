//! Light, lens and sensor: from materials to an 8-bit image.

use anomaly_core::Stream;
use image_prep::Rgb8;

use super::category::Category;
use super::material::{Colour, Material};
use super::noise::{direction, hash, mix};
use super::point::Point;

/// Pixels along a side below which an image is drawn larger and then shrunk: threads and dots need some.
const FINEST: usize = 192;

/// How one image is taken.
#[derive(Clone, Debug)]
pub(super) struct Camera {
    size: usize,
    /// Drawn pixels per pixel along a side.
    fine: usize,
    turn: Point,
    zoom: f32,
    shift: Point,
    light: [f32; 3],
    /// Light at the centre, and how it changes across the image.
    gain: Colour,
    slope: Point,
    noise: f32,
    seed: u32,
}

impl Camera {
    pub(super) fn draw(category: Category, size: usize, stream: &mut Stream) -> Self {
        let mut around = |reach: f32| reach * 2.0 * (stream.uniform() - 0.5);
        let turn = direction(around(category.askew()));
        let zoom = 1.0 + around(category.zoom());
        let reach = if category.is_object() { 0.035 } else { 0.0 };
        let shift = Point { x: around(reach), y: around(reach) };
        // From the upper left, a little higher or lower.
        let towards = direction(0.625 + around(0.04)) * (0.55 + around(0.06));
        let up = (1.0 - towards.dot(towards)).sqrt();
        let (gain, warmth) = (1.0 + around(0.07), around(0.025));
        let slope = Point { x: around(0.10), y: around(0.10) };
        let noise = 1.6 + around(0.5);
        Self {
            size,
            fine: FINEST.div_ceil(size),
            turn,
            zoom,
            shift,
            light: [towards.x, towards.y, up],
            gain: [gain * (1.0 + warmth), gain, gain * (1.0 - warmth)],
            slope,
            noise,
            seed: stream.next_u32(),
        }
    }

    /// Drawn pixels along a side.
    fn drawn(&self) -> usize {
        self.size * self.fine
    }

    /// The place on the surface that the middle of a drawn pixel shows.
    fn place(&self, column: usize, row: usize) -> Point {
        let side = self.drawn() as f32;
        let p = Point { x: (column as f32 + 0.5) / side - 0.5, y: (row as f32 + 0.5) / side - 0.5 };
        (p - self.shift).turned(self.turn) * self.zoom
    }

    /// One value of `at` for every drawn pixel, rows from the top.
    pub(super) fn scan<T>(&self, mut at: impl FnMut(Point) -> T) -> Vec<T> {
        let side = self.drawn();
        (0..side * side).map(|pixel| at(self.place(pixel % side, pixel / side))).collect()
    }

    /// The image of drawn materials.
    pub(super) fn expose(&self, materials: &[Material]) -> Rgb8 {
        let side = self.drawn();
        let lit: Vec<Colour> =
            (0..side * side).map(|pixel| self.lit(materials, pixel % side, pixel / side)).collect();
        let blurred = blurred(&lit, side);
        let pixels = shrunk(&blurred, side, self.fine);
        let mut data = Vec::with_capacity(pixels.len() * 3);
        for (pixel, colour) in pixels.into_iter().enumerate() {
            for (channel, value) in colour.into_iter().enumerate() {
                let level = value * 255.0 + self.noise * self.grain(pixel, channel);
                // The cast saturates, and takes its bits from an exact floor.
                data.push((level + 0.5).floor() as u8);
            }
        }
        Rgb8 { height: self.size, width: self.size, data }
    }

    /// The light that a drawn pixel sends back.
    fn lit(&self, materials: &[Material], column: usize, row: usize) -> Colour {
        let side = self.drawn();
        let height = |column: usize, row: usize| materials[row * side + column].height;
        let difference = |high: f32, low: f32, steps: usize| (high - low) * side as f32 / steps.max(1) as f32;
        let (left, right) = (column.saturating_sub(1), (column + 1).min(side - 1));
        let (top, bottom) = (row.saturating_sub(1), (row + 1).min(side - 1));
        // In the image's axes: turning the heights' slope with the camera is not needed, it is measured after the turn.
        let x = difference(height(right, row), height(left, row), right - left).clamp(-3.0, 3.0);
        let y = difference(height(column, bottom), height(column, top), bottom - top).clamp(-3.0, 3.0);
        let length = (1.0 + x * x + y * y).sqrt();
        let [lx, ly, lz] = self.light;
        let diffuse = ((lz - lx * x - ly * y) / length).max(0.0);
        let half = (lx * lx + ly * ly + (lz + 1.0) * (lz + 1.0)).sqrt();
        let mirrored = ((lz + 1.0 - lx * x - ly * y) / (length * half)).max(0.0);
        // To the 32nd power.
        let mirrored = (0..5).fold(mirrored, |power, _| power * power);
        let (u, v) = (column as f32 / side as f32 - 0.5, row as f32 / side as f32 - 0.5);
        let fall = 1.0 + self.slope.x * u + self.slope.y * v - 0.18 * (u * u + v * v);
        let material = materials[row * side + column];
        std::array::from_fn(|c| {
            let scattered = material.colour[c] * (0.30 + 0.70 * diffuse / lz);
            (scattered + 0.5 * material.gloss * mirrored) * self.gain[c] * fall
        })
    }

    /// Sensor noise of variance 1, nearly normal.
    fn grain(&self, pixel: usize, channel: usize) -> f32 {
        let bits = hash(pixel as i32, channel as i32, self.seed);
        let more = hash(pixel as i32, channel as i32, self.seed ^ 0x5bd1_e995);
        // Four even draws of 16 bits; their sum has the variance 1/3.
        let sum =
            [bits & 0xffff, bits >> 16, more & 0xffff, more >> 16].map(|part| part as f32 / 65536.0 - 0.5);
        (sum[0] + sum[1] + sum[2] + sum[3]) * 1.732_050_8
    }

    /// The pixels that at least half of a defect's full cover falls on, as 255; the most covered ones if it is so thin
    /// that none is half covered.
    pub(super) fn mask(&self, cover: &[f32]) -> Vec<u8> {
        let covers = shrunk(&cover.iter().map(|&c| [c; 3]).collect::<Vec<_>>(), self.drawn(), self.fine);
        let most = covers.iter().map(|cover| cover[0]).fold(0.0, f32::max);
        let least = 0.5 * most.min(0.9);
        covers.iter().map(|cover| if most > 0.0 && cover[0] >= least { 255 } else { 0 }).collect()
    }
}

/// What the lens makes of it: each sample a quarter of its four neighbours' share (1 2 1 in either direction).
fn blurred(pixels: &[Colour], side: usize) -> Vec<Colour> {
    let pass = |pixels: &[Colour], neighbours: &dyn Fn(usize) -> (usize, usize)| -> Vec<Colour> {
        (0..pixels.len())
            .map(|at| {
                let (before, after) = neighbours(at);
                std::array::from_fn(|c| mix(pixels[at][c], 0.5 * (pixels[before][c] + pixels[after][c]), 0.5))
            })
            .collect()
    };
    let rows = pass(pixels, &|at| {
        let column = at % side;
        (if column == 0 { at } else { at - 1 }, if column + 1 == side { at } else { at + 1 })
    });
    pass(&rows, &|at| {
        let last = side * side - side;
        (if at < side { at } else { at - side }, if at >= last { at } else { at + side })
    })
}

/// The means of squares of `fine` x `fine` samples.
fn shrunk(pixels: &[Colour], side: usize, fine: usize) -> Vec<Colour> {
    if fine == 1 {
        return pixels.to_vec();
    }
    let size = side / fine;
    let share = 1.0 / (fine * fine) as f32;
    let mean = |pixel: usize| {
        let (column, row) = (pixel % size * fine, pixel / size * fine);
        let mut sum = [0.0; 3];
        for y in row..row + fine {
            for sample in &pixels[y * side + column..y * side + column + fine] {
                sum = std::array::from_fn(|c| sum[c] + sample[c]);
            }
        }
        sum.map(|s: f32| s * share)
    };
    (0..size * size).map(mean).collect()
}
