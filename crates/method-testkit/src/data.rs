//! Training data held in memory.

use anomaly_core::{ContentKey, DataError, Images, TrainingData};
use candle_core::{Device, Tensor};
use image_prep::{Planar, Preprocess, Rgb8};

use crate::Error;

/// Images in memory, prepared for a method, as training data or as batches to score.
#[derive(Debug, Clone)]
pub struct InMemoryData {
    ids: Vec<String>,
    keys: Vec<ContentKey>,
    prepared: Vec<Planar>,
}

impl InMemoryData {
    /// `images`, preprocessed, with the ids `image-0`, `image-1`, …
    ///
    /// # Errors
    /// [`Error::Image`] if the preprocessing can't be applied.
    pub fn new(images: &[Rgb8], preprocess: &Preprocess) -> Result<Self, Error> {
        let prepare =
            |(index, image)| preprocess.apply(image).map_err(|source| Error::Image { index, source });
        Ok(Self {
            ids: (0..images.len()).map(|index| format!("image-{index}")).collect(),
            keys: images.iter().map(|i| ContentKey::of_pixels(i.height, i.width, &i.data)).collect(),
            prepared: images.iter().enumerate().map(prepare).collect::<Result<_, _>>()?,
        })
    }

    /// The same images under other ids: `id(index)`.
    #[must_use]
    pub fn renamed(mut self, id: impl Fn(usize) -> String) -> Self {
        self.ids = (0..self.ids.len()).map(id).collect();
        self
    }

    /// Puts `value` into one pixel of image `index`; an index beyond the last image changes nothing. Its key changes
    /// too: the content is another.
    #[must_use]
    pub fn spoiled(mut self, index: usize, value: f32) -> Self {
        if let (Some(planes), Some(key)) = (self.prepared.get_mut(index), self.keys.get_mut(index)) {
            let middle = planes.data.len() / 2;
            if let Some(pixel) = planes.data.get_mut(middle) {
                *pixel = value;
            }
            *key = ContentKey::of_pixels(index, 0, &value.to_le_bytes());
        }
        self
    }

    /// All images as one batch.
    ///
    /// # Errors
    /// If there are none, or the preprocessing gave them different sizes.
    pub fn all(&self) -> Result<Images, DataError> {
        self.get(&(0..self.len()).collect::<Vec<_>>())
    }
}

impl TrainingData for InMemoryData {
    fn len(&self) -> usize {
        self.prepared.len()
    }

    fn key(&self, index: usize) -> Result<ContentKey, DataError> {
        self.keys.get(index).copied().ok_or_else(|| self.beyond(index))
    }

    fn get(&self, indices: &[usize]) -> Result<Images, DataError> {
        let mut pixels = Vec::new();
        let mut size = (0, 0);
        for &index in indices {
            let planes = self.prepared.get(index).ok_or_else(|| self.beyond(index))?;
            size = (planes.height, planes.width);
            pixels.extend_from_slice(&planes.data);
        }
        let ids = indices.iter().map(|&index| self.ids[index].clone()).collect();
        let pixels = Tensor::from_vec(pixels, (indices.len(), 3, size.0, size.1), &Device::Cpu);
        Images::new(ids, pixels.map_err(DataError::new)?).map_err(DataError::new)
    }
}

impl InMemoryData {
    fn beyond(&self, index: usize) -> DataError {
        DataError::new(format!("expected an index below {}, found {index}", self.len()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use anomaly_core::TrainingData;
    use image_prep::{Filter, HALF, Preprocess, Rgb8};

    use super::InMemoryData;

    #[test]
    fn indices_choose_and_wrong_ones_are_named() {
        let images = [Rgb8::filled(4, 4, [0; 3]), Rgb8::filled(4, 4, [255; 3])];
        let data = InMemoryData::new(&images, &Preprocess::square(2, Filter::Nearest, HALF, HALF)).unwrap();
        let swapped = data.get(&[1, 0, 1]).unwrap();
        assert_eq!(swapped.ids(), ["image-1", "image-0", "image-1"]);
        let means = swapped.pixels().mean((1, 2, 3)).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(means, [1.0, -1.0, 1.0]);
        assert!(data.get(&[2]).unwrap_err().to_string().contains("below 2, found 2"));
        assert!(data.key(7).unwrap_err().to_string().contains('7'));
    }

    #[test]
    fn a_spoiled_image_is_another_one() {
        let images = [Rgb8::filled(4, 4, [9; 3]), Rgb8::filled(4, 4, [9; 3])];
        let data = InMemoryData::new(&images, &Preprocess::square(4, Filter::Nearest, HALF, HALF)).unwrap();
        assert_eq!(data.key(0).unwrap(), data.key(1).unwrap());
        let spoiled = data.spoiled(1, f32::NAN);
        assert_ne!(spoiled.key(0).unwrap(), spoiled.key(1).unwrap());
        let message = spoiled.all().unwrap().require_finite().unwrap_err().to_string();
        assert!(message.contains("image-1"), "{message}");
    }
}
