//! The surfaces: what each category looks like.

use anomaly_core::Stream;

use super::category::Category;
use super::material::{Colour, Material, blend, scaled};
use super::noise::{cells, layered, mix, noise, ramp, sine, unit};
use super::point::Point;

/// Square to the three pairs of a nut's sides.
const ACROSS_FLATS: [Point; 3] =
    [Point { x: 1.0, y: 0.0 }, Point { x: 0.5, y: 0.866_025_4 }, Point { x: -0.5, y: 0.866_025_4 }];

/// What all images of a category have in common: one product.
#[derive(Clone, Copy, Debug)]
pub(super) struct Product {
    category: Category,
    tint: Colour,
    /// Times the usual number of threads, tiles, dots or cells.
    pitch: f32,
}

/// One piece of a product.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surface {
    product: Product,
    /// Where the piece was cut from the roll.
    offset: Point,
    /// Lightness against the other pieces.
    tone: f32,
    seed: u32,
}

impl Product {
    pub(super) fn draw(category: Category, stream: &mut Stream) -> Self {
        let tint = std::array::from_fn(|_| 1.0 + 0.06 * (stream.uniform() - 0.5));
        Self { category, tint, pitch: 1.0 + 0.1 * (stream.uniform() - 0.5) }
    }

    /// A piece of it.
    pub(super) fn piece(self, stream: &mut Stream) -> Surface {
        let offset = Point { x: 40.0 * stream.uniform(), y: 40.0 * stream.uniform() };
        let tone = 1.0 + 0.06 * (stream.uniform() - 0.5);
        Surface { product: self, offset, tone, seed: stream.next_u32() }
    }
}

impl Surface {
    /// The material at `p`, which is measured from the image's centre.
    pub(super) fn at(&self, p: Point) -> Material {
        let q = p + self.offset;
        let mut material = match self.product.category {
            Category::Capsule => self.capsule(p),
            Category::Cloth => self.cloth(q, true),
            Category::Leather => self.leather(q),
            Category::Metal => self.metal(q),
            Category::Nut => self.nut(p),
            Category::Print => self.print(q),
            Category::Tiles => self.tiles(q),
            Category::Wood => self.wood(q),
        };
        for (c, tint) in material.colour.iter_mut().zip(self.product.tint) {
            *c *= tint * self.tone;
        }
        material
    }

    /// What shows at `p` where a piece has come off.
    pub(super) fn beneath(&self, p: Point) -> Material {
        let q = p + self.offset;
        match self.product.category {
            Category::Capsule => self.table(p),
            Category::Cloth => self.cloth(q, false),
            Category::Leather => {
                let fibres = layered(q.x * 60.0, q.y * 60.0, 3, self.seed ^ 7);
                Material::matt(scaled([0.62, 0.47, 0.34], 1.0 + 0.25 * fibres), -0.004 + 0.002 * fibres)
            }
            Category::Metal => {
                let pits = layered(q.x * 50.0, q.y * 50.0, 3, self.seed ^ 7);
                Material::matt(scaled([0.34, 0.32, 0.31], 1.0 + 0.3 * pits), -0.003 + 0.002 * pits)
            }
            Category::Nut => self.mat(p),
            Category::Print => self.paper(q),
            Category::Tiles => {
                let crumbs = layered(q.x * 45.0, q.y * 45.0, 3, self.seed ^ 7);
                Material::matt(scaled([0.58, 0.40, 0.31], 1.0 + 0.3 * crumbs), -0.004 + 0.003 * crumbs)
            }
            Category::Wood => {
                let splinters = layered(q.x * 90.0, q.y * 9.0, 3, self.seed ^ 7);
                Material::matt(scaled([0.30, 0.19, 0.11], 1.0 + 0.4 * splinters), -0.006 + 0.004 * splinters)
            }
        }
    }

    /// Where what can come off at `p` has its middle, and whether `p` belongs to it: a dot of a print comes off as a
    /// whole, the others in any shape.
    pub(super) fn part(&self, p: Point) -> (Point, f32) {
        if self.product.category != Category::Print {
            return (p, 1.0);
        }
        let (centre, distance, radius) = self.dot(p + self.offset);
        (centre - self.offset, ramp(radius * 1.12, radius, distance))
    }

