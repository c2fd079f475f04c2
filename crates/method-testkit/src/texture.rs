//! What normal images look like.

use std::f32::consts::TAU;

use anomaly_core::Stream;

/// A family of normal images. Images of one family differ by what is said here and by pixel noise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Texture {
    /// A part under a fixed camera: a ring on a shaded ground, always in one place; brightness varies a little. For
    /// methods that compare pixels at fixed places.
    Part,
    /// Stripes at one angle and wavelength; their phase is anywhere. For methods with features that don't mind shifts.
    Stripes,
    /// A weave of two crossing threads in two colours, shifted anywhere.
    Weave,
}

/// The standard deviation of pixel noise, of 255.
const NOISE: f32 = 3.0;

impl Texture {
    /// Red, green and blue in `0..=255` at `size` x `size` pixels, `(H, W, 3)`.
    pub(crate) fn draw(self, size: usize, stream: &mut Stream) -> Vec<f32> {
        let (shift_x, shift_y) = (stream.uniform(), stream.uniform());
        let gain = 1.0 + 0.03 * stream.normal();
        let mut pixels = Vec::with_capacity(size * size * 3);
        for y in 0..size {
            for x in 0..size {
                let (u, v) = ((x as f32 + 0.5) / size as f32, (y as f32 + 0.5) / size as f32);
                let colour = match self {
                    Self::Part => part(u, v),
                    Self::Stripes => stripes(u + shift_x, v),
                    Self::Weave => weave(u + shift_x, v + shift_y),
                };
                pixels.extend(colour.map(|c| c * gain + NOISE * stream.normal()));
            }
        }
        pixels
    }

    /// A family that is clearly another one.
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Part => Self::Weave,
            Self::Stripes => Self::Part,
            Self::Weave => Self::Stripes,
        }
    }
}

fn part(u: f32, v: f32) -> [f32; 3] {
    let radius = (u - 0.5).hypot(v - 0.5);
    if (0.2..0.38).contains(&radius) {
        [190.0, 180.0, 150.0]
    } else {
        [70.0 + 30.0 * u, 80.0, 95.0 + 20.0 * v]
    }
}

fn stripes(u: f32, v: f32) -> [f32; 3] {
    let wave = (TAU * 4.0 * (0.8 * u + 0.6 * v)).sin();
    [130.0 + 60.0 * wave, 120.0 + 50.0 * wave, 90.0 + 30.0 * wave]
}

fn weave(u: f32, v: f32) -> [f32; 3] {
    let (warp, weft) = ((TAU * 5.0 * u).sin(), (TAU * 5.0 * v).sin());
    if warp > weft { [150.0 + 40.0 * warp, 110.0, 80.0] } else { [80.0, 110.0, 150.0 + 40.0 * weft] }
}
