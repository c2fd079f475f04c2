//! What a camera would see at one place, and how that is drawn.

use super::noise::mix;

/// Red, green and blue reflectance, 0 to 1.
pub(super) type Colour = [f32; 3];

/// What a surface is at one place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Material {
    pub(super) colour: Colour,
    /// Above the ground, in image sides: its slope catches the light.
    pub(super) height: f32,
    /// How much light it mirrors, 0 to 1.
    pub(super) gloss: f32,
    /// Whether the object is here (1) or the ground it lies on (0); 1 all over a texture.
    pub(super) solid: f32,
}

impl Material {
    /// A matt material of a texture.
    pub(super) fn matt(colour: Colour, height: f32) -> Self {
        Self { colour, height, gloss: 0.0, solid: 1.0 }
    }

    pub(super) fn glossy(self, gloss: f32) -> Self {
        Self { gloss, ..self }
    }

    /// This material where `share` is 0, the other where it is 1.
    pub(super) fn blend(self, other: Self, share: f32) -> Self {
        Self {
            colour: blend(self.colour, other.colour, share),
            height: mix(self.height, other.height, share),
            gloss: mix(self.gloss, other.gloss, share),
            solid: mix(self.solid, other.solid, share),
        }
    }
}

pub(super) fn blend(a: Colour, b: Colour, share: f32) -> Colour {
    std::array::from_fn(|c| mix(a[c], b[c], share))
}

pub(super) fn scaled(colour: Colour, by: f32) -> Colour {
    colour.map(|c| c * by)
}
