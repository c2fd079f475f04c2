//! The background pixels that decide a curve up to its limit, found without sorting all of them.

use rayon::iter::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};

use crate::ScoredMap;
use crate::overlap::needed;
use crate::score::sealed::Sealed;

/// Keys are counted by their upper half.
const BUCKETS: usize = 1 << 16;

/// Images that one thread counts together.
const TOGETHER: usize = 16;

fn bucket(key: u32) -> usize {
    (key >> 16) as usize
}

/// The keys of the background pixels that decide the curve up to `limit` (and a few more, in no order), and the number
/// of all background pixels.
pub(crate) fn highest(images: &[ScoredMap<'_>], limit: f64) -> (Vec<u32>, u64) {
    let count = |images: &[ScoredMap<'_>]| {
        let mut counts = vec![0_u64; BUCKETS];
        for image in images {
            image.for_background(|score| counts[bucket(score.key())] += 1);
        }
        counts
    };
    let sum = |mut a: Vec<u64>, b: Vec<u64>| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        a
    };
    let chunks: Vec<&[ScoredMap<'_>]> = images.chunks(TOGETHER).collect();
    let counts = chunks.par_iter().map(|images| count(images)).reduce_with(sum).unwrap_or_default();
    let all: u64 = counts.iter().sum();
    let mut above = 0;
    let lowest = (0..counts.len()).rev().find(|&bucket| {
        above += counts[bucket];
        above >= needed(limit, all)
    });
    let lowest = lowest.unwrap_or(0);
    let parts: Vec<Vec<u32>> = images
        .par_iter()
        .with_max_len(TOGETHER)
        .map(|image| {
            let mut keys = Vec::new();
            image.for_background(|score| {
                let key = score.key();
                if bucket(key) >= lowest {
                    keys.push(key);
                }
            });
            keys
        })
        .collect();
    (parts.concat(), all)
}
