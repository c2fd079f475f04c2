//! Scores taken apart into those of anomalous and of normal elements, as keys, on all cores.

use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, IntoParallelRefIterator, ParallelIterator};

use crate::Score;

/// Elements that one thread takes at once.
const PIECE: usize = 1 << 16;

/// What is known of some elements.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Truth<'a> {
    /// True is anomalous.
    Labels(&'a [bool]),
    /// Above 0 is anomalous.
    Mask(&'a [u8]),
    /// None is anomalous.
    Normal,
}

impl<'a> Truth<'a> {
    pub(crate) fn of_mask(mask: Option<&'a [u8]>) -> Self {
        mask.map_or(Self::Normal, Self::Mask)
    }

    /// How many are anomalous.
    pub(crate) fn count(self) -> usize {
        match self {
            Self::Labels(labels) => labels.iter().map(|&label| usize::from(label)).sum(),
            Self::Mask(mask) => mask.iter().map(|&sample| usize::from(sample > 0)).sum(),
            Self::Normal => 0,
        }
    }

    fn piece(self, start: usize, len: usize) -> Self {
        match self {
            Self::Labels(labels) => Self::Labels(&labels[start..start + len]),
            Self::Mask(mask) => Self::Mask(&mask[start..start + len]),
            Self::Normal => Self::Normal,
        }
    }
}

/// The keys of the anomalous and of the normal elements, each in the order they are given.
pub(crate) fn by_class<S: Score>(all: &[(&[S], Truth<'_>)]) -> (Vec<S::Key>, Vec<S::Key>) {
    let pieces: Vec<(&[S], Truth<'_>)> = all
        .iter()
        .flat_map(|&(scores, truth)| {
            let starts = (0..scores.len()).step_by(PIECE);
            starts.map(move |start| {
                let len = PIECE.min(scores.len() - start);
                (&scores[start..start + len], truth.piece(start, len))
            })
        })
        .collect();
    let counts: Vec<usize> = pieces.par_iter().map(|&(_, truth)| truth.count()).collect();
    let anomalous: usize = counts.iter().sum();
    let total: usize = pieces.iter().map(|(scores, _)| scores.len()).sum();
    let mut positives = vec![S::Key::default(); anomalous];
    let mut negatives = vec![S::Key::default(); total - anomalous];
    {
        let (mut free_positives, mut free_negatives) = (&mut positives[..], &mut negatives[..]);
        let mut places = Vec::with_capacity(pieces.len());
        for (&(scores, truth), &count) in pieces.iter().zip(&counts) {
            let (own_positives, rest) = free_positives.split_at_mut(count);
            free_positives = rest;
            let (own_negatives, rest) = free_negatives.split_at_mut(scores.len() - count);
            free_negatives = rest;
            places.push((scores, truth, own_positives, own_negatives));
        }
        places.into_par_iter().with_max_len(1).for_each(
            |(scores, truth, positives, negatives)| match truth {
                Truth::Labels(labels) => fill(scores, labels, |label| label, positives, negatives),
                Truth::Mask(mask) => fill(scores, mask, |sample| sample > 0, positives, negatives),
                Truth::Normal => {
                    for (place, score) in negatives.iter_mut().zip(scores) {
                        *place = score.key();
                    }
                }
            },
        );
    }
    (positives, negatives)
}

fn fill<S: Score, T: Copy>(
    scores: &[S],
    truth: &[T],
    is_anomalous: impl Fn(T) -> bool,
    positives: &mut [S::Key],
    negatives: &mut [S::Key],
) {
    let (mut positives, mut negatives) = (positives.iter_mut(), negatives.iter_mut());
    for (score, &known) in scores.iter().zip(truth) {
        let place = if is_anomalous(known) { positives.next() } else { negatives.next() };
        // There is one place for each element of its class.
        if let Some(place) = place {
            *place = score.key();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::score::sealed::Sealed;
    use proptest::prelude::*;

    fn expected(scores: &[f32], labels: &[bool], wanted: bool) -> Vec<u32> {
        let of_class = scores.iter().zip(labels).filter(|&(_, &label)| label == wanted);
        of_class.map(|(score, _)| score.key()).collect()
    }

    #[test]
    fn order_is_kept_across_pieces() {
        let scores: Vec<f32> = (0..3 * PIECE as u32 + 5).map(|i| (i % 1000) as f32).collect();
        let labels: Vec<bool> = (0..scores.len()).map(|i| i % 7 == 0).collect();
        let (positives, negatives) = by_class(&[(&scores, Truth::Labels(&labels))]);
        assert_eq!(positives, expected(&scores, &labels, true));
        assert_eq!(negatives, expected(&scores, &labels, false));
    }

    proptest! {
        #[test]
        fn masks_and_labels_say_the_same(elements in prop::collection::vec((-1.0_f32..1.0, any::<bool>()), 1..50)) {
            let (scores, labels): (Vec<f32>, Vec<bool>) = elements.into_iter().unzip();
            let mask: Vec<u8> = labels.iter().map(|&label| 3 * u8::from(label)).collect();
            let (positives, negatives) = by_class(&[(&scores, Truth::Mask(&mask)), (&scores, Truth::Normal)]);
            prop_assert_eq!(positives, expected(&scores, &labels, true));
            let all: Vec<u32> = scores.iter().map(|score| score.key()).collect();
            prop_assert_eq!(negatives, [expected(&scores, &labels, false), all].concat());
        }
    }
}