    fn pitch(&self, usual: f32) -> f32 {
        usual * self.product.pitch
    }

    /// A twill of blue warp over pale weft; without the warp the weft lies loose.
    fn cloth(&self, q: Point, warp: bool) -> Material {
        let pitch = self.pitch(27.0);
        let x = q.x * pitch + 0.35 * noise(q.x * 5.0, q.y * 5.0, self.seed);
        let y = q.y * pitch + 0.35 * noise(q.x * 5.0, q.y * 5.0, self.seed ^ 1);
        let (column, row) = (x.floor(), y.floor());
        let (across, down) = (x - column - 0.5, y - row - 0.5);
        let (column, row) = (column as i32, row as i32);
        let over = warp && (column + row).rem_euclid(3) != 0;
        let (side, along, thread, colour) = if over {
            (across, down, unit(column, 0, self.seed ^ 2), [0.27, 0.36, 0.55])
        } else {
            (down, across, unit(row, 1, self.seed ^ 2), [0.80, 0.78, 0.72])
        };
        let round = 1.0 - 4.0 * side * side;
        let fibres = if over {
            noise(x * 3.0, y * 0.8, self.seed ^ 3)
        } else {
            noise(x * 0.8, y * 3.0, self.seed ^ 3)
        };
        let light = (0.72 + 0.28 * round) * (0.90 + 0.20 * thread) * (1.0 + 0.07 * fibres);
        let colour = if warp { colour } else { blend([0.25, 0.24, 0.24], colour, ramp(0.1, 0.7, round)) };
        let height = 0.006 * round * (0.8 - 0.8 * along * along) - if warp { 0.0 } else { 0.006 };
        Material::matt(scaled(colour, light), height)
    }

    fn leather(&self, q: Point) -> Material {
        let pitch = self.pitch(24.0);
        let bend = 0.6 * noise(q.x * 9.0, q.y * 9.0, self.seed ^ 1);
        let grain = cells(q.x * pitch + bend, q.y * pitch - bend, self.seed);
        let ridge = ramp(0.0, 0.35, grain.second - grain.nearest);
        let patches = layered(q.x * 3.0, q.y * 3.0, 3, self.seed ^ 2);
        let pebble = (grain.id & 255) as f32 / 255.0;
        let light = (0.70 + 0.30 * ridge) * (0.95 + 0.1 * pebble) * (1.0 + 0.12 * patches);
        Material::matt(scaled([0.44, 0.26, 0.16], light), 0.008 * ridge).glossy(0.10 * ridge)
    }

    fn wood(&self, q: Point) -> Material {
        let drift = layered(q.x * 1.3, q.y * 0.45, 3, self.seed);
        let ring = self.pitch(7.0) * (q.x + 0.16 * drift);
        let place = ring - ring.floor();
        // Early wood darkens slowly into late wood, which ends sharply.
        let late = ramp(0.15, 0.85, place) * ramp(1.0, 0.9, place);
        let streaks = layered(q.x * 120.0, q.y * 4.0, 2, self.seed ^ 1);
        let pores = ramp(0.45, 0.75, noise(q.x * 110.0, q.y * 9.0, self.seed ^ 2));
        let year = 0.12 * (unit(ring.floor() as i32, 0, self.seed ^ 3) - 0.5);
        let base = blend([0.76, 0.57, 0.37], [0.53, 0.34, 0.19], (0.75 * late + year).clamp(0.0, 1.0));
        let light = (1.0 + 0.09 * streaks) * (1.0 - 0.16 * pores);
        Material::matt(scaled(base, light), -0.0015 * pores).glossy(0.06)
    }

