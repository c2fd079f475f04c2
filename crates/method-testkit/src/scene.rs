//! Seeded images: normal ones to learn from, normal and defective ones to rank.

use anomaly_core::{Stream, Streams};
use image_prep::Rgb8;

use crate::{Defect, Texture};

/// The seed of all images. One for all methods: a method that fails may choose another scene, not another seed.
const SEED: u64 = 64;
/// Test images of either kind.
const TESTS_EACH: usize = 32;

/// Which images a method is tested on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scene {
    /// What normal images look like.
    pub texture: Texture,
    /// What is wrong with defective ones.
    pub defect: Defect,
    /// Side of the images in pixels, before the method's preprocessing.
    pub size: usize,
    /// How many normal images there are to learn from.
    pub training_images: usize,
}

/// A test image and whether a defect was planted in it.
#[derive(Debug, Clone)]
pub struct TestImage {
    /// The image.
    pub image: Rgb8,
    /// Whether a defect was planted.
    pub defective: bool,
}

impl Scene {
    /// The normal images to learn from.
    pub fn training(&self) -> Vec<Rgb8> {
        let mut stream = Streams::new(SEED).stream("training images");
        (0..self.training_images).map(|_| self.normal(&mut stream)).collect()
    }

    /// The 64 test images: normal and defective in turns, 32 of each.
    pub fn tests(&self) -> Vec<TestImage> {
        let mut stream = Streams::new(SEED).stream("test images");
        let test = |at: usize| {
            let defective = at % 2 == 1;
            let image = if defective { self.defective(&mut stream) } else { self.normal(&mut stream) };
            TestImage { image, defective }
        };
        (0..2 * TESTS_EACH).map(test).collect()
    }

    fn normal(&self, stream: &mut Stream) -> Rgb8 {
        self.quantise(&self.texture.draw(self.size, stream))
    }

    fn defective(&self, stream: &mut Stream) -> Rgb8 {
        let mut pixels = self.texture.draw(self.size, stream);
        self.defect.plant(self.texture, self.size, &mut pixels, stream);
        self.quantise(&pixels)
    }

    fn quantise(&self, pixels: &[f32]) -> Rgb8 {
        let data = pixels.iter().map(|v| v.round().clamp(0.0, 255.0) as u8).collect();
        Rgb8 { height: self.size, width: self.size, data }
    }
}

#[cfg(test)]
mod tests {
    use image_prep::Rgb8;

    use super::Scene;
    use crate::{Defect, Texture};

    /// Mean absolute difference of two images' samples.
    fn distance(a: &Rgb8, b: &Rgb8) -> f64 {
        let sum: f64 = a.data.iter().zip(&b.data).map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
        sum / a.data.len() as f64
    }

    #[test]
    fn images_are_drawn_anew_each_time_and_the_same_every_time() {
        let scene = Scene { texture: Texture::Weave, defect: Defect::Patch, size: 16, training_images: 3 };
        let (first, again) = (scene.training(), scene.training());
        assert!(first.iter().zip(&again).all(|(a, b)| a.data == b.data));
        assert!(distance(&first[0], &first[1]) > 1.0);
        assert!(distance(&first[0], &scene.tests()[0].image) > 1.0);
    }

    #[test]
    fn every_defect_is_seen_on_every_texture() {
        for texture in [Texture::Part, Texture::Stripes, Texture::Weave] {
            for defect in
                [Defect::Spot, Defect::Scratch, Defect::Missing, Defect::Patch, Defect::OtherTexture]
            {
                let mut stream = anomaly_core::Streams::new(1).stream("x");
                let whole = texture.draw(32, &mut stream);
                let mut planted = whole.clone();
                defect.plant(texture, 32, &mut planted, &mut stream);
                let changed = whole.iter().zip(&planted).filter(|(a, b)| (**a - **b).abs() > 20.0).count();
                let share = changed as f64 / whole.len() as f64;
                assert!(share > 0.01, "{defect:?} on {texture:?} changes {share} of the samples");
                let local = !matches!(defect, Defect::OtherTexture);
                assert!(!local || share < 0.3, "{defect:?} on {texture:?} changes {share} of the samples");
            }
        }
    }
}
