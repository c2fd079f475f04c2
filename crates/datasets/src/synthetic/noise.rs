//! Noise and waves that have the same bits on every machine.
//!
//! Whole-number hashes and the exact operations of IEEE arithmetic only (`+ - * /`, square root, floor): nothing here
//! calls a function of a mathematical library, whose last bits differ from system to system.

use super::point::Point;

/// 32 well-mixed bits of a place and a seed.
pub(super) fn hash(x: i32, y: i32, seed: u32) -> u32 {
    let mut h = seed.wrapping_add((x as u32).wrapping_mul(0x9e37_79b1));
    h = (h ^ (h >> 15)).wrapping_mul(0x2c1b_3c6d).wrapping_add((y as u32).wrapping_mul(0x85eb_ca77));
    h = (h ^ (h >> 13)).wrapping_mul(0x297a_2d39);
    h = (h ^ (h >> 16)).wrapping_mul(0x846c_a68b);
    h ^ (h >> 16)
}

/// A number in `[0, 1)` for a place.
pub(super) fn unit(x: i32, y: i32, seed: u32) -> f32 {
    (hash(x, y, seed) >> 8) as f32 * (1.0 / (1 << 24) as f32)
}

/// Smooth noise in `[-1, 1]` with features of the size 1.
pub(super) fn noise(x: f32, y: f32, seed: u32) -> f32 {
    let (left, top) = (x.floor(), y.floor());
    let (across, down) = (fade(x - left), fade(y - top));
    let (left, top) = (left as i32, top as i32);
    let row = |y| mix(unit(left, y, seed), unit(left + 1, y, seed), across);
    mix(row(top), row(top + 1), down) * 2.0 - 1.0
}

/// Noise with features of the size 1 and, ever weaker, of a half, a quarter and so on; in `[-1, 1]`.
pub(super) fn layered(x: f32, y: f32, layers: u32, seed: u32) -> f32 {
    let (mut sum, mut total, mut weight, mut rate) = (0.0, 0.0, 1.0, 1.0);
    for layer in 0..layers {
        sum += weight * noise(x * rate, y * rate, seed.wrapping_add(layer));
        total += weight;
        weight *= 0.5;
        rate *= 2.0;
    }
    sum / total
}

/// What lies around a place among scattered points, one in each unit square.
#[derive(Clone, Copy)]
pub(super) struct Cells {
    /// Distance to the nearest point.
    pub(super) nearest: f32,
    /// Distance to the next one.
    pub(super) second: f32,
    /// Which point is the nearest.
    pub(super) id: u32,
}

/// The cells of scattered points.
pub(super) fn cells(x: f32, y: f32, seed: u32) -> Cells {
    let (left, top) = (x.floor() as i32, y.floor() as i32);
    let mut found = Cells { nearest: 9.0, second: 9.0, id: 0 };
    for (column, row) in (-1..=1).flat_map(|row| (-1..=1).map(move |column| (left + column, top + row))) {
        let id = hash(column, row, seed);
        let dx = column as f32 + (id & 0xffff) as f32 / 65536.0 - x;
        let dy = row as f32 + (id >> 16) as f32 / 65536.0 - y;
        let squared = dx * dx + dy * dy;
        if squared < found.nearest {
            found = Cells { nearest: squared, second: found.nearest, id };
        } else if squared < found.second {
            found.second = squared;
        }
    }
    Cells { nearest: found.nearest.sqrt(), second: found.second.sqrt(), id: found.id }
}

/// The sine of `turns` full turns, to about 1e-5.
pub(super) fn sine(turns: f32) -> f32 {
    let turn = turns - (turns + 0.5).floor();
    // Into the quarter around zero, where few terms are enough.
    let turn = if turn > 0.25 {
        0.5 - turn
    } else if turn < -0.25 {
        -0.5 - turn
    } else {
        turn
    };
    let x = turn * std::f32::consts::TAU;
    let square = x * x;
    x * (1.0 + square * (-1.0 / 6.0 + square * (1.0 / 120.0 + square * (-1.0 / 5040.0 + square / 362_880.0))))
}

/// The unit vector at an angle of `turns` full turns.
pub(super) fn direction(turns: f32) -> Point {
    Point { x: sine(turns + 0.25), y: sine(turns) }
}

/// From 0 at `low` to 1 at `high`, smoothly; `low` may be the larger one.
pub(super) fn ramp(low: f32, high: f32, x: f32) -> f32 {
    fade(((x - low) / (high - low)).clamp(0.0, 1.0))
}

/// `a` at 0, `b` at 1.
pub(super) fn mix(a: f32, b: f32, share: f32) -> f32 {
    a + (b - a) * share
}

fn fade(x: f32) -> f32 {
    x * x * (3.0 - 2.0 * x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sine_is_one() {
        for step in -400..400 {
            let turns = step as f32 / 97.0;
            let exact = (f64::from(turns) * std::f64::consts::TAU).sin();
            assert!((f64::from(sine(turns)) - exact).abs() < 2e-5, "{turns}");
        }
        assert_eq!((sine(0.0), sine(-0.5)), (0.0, 0.0));
    }

    #[test]
    fn noise_is_even_bounded_and_fixed() {
        let mut sum = 0.0;
        for at in 0..10_000 {
            let value = layered(at as f32 * 0.37, at as f32 * -0.11, 3, 5);
            assert!(value.abs() <= 1.0);
            sum += value;
        }
        assert!((sum / 10_000.0).abs() < 0.05, "{sum}");
        // Changing these changes every image.
        assert_eq!((hash(3, -4, 5), hash(-4, 3, 5)), (1_578_660_557, 1_922_169_475));
    }

    #[test]
    fn cells_know_their_two_nearest_points() {
        for at in 0..1000 {
            let found = cells(at as f32 * 0.13, at as f32 * 0.29, 1);
            assert!(found.nearest <= found.second && found.nearest < 1.5, "{at}");
        }
    }
}