    fn tiles(&self, q: Point) -> Material {
        let pitch = self.pitch(4.2);
        let (x, y) = (q.x * pitch, q.y * pitch);
        let (column, row) = (x.floor(), y.floor());
        // No two tiles are laid alike.
        let (i, j) = (column as i32, row as i32);
        let shift = |seed| 0.03 * (unit(i, j, self.seed ^ seed) - 0.5);
        let (u, v) = ((x - column - 0.5 + shift(1)).abs(), (y - row - 0.5 + shift(2)).abs());
        let edge = 0.462 - u.max(v);
        let inside = ramp(-0.012, 0.012, edge);
        let glaze = layered(q.x * 7.0, q.y * 7.0, 3, self.seed ^ 3);
        let specks = ramp(0.62, 0.8, noise(q.x * 70.0, q.y * 70.0, self.seed ^ 4));
        let tone = 0.94 + 0.12 * unit(i, j, self.seed ^ 5);
        let colour = scaled([0.66, 0.71, 0.70], tone * (1.0 + 0.05 * glaze) * (1.0 - 0.25 * specks));
        let tile = Material::matt(colour, 0.010 * ramp(0.0, 0.06, edge)).glossy(0.22);
        let sand = layered(q.x * 80.0, q.y * 80.0, 2, self.seed ^ 6);
        let joint = Material::matt(scaled([0.40, 0.38, 0.36], 1.0 + 0.2 * sand), 0.0015 * sand);
        joint.blend(tile, inside)
    }

    fn metal(&self, q: Point) -> Material {
        let strokes =
            noise(q.x * 2.5, q.y * 190.0, self.seed) + 0.7 * noise(q.x * 6.0, q.y * 330.0, self.seed ^ 1);
        let bands = layered(q.x * 0.7, q.y * 5.0, 2, self.seed ^ 2);
        let light = 1.0 + 0.085 * strokes + 0.10 * bands;
        Material::matt(scaled([0.60, 0.61, 0.63], light), 0.0004 * strokes).glossy(0.35)
    }

    fn paper(&self, q: Point) -> Material {
        let fibres = layered(q.x * 55.0, q.y * 55.0, 3, self.seed ^ 3);
        let cockle = layered(q.x * 4.0, q.y * 4.0, 2, self.seed ^ 4);
        Material::matt(scaled([0.90, 0.88, 0.82], 1.0 + 0.05 * fibres), 0.0006 * fibres + 0.004 * cockle)
    }

    /// The dot nearest to `q`: its middle, how far that is, and its radius.
    fn dot(&self, q: Point) -> (Point, f32, f32) {
        let pitch = self.pitch(11.0);
        let row = (q.y * pitch).floor();
        // Every other row is set half a step aside.
        let aside = 0.5 * (row as i32).rem_euclid(2) as f32;
        let column = (q.x * pitch - aside).floor();
        let (i, j) = (column as i32, row as i32);
        let jitter = |seed| 0.05 * (unit(i, j, self.seed ^ seed) - 0.5);
        let centre = Point { x: column + aside + 0.5 + jitter(1), y: row + 0.5 + jitter(2) } * (1.0 / pitch);
        let radius = (0.30 + jitter(5)) / pitch;
        (centre, (q - centre).length(), radius)
    }

    fn print(&self, q: Point) -> Material {
        let (centre, distance, radius) = self.dot(q);
        let rough = 0.06 * radius * noise(q.x * 150.0, q.y * 150.0, self.seed ^ 6);
        let ink = ramp(radius * 1.06, radius * 0.94, distance + rough);
        let row = (centre.y * self.pitch(11.0)).floor() as i32;
        let colour = if row.rem_euclid(4) == 0 { [0.75, 0.27, 0.20] } else { [0.13, 0.34, 0.45] };
        let cover = 0.90 + 0.10 * noise(q.x * 40.0, q.y * 40.0, self.seed ^ 7);
        let paper = self.paper(q);
        Material { colour: blend(paper.colour, colour, ink * cover), ..paper }.glossy(0.08 * ink)
    }

    /// The ground under the nut.
    fn mat(&self, p: Point) -> Material {
        let q = p + self.offset;
        let ribs = sine(p.x * 22.0);
        let grain = layered(q.x * 60.0, q.y * 60.0, 2, self.seed ^ 8);
        Material {
            colour: scaled([0.20, 0.21, 0.22], 1.0 + 0.12 * grain + 0.10 * ribs),
            height: 0.001 * ribs,
            gloss: 0.03,
            solid: 0.0,
        }
    }

