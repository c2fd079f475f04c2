//! Places on a surface.

use std::ops::{Add, Mul, Sub};

/// A place, or a step between places; the image's side is 1 long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    pub(super) x: f32,
    pub(super) y: f32,
}

impl Point {
    pub(super) fn length(self) -> f32 {
        self.dot(self).sqrt()
    }

    pub(super) fn dot(self, other: Self) -> f32 {
        self.x * other.x + self.y * other.y
    }

    /// Turned by the angle whose unit vector is `by`.
    pub(super) fn turned(self, by: Self) -> Self {
        Self { x: self.x * by.x - self.y * by.y, y: self.x * by.y + self.y * by.x }
    }

    /// How far the place is from the line between two others, and where along it the nearest one lies, from 0 to 1.
    pub(super) fn near_line(self, start: Self, end: Self) -> (f32, f32) {
        let line = end - start;
        let along = ((self - start).dot(line) / line.dot(line).max(1e-12)).clamp(0.0, 1.0);
        ((self - start - line * along).length(), along)
    }
}

impl Add for Point {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { x: self.x + other.x, y: self.y + other.y }
    }
}

impl Sub for Point {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { x: self.x - other.x, y: self.y - other.y }
    }
}

impl Mul<f32> for Point {
    type Output = Self;

    fn mul(self, by: f32) -> Self {
        Self { x: self.x * by, y: self.y * by }
    }
}
