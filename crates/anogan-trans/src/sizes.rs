//! Which images the two networks can take.

use crate::Error;

/// Levels of the generator below the first.
pub(crate) const DEPTH: usize = 3;
/// Attention heads.
pub(crate) const HEADS: usize = 4;
/// Side of an attention window in tokens.
pub(crate) const WINDOW: usize = 2;
/// The smallest image of the discriminator: one halving by its first convolution, one more with a norm.
const SMALLEST: usize = 16;

/// Whether images of `image` pixels a side, in patches of `patch`, fit both networks: the side must be a power of two
/// from 16 on (the discriminator halves it down to 4, and only a check for multiples of 16 stands before that in the
/// reference, which then fails for 48, 80 or 96), patches have an even side, and there must be at least 8 x 8 of them (the
/// generator halves their grid three times).
///
/// # Errors
/// [`Error::Size`] names the nearest sizes that fit.
pub fn check_sizes(image: usize, patch: usize) -> Result<(), Error> {
    check_image(image)?;
    let patches = patches_of(image);
    if patches.contains(&patch) {
        return Ok(());
    }
    let list = |sizes: &[usize]| sizes.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    let larger = if patch.is_power_of_two() && patch >= 2 {
        format!(" (or images of {} pixels)", 8 * patch)
    } else {
        String::new()
    };
    let expected = format!("one of {} for images of {image} pixels{larger}", list(&patches));
    Err(Error::Size { what: "patch size", expected, found: patch.to_string() })
}

/// Whether the discriminator can take images of `side` pixels.
pub(crate) fn check_image(side: usize) -> Result<(), Error> {
    if side.is_power_of_two() && side >= SMALLEST {
        return Ok(());
    }
    let above = side.max(SMALLEST).checked_next_power_of_two().unwrap_or(SMALLEST);
    let nearest = if side < SMALLEST { format!("{SMALLEST}") } else { format!("{} or {above}", above / 2) };
    let expected = format!("a power of two from {SMALLEST} on (the nearest: {nearest})");
    Err(Error::Size { what: "image size", expected, found: side.to_string() })
}

/// The patch sizes that fit images of `image` pixels, a power of two.
pub(crate) fn patches_of(image: usize) -> Vec<usize> {
    std::iter::successors(Some(2), |patch| Some(patch * 2)).take_while(|patch| 8 * patch <= image).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{check_sizes, patches_of};

    #[test]
    fn what_fits_is_taken() {
        for (image, patch) in [(16, 2), (32, 2), (32, 4), (64, 8), (128, 2), (256, 4)] {
            check_sizes(image, patch).unwrap();
        }
        assert_eq!(patches_of(64), [2, 4, 8]);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_nearest() {
        let says = |image, patch| check_sizes(image, patch).unwrap_err().to_string();
        assert!(says(96, 2).contains("64 or 128"), "{}", says(96, 2));
        assert!(says(48, 2).contains("32 or 64"));
        assert!(says(0, 2).contains("16") && says(9, 2).contains("16"));
        assert!(says(32, 3).contains("one of 2, 4"), "{}", says(32, 3));
        assert!(says(32, 8).contains("images of 64 pixels"), "{}", says(32, 8));
        assert!(says(32, 0).contains("one of 2, 4") && says(32, 1).contains("one of 2, 4"));
    }
}