    fn nut(&self, p: Point) -> Material {
        let radius = p.length();
        let corner = ACROSS_FLATS.map(|across| p.dot(across).abs()).into_iter().fold(0.0, f32::max);
        let outside = ramp(0.296, 0.304, corner);
        let hole = ramp(0.168, 0.160, radius);
        // The corners are turned off: a bright ring where the slope begins.
        let bevel = ramp(0.285, 0.345, radius);
        let brushed =
            noise(radius * 160.0, (p.x + p.y) * 3.0, self.seed) + noise(p.x * 9.0, p.y * 9.0, self.seed ^ 1);
        let top = Material {
            colour: scaled([0.62, 0.60, 0.56], (1.0 + 0.06 * brushed) * (1.0 - 0.15 * bevel)),
            height: 0.05 - 0.035 * bevel - 0.012 * ramp(0.19, 0.165, radius),
            gloss: 0.30,
            solid: 1.0,
        };
        let turns = sine(radius * 45.0);
        let thread = Material {
            colour: scaled([0.30, 0.29, 0.28], 0.75 + 0.35 * turns),
            height: 0.02 + 0.004 * turns,
            gloss: 0.2,
            solid: 1.0,
        };
        let depth = ramp(0.135, 0.120, radius);
        let bore = thread.blend(self.mat(p), depth);
        let nut = top.blend(bore, hole);
        let ground = self.mat(p);
        // Light does not reach the ground beside it.
        let shadow = 1.0 - 0.45 * ramp(0.36, 0.30, corner);
        nut.blend(Material { colour: scaled(ground.colour, shadow), ..ground }, outside)
    }

    /// The ground under the capsule.
    fn table(&self, p: Point) -> Material {
        let q = p + self.offset;
        let grain = layered(q.x * 30.0, q.y * 30.0, 3, self.seed ^ 8);
        Material {
            colour: scaled([0.76, 0.78, 0.80], 1.0 + 0.05 * grain),
            height: 0.0006 * grain,
            gloss: 0.0,
            solid: 0.0,
        }
    }

    fn capsule(&self, p: Point) -> Material {
        const RADIUS: f32 = 0.125;
        const HALF: f32 = 0.22;
        let (left, right) = (Point { x: -HALF, y: 0.0 }, Point { x: HALF, y: 0.0 });
        let (distance, _) = p.near_line(left, right);
        let ground = self.table(p);
        let shade = 1.0
            - 0.35
                * ramp(
                    RADIUS + 0.05,
                    RADIUS - 0.01,
                    (p - Point { x: 0.012, y: 0.018 }).near_line(left, right).0,
                );
        let ground = Material { colour: scaled(ground.colour, shade), ..ground };
        // The cap, left, is a little wider than the body it is pushed over.
        let cap = p.x < 0.03;
        let wide = if cap { RADIUS } else { RADIUS - 0.005 };
        let inside = ramp(wide + 0.003, wide - 0.003, distance);
        let round = (wide * wide - (distance * distance).min(wide * wide)).sqrt();
        let seam = ramp(0.012, 0.004, (p.x - 0.03).abs());
        let gelatine = noise(p.x * 14.0 + self.offset.x, p.y * 14.0, self.seed);
        let base = if cap { [0.78, 0.30, 0.16] } else { [0.90, 0.80, 0.52] };
        let marked = self.mark(p);
        let colour = blend(
            scaled(base, (1.0 + 0.04 * gelatine) * (1.0 - 0.30 * seam)),
            [0.16, 0.13, 0.12],
            0.85 * marked,
        );
        let rim = 0.80 + 0.20 * ramp(0.0, 0.6, round / wide);
        let body = Material { colour: scaled(colour, rim), height: 0.55 * round, gloss: 0.45, solid: 1.0 };
        ground.blend(body, inside)
    }

    /// The printing on the capsule's body: two strokes and a ring.
    fn mark(&self, p: Point) -> f32 {
        let stroke = |x: f32| {
            let (distance, _) = p.near_line(Point { x, y: -0.035 }, Point { x: x + 0.012, y: 0.035 });
            ramp(0.010, 0.006, distance)
        };
        let ring = (p - Point { x: 0.20, y: 0.0 }).length() - 0.028;
        let worn = 1.0 - 0.2 * mix(0.0, 1.0, noise(p.x * 60.0, p.y * 60.0, self.seed ^ 5).abs());
        stroke(0.09).max(stroke(0.125)).max(ramp(0.010, 0.006, ring.abs())) * worn
    }
}
