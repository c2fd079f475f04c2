//! What is wrong with one image, and where.

use anomaly_core::Stream;

use super::category::{Category, Kind};
use super::material::{Colour, Material, blend};
use super::noise::{direction, layered, mix, ramp};
use super::point::Point;
use super::surface::{Product, Surface};

/// A planted defect.
#[derive(Clone, Debug)]
pub(super) struct Defect {
    kind: Kind,
    /// How plain it is: 0 hardly seen, 1 at first sight.
    plainness: f32,
    centre: Point,
    /// Half its extent.
    radius: f32,
    /// The direction it stretches in.
    along: Point,
    seed: u32,
    /// The line of a scratch.
    line: Vec<Point>,
    tint: Colour,
    /// How deep a dent goes.
    yields: f32,
    intruder: Surface,
}

/// Where and how strongly a defect shows.
pub(super) struct Shown {
    pub(super) material: Material,
    /// 0 outside the defect, 1 where it is whole.
    pub(super) cover: f32,
}

impl Defect {
    /// A defect of this kind and `plainness` on a piece of `category`.
    pub(super) fn draw(kind: Kind, category: Category, plainness: f32, stream: &mut Stream) -> Self {
        let centre = category.place(kind, stream);
        let along = direction(stream.uniform());
        let (small, large) = match kind {
            Kind::Deformed => (0.06, 0.14),
            Kind::Foreign => (0.018, 0.09),
            Kind::Missing => (0.022, 0.085),
            Kind::Scratch => (0.05, 0.22),
            Kind::Stain => (0.035, 0.12),
        };
        // Size and contrast do not go hand in hand: a small thing may be plain, a large one faint.
        let size = (0.7 * plainness + 0.3 * stream.uniform()).min(1.0);
        let radius = mix(small, large, size) * if category.is_object() { 0.75 } else { 1.0 };
        let bend = radius * (stream.uniform() - 0.5);
        let across = Point { x: -along.y, y: along.x };
        let line = (0..=LINE)
            .map(|step| {
                let t = step as f32 / LINE as f32 * 2.0 - 1.0;
                let shake = 0.04 * radius * (stream.uniform() - 0.5);
                centre + along * (t * radius) + across * (bend * (1.0 - t * t) + shake)
            })
            .collect();
        let brown = stream.uniform();
        Self {
            kind,
            plainness,
            centre,
            radius,
            along,
            seed: stream.next_u32(),
            line,
            tint: blend([0.55, 0.42, 0.26], [0.35, 0.38, 0.42], brown),
            yields: category.yields(),
            intruder: Product::draw(category.foreign(), stream).piece(stream),
        }
    }

    /// The material of `surface` at `p`, with the defect.
    pub(super) fn show(&self, surface: &Surface, p: Point) -> Shown {
        let whole = surface.at(p);
        match self.kind {
            Kind::Deformed => self.deform(surface, p, whole),
            Kind::Foreign => {
                let cover = self.blob(p, 0.15);
                // It lies on top, a little above the surface.
                let lump = Material { height: whole.height + 0.006, solid: 1.0, ..self.intruder.at(p) };
                Shown { material: whole.blend(lump, cover * mix(0.40, 1.0, self.plainness)), cover }
            }
            Kind::Missing => {
                let (part, belongs) = surface.part(p);
                // What comes off as a whole comes off around the whole that is nearest: never none.
                let (middle, _) = surface.part(self.centre);
                let cover = self.blob(part - middle + self.centre, 0.10) * belongs * whole.solid;
                let gone = surface.beneath(p);
                Shown { material: whole.blend(gone, cover * mix(0.45, 1.0, self.plainness)), cover }
            }
            Kind::Scratch => self.scratch(p, whole),
            Kind::Stain => self.stain(p, whole),
        }
    }

    /// How much of a ragged blob is at `p`; its edge is `soft` of its radius wide.
    fn blob(&self, p: Point, soft: f32) -> f32 {
        let step = p - self.centre;
        let stretched = Point {
            x: step.dot(self.along) * 0.75,
            y: step.dot(Point { x: -self.along.y, y: self.along.x }) * 1.25,
        };
        let distance = stretched.length() / self.radius;
        if distance > 1.6 {
            return 0.0;
        }
        let scale = 2.2 / self.radius;
        // Turned and moved, so that the noise's grid does not lie on the blob's middle and axes.
        let place = step.turned(direction(0.08)) * scale + Point { x: 0.37, y: 0.71 };
        let ragged = 0.75 * layered(place.x, place.y, 3, self.seed);
        ramp(1.0 + soft, 1.0 - soft, distance + ragged)
    }

    fn scratch(&self, p: Point, whole: Material) -> Shown {
        let none = Shown { material: whole, cover: 0.0 };
        if (p - self.centre).length() > self.radius * 1.5 {
            return none;
        }
        let (mut distance, mut at) = (f32::MAX, 0.0);
        for (segment, ends) in self.line.windows(2).enumerate() {
            let (d, t) = p.near_line(ends[0], ends[1]);
            if d < distance {
                (distance, at) = (d, (segment as f32 + t) / LINE as f32);
            }
        }
        let width = mix(0.0035, 0.0085, self.plainness) * ramp(0.0, 0.2, at.min(1.0 - at)).max(0.3);
        let cover = ramp(width * 1.3, width * 0.7, distance) * whole.solid;
        let light: f32 = whole.colour.iter().sum::<f32>() / 3.0;
        let scraped = if light > 0.55 { [0.24, 0.23, 0.22] } else { [0.80, 0.79, 0.76] };
        let groove = Material {
            colour: blend(whole.colour, scraped, mix(0.18, 0.75, self.plainness)),
            height: whole.height - 0.003,
            ..whole
        };
        Shown { material: whole.blend(groove, cover), cover }
    }

    fn stain(&self, p: Point, whole: Material) -> Shown {
        let cover = self.blob(p, 0.35) * whole.solid;
        // Dried liquid is darkest at its edge.
        let edge = 1.0 + 0.8 * cover * (1.0 - cover) * 4.0;
        let share = (cover * mix(0.16, 0.72, self.plainness) * edge).min(1.0);
        let colour = std::array::from_fn(|c| whole.colour[c] * mix(1.0, self.tint[c], share));
        Shown { material: Material { colour, gloss: whole.gloss * (1.0 - 0.5 * share), ..whole }, cover }
    }

    /// Pushed aside, twisted and dented around the centre.
    fn deform(&self, surface: &Surface, p: Point, whole: Material) -> Shown {
        let step = p - self.centre;
        let share = 1.0 - step.dot(step) / (self.radius * self.radius);
        if share <= 0.0 {
            return Shown { material: whole, cover: 0.0 };
        }
        let fall = share * share;
        let twist = direction(mix(0.03, 0.16, self.plainness) * fall);
        let push = self.along * (mix(0.10, 0.30, self.plainness) * self.radius * fall);
        let from = self.centre + step.turned(twist) - push;
        let moved = surface.at(from);
        let dent = self.yields * mix(0.05, 0.22, self.plainness) * self.radius * fall;
        let material = Material { height: moved.height - dent * moved.solid, ..moved };
        let cover = ramp(0.05, 0.25, fall) * moved.solid.max(whole.solid);
        Shown { material, cover }
    }
}

/// Pieces of a scratch's line.
const LINE: usize = 12;
