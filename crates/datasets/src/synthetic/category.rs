//! What is made, and what may be wrong with it.

use anomaly_core::Stream;

use super::noise::direction;
use super::point::Point;

/// What the images of a category show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Category {
    Capsule,
    Cloth,
    Leather,
    Metal,
    Nut,
    Print,
    Tiles,
    Wood,
}

/// A kind of defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Deformed,
    Foreign,
    Missing,
    Scratch,
    Stain,
}

impl Category {
    /// All of them, by name.
    pub(super) const ALL: [Self; 8] = [
        Self::Capsule,
        Self::Cloth,
        Self::Leather,
        Self::Metal,
        Self::Nut,
        Self::Print,
        Self::Tiles,
        Self::Wood,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Capsule => "capsule",
            Self::Cloth => "cloth",
            Self::Leather => "leather",
            Self::Metal => "metal",
            Self::Nut => "nut",
            Self::Print => "print",
            Self::Tiles => "tiles",
            Self::Wood => "wood",
        }
    }

    /// Whether it is a thing on a ground, not a surface that fills the image.
    pub(super) fn is_object(self) -> bool {
        matches!(self, Self::Capsule | Self::Nut)
    }

    /// The largest angle, in turns, by which a piece lies askew.
    pub(super) fn askew(self) -> f32 {
        match self {
            Self::Nut => 0.5,
            Self::Capsule => 0.06,
            Self::Leather => 0.25,
            _ => 0.012,
        }
    }

    /// The largest share by which a piece is nearer to the camera or farther.
    pub(super) fn zoom(self) -> f32 {
        if self.is_object() { 0.04 } else { 0.06 }
    }

    /// How far it gives way, against metal.
    pub(super) fn yields(self) -> f32 {
        match self {
            Self::Leather => 3.0,
            Self::Cloth => 1.8,
            _ => 1.0,
        }
    }

    /// Whose stuff gets onto it.
    pub(super) fn foreign(self) -> Self {
        match self {
            Self::Capsule | Self::Print => Self::Wood,
            Self::Nut | Self::Wood => Self::Cloth,
            Self::Cloth => Self::Leather,
            Self::Leather | Self::Tiles => Self::Metal,
            Self::Metal => Self::Tiles,
        }
    }

    /// A place where a defect of this kind may be, measured from the image's centre.
    pub(super) fn place(self, kind: Kind, stream: &mut Stream) -> Point {
        let (a, b) = (stream.uniform(), stream.uniform());
        match (self, kind) {
            (Self::Nut, Kind::Missing | Kind::Deformed) => direction(a) * (0.29 + 0.03 * b),
            (Self::Nut, _) => direction(a) * (0.21 + 0.05 * b),
            (Self::Capsule, Kind::Missing | Kind::Deformed) => {
                let side = if b < 0.5 { -1.0 } else { 1.0 };
                Point { x: 0.5 * (a - 0.5), y: side * 0.11 }
            }
            (Self::Capsule, _) => Point { x: 0.44 * (a - 0.5), y: 0.12 * (b - 0.5) },
            _ => Point { x: 0.6 * (a - 0.5), y: 0.6 * (b - 0.5) },
        }
    }
}

impl Kind {
    /// All of them, by name.
    pub(super) const ALL: [Self; 5] =
        [Self::Deformed, Self::Foreign, Self::Missing, Self::Scratch, Self::Stain];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Deformed => "deformed",
            Self::Foreign => "foreign",
            Self::Missing => "missing",
            Self::Scratch => "scratch",
            Self::Stain => "stain",
        }
    }
}
