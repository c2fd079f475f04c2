//! Images as a method sees them: ids and pixels, nothing else.

use candle_core::{DType, Tensor};

use crate::{ContentKey, Error};

/// A batch of images: all that a method ever sees of the data.
#[derive(Debug, Clone)]
pub struct Images {
    ids: Vec<String>,
    pixels: Tensor,
    keys: Option<Vec<ContentKey>>,
}

impl Images {
    /// Images with one id each and pixels `(B, 3, H, W)`, f32, as the method's `Preprocess` made them.
    ///
    /// # Errors
    /// [`Error::ImageShape`] if the shape, the type or the number of ids is another. Values are not looked at; see
    /// [`Images::require_finite`].
    pub fn new(ids: Vec<String>, pixels: Tensor) -> Result<Self, Error> {
        let fits = pixels.dims4().is_ok_and(|(b, c, h, w)| b == ids.len() && c == 3 && h > 0 && w > 0);
        if !fits || pixels.dtype() != DType::F32 {
            let found = format!("{:?} {:?}", pixels.dims(), pixels.dtype());
            return Err(Error::ImageShape { ids: ids.len(), found });
        }
        Ok(Self { ids, pixels, keys: None })
    }

    /// The same images with the content key of each, so that what a frozen network says of them can be kept.
    ///
    /// # Errors
    /// [`Error::ImageShape`] if there is not one key an image.
    pub fn with_keys(mut self, keys: Vec<ContentKey>) -> Result<Self, Error> {
        if keys.len() != self.ids.len() {
            return Err(Error::ImageShape {
                ids: self.ids.len(),
                found: format!("{} content keys", keys.len()),
            });
        }
        self.keys = Some(keys);
        Ok(self)
    }

    /// The content key of each image, where whoever loaded them knows.
    pub fn keys(&self) -> Option<&[ContentKey]> {
        self.keys.as_deref()
    }

    /// One id an image, in the order of the pixels.
    pub fn ids(&self) -> &[String] {
        &self.ids
    }

    /// The pixels, `(B, 3, H, W)`, f32, on the host unless the harness moved them.
    pub fn pixels(&self) -> &Tensor {
        &self.pixels
    }

    /// Number of images B.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Refuses NaN and infinity. Every method calls it first in `fit` and in `score`: a NaN that gets into a fit or a
    /// score makes every number after it wrong without a word.
    ///
    /// # Errors
    /// [`Error::NotFinite`] names the first image with such a pixel.
    pub fn require_finite(&self) -> Result<(), Error> {
        let values = self.pixels.flatten_all()?.to_vec1::<f32>()?;
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            let id = self.ids[at / (values.len() / self.ids.len())].clone();
            return Err(Error::NotFinite { id, value: values[at] });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::{DType, Device, Tensor};

    use super::Images;
    use crate::ContentKey;

    #[test]
    fn other_shapes_and_types_are_refused_with_both_sides() {
        let two = vec!["a".to_owned(), "b".to_owned()];
        for (shape, dtype) in
            [((1, 3, 2, 2), DType::F32), ((2, 1, 2, 2), DType::F32), ((2, 3, 2, 2), DType::F64)]
        {
            let pixels = Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
            let message = Images::new(two.clone(), pixels).unwrap_err().to_string();
            assert!(message.contains("(2, 3, H, W) f32"), "{message}");
            assert!(message.contains(&format!("{dtype:?}")), "{message}");
        }
    }

    #[test]
    fn there_is_one_key_an_image_or_none_at_all() {
        let two = || {
            let pixels = Tensor::zeros((2, 3, 2, 2), DType::F32, &Device::Cpu).unwrap();
            Images::new(vec!["a".into(), "b".into()], pixels).unwrap()
        };
        assert!(two().keys().is_none());
        let key = ContentKey::of_pixels(1, 1, &[1]);
        assert_eq!(two().with_keys(vec![key; 2]).unwrap().keys(), Some(&[key; 2][..]));
        let message = two().with_keys(vec![key]).unwrap_err().to_string();
        assert!(message.contains("1 content keys"), "{message}");
    }

    #[test]
    fn a_nan_is_named_with_its_image() {
        let mut values = vec![0.5_f32; 2 * 3 * 4];
        values[3 * 4 + 5] = f32::NAN;
        let pixels = Tensor::from_vec(values, (2, 3, 2, 2), &Device::Cpu).unwrap();
        let images = Images::new(vec!["a".into(), "b".into()], pixels).unwrap();
        let message = images.require_finite().unwrap_err().to_string();
        assert!(message.contains("`b`") && message.contains("NaN"), "{message}");
    }
}
