use candle_core::Tensor;

use crate::{Error, Result};

/// A convolution whose stride is its kernel's size, as one matrix product.
///
/// `images` `(B, C, H, W)`, `weight` `(D, C, ph, pw)`, `bias` `(D,)` give `(B, gh * gw, D)`, patches row by row, with
/// `gh = floor(H / ph)` and `gw = floor(W / pw)`; what fills no whole patch is left out.
///
/// # Errors
///
/// If the shapes are not these, or the image is smaller than a patch.
pub fn patch_embed(images: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let Ok((outputs, channels, ph, pw)) = weight.dims4() else {
        return Err(Error::shape("patch_embed", "weight", "(D, C, ph, pw)", weight.shape()));
    };
    let (batch, height, width) = match images.dims4() {
        Ok((b, c, h, w)) if c == channels && h >= ph && w >= pw && ph > 0 && pw > 0 => (b, h, w),
        _ => {
            let expected = format!("(B, {channels}, at least {ph}, at least {pw})");
            return Err(Error::shape("patch_embed", "images", expected, images.shape()));
        }
    };
    let (rows, columns) = (height / ph, width / pw);
    let patches = images
        .narrow(2, 0, rows * ph)?
        .narrow(3, 0, columns * pw)?
        .reshape(vec![batch, channels, rows, ph, columns, pw])?
        .permute(vec![0, 2, 4, 1, 3, 5])?
        .reshape((batch * rows * columns, channels * ph * pw))?;
    let kernel = weight.reshape((outputs, channels * ph * pw))?.t()?;
    let tokens = patches.matmul(&kernel)?.reshape((batch, rows * columns, outputs))?;
    Ok(match bias {
        Some(bias) => tokens.broadcast_add(bias)?,
        None => tokens,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::patch_embed;
    use crate::gradient_check::{check_gradients, normal, same};

    #[test]
    fn it_is_the_convolution() {
        let (images, weight, bias) = (normal(&[2, 3, 9, 7], 0), normal(&[4, 3, 4, 2], 1), normal(&[4], 2));
        let found = patch_embed(&images, &weight, Some(&bias)).unwrap();
        assert_eq!(found.dims(), [2, 6, 4]);
        // candle's convolution has one stride for both axes: take every patch by itself.
        for (patch, (row, column)) in (0..2).flat_map(|r| (0..3).map(move |c| (r, c))).enumerate() {
            let crop = images.narrow(2, row * 4, 4).unwrap().narrow(3, column * 2, 2).unwrap();
            let wanted = crop.contiguous().unwrap().conv2d(&weight, 0, 1, 1, 1).unwrap();
            let wanted = wanted.flatten_from(1).unwrap().broadcast_add(&bias).unwrap();
            same(&found.narrow(1, patch, 1).unwrap().squeeze(1).unwrap(), &wanted, 1e-12);
        }
    }

    #[test]
    fn gradients_are_right() {
        let inputs = [normal(&[1, 2, 5, 6], 0), normal(&[3, 2, 2, 3], 1), normal(&[3], 2)];
        check_gradients(&inputs, |t| patch_embed(&t[0], &t[1], Some(&t[2])));
        check_gradients(&inputs[..2], |t| patch_embed(&t[0], &t[1], None));
    }

    #[test]
    fn an_image_smaller_than_a_patch_is_refused() {
        let message = patch_embed(&normal(&[1, 2, 3, 3], 0), &normal(&[3, 2, 4, 4], 1), None).unwrap_err();
        assert!(message.to_string().contains("images"), "{message}");
    }
}
