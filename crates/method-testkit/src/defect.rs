//! What is wrong with defective images.

use anomaly_core::Stream;

use crate::Texture;

/// A planted defect. Its place (and, for spots, its colour) is drawn for every image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// A disc of a quarter of the image's side across, in a colour that no texture has.
    Spot,
    /// A bright line across the image, a sixteenth of its side wide.
    Scratch,
    /// A square of a third of the side where the texture is missing: the image's mean colour.
    Missing,
    /// A square of half the side cut from another texture.
    Patch,
    /// The whole image is of another texture: a class that was not trained on.
    OtherTexture,
}

impl Defect {
    /// Plants the defect into `pixels`, `(H, W, 3)` of an image of `texture`.
    pub(crate) fn plant(self, texture: Texture, size: usize, pixels: &mut [f32], stream: &mut Stream) {
        let (at_u, at_v) = (0.3 + 0.4 * stream.uniform(), 0.3 + 0.4 * stream.uniform());
        let green = stream.below(2) == 0;
        let mean: [f32; 3] = std::array::from_fn(|c| {
            pixels.iter().skip(c).step_by(3).sum::<f32>() / (pixels.len() / 3).max(1) as f32
        });
        let other = texture.other().draw(size, stream);
        for (place, pixel) in pixels.chunks_exact_mut(3).enumerate() {
            let u = ((place % size) as f32 + 0.5) / size as f32 - at_u;
            let v = ((place / size) as f32 + 0.5) / size as f32 - at_v;
            let there = &other[place * 3..place * 3 + 3];
            match self {
                Self::Spot if u.hypot(v) < 0.125 => {
                    pixel.copy_from_slice(&if green { [20.0, 240.0, 20.0] } else { [240.0, 20.0, 220.0] });
                }
                Self::Scratch if (u - v).abs() < 0.0625 => pixel.copy_from_slice(&[250.0; 3]),
                Self::Missing if u.abs().max(v.abs()) < 1.0 / 6.0 => pixel.copy_from_slice(&mean),
                Self::Patch if u.abs().max(v.abs()) < 0.25 => pixel.copy_from_slice(there),
                Self::OtherTexture => pixel.copy_from_slice(there),
                _ => {}
            }
        }
    }
}
