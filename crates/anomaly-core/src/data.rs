//! Training data as a method reads it: indexable, so that plain epochs, sampled epochs and cached features all work.

use random_streams::Stream;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::hex::hex;
use crate::{DataError, Images};

/// The sha256 of an image's decoded pixels before preprocessing, with its size.
///
/// Two files with one content have one key, whatever their names. Together with the preprocessing, the backbone's
/// weights and the precision it identifies a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ContentKey(pub [u8; 32]);

impl ContentKey {
    /// The key of an 8-bit image of `height` x `width` whose samples are `data`.
    pub fn of_pixels(height: usize, width: usize, data: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update((height as u64).to_le_bytes());
        hash.update((width as u64).to_le_bytes());
        hash.update(data);
        Self(hash.finalize().into())
    }
}

/// Which images an epoch holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// Every image once.
    All,
    /// This many, drawn without replacement, anew each epoch; every image once if there are not more.
    WithoutReplacement(usize),
}

/// In which order an epoch goes through its images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// In the data set's order.
    InOrder,
    /// In an order drawn from the plan's stream.
    Shuffled,
}

/// One epoch: which images, in which order, in which batches.
#[derive(Debug)]
pub struct EpochPlan<'a> {
    /// Which images.
    pub sample: Sample,
    /// In which order.
    pub order: Order,
    /// Images a batch, at least 1.
    pub batch: usize,
    /// Whether a short last batch is left out.
    pub drop_last: bool,
    /// Where sampling and shuffling draw from.
    pub stream: &'a mut Stream,
}

impl EpochPlan<'_> {
    /// The indices of each batch for data of `len` images. Draws from the stream: call it once an epoch.
    pub fn batches(&mut self, len: usize) -> Vec<Vec<usize>> {
        let mut indices: Vec<usize> = match self.order {
            Order::InOrder => (0..len).collect(),
            Order::Shuffled => self.stream.permutation(len),
        };
        if let Sample::WithoutReplacement(n) = self.sample
            && n < len
        {
            if self.order == Order::InOrder {
                indices = self.stream.permutation(len);
            }
            indices.truncate(n);
            if self.order == Order::InOrder {
                indices.sort_unstable();
            }
        }
        let batch = self.batch.max(1);
        indices
            .chunks(batch)
            .filter(|chunk| !self.drop_last || chunk.len() == batch)
            .map(<[usize]>::to_vec)
            .collect()
    }
}

/// A batch of an epoch.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Each image's index in the training data.
    pub indices: Vec<usize>,
    /// The images, in the order of `indices`.
    pub images: Images,
}

/// What a detector was trained on, in few words: how many images, and a digest of their keys in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainingFingerprint {
    /// Number of images.
    pub images: usize,
    /// sha256 over the keys in order, in hex.
    pub sha256: String,
}

/// Normal images to learn from, by index.
pub trait TrainingData: Send {
    /// Number of images.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The content key of image `index`.
    ///
    /// # Errors
    /// [`DataError`] if the image can't be read, with its path.
    fn key(&self, index: usize) -> Result<ContentKey, DataError>;

    /// The images at `indices`, preprocessed for the method, in this order.
    ///
    /// # Errors
    /// [`DataError`] if an image can't be read, with its path.
    fn get(&self, indices: &[usize]) -> Result<Images, DataError>;

    /// The batches of one epoch, in the plan's order. Implementations read ahead with bounded memory; the batches and
    /// their order do not depend on how.
    fn epoch<'a>(
        &'a self,
        mut plan: EpochPlan<'_>,
    ) -> Box<dyn Iterator<Item = Result<Batch, DataError>> + 'a> {
        let batches = plan.batches(self.len());
        Box::new(batches.into_iter().map(move |indices| {
            let images = self.get(&indices)?;
            Ok(Batch { indices, images })
        }))
    }

    /// What this data is, in few words.
    ///
    /// # Errors
    /// [`DataError`] if an image can't be read, with its path.
    fn fingerprint(&self) -> Result<TrainingFingerprint, DataError> {
        let mut hash = Sha256::new();
        for index in 0..self.len() {
            hash.update(self.key(index)?.0);
        }
        let digest: [u8; 32] = hash.finalize().into();
        Ok(TrainingFingerprint { images: self.len(), sha256: hex(&digest) })
    }
}

#[cfg(test)]
mod tests {
    use random_streams::Streams;

    use super::{EpochPlan, Order, Sample};

    fn batches(sample: Sample, order: Order, batch: usize, drop_last: bool, len: usize) -> Vec<Vec<usize>> {
        let mut stream = Streams::new(0).stream("shuffle");
        EpochPlan { sample, order, batch, drop_last, stream: &mut stream }.batches(len)
    }

    #[test]
    fn every_image_comes_once_and_the_last_batch_is_short() {
        let epoch = batches(Sample::All, Order::Shuffled, 4, false, 10);
        assert_eq!(epoch.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2]);
        let mut all = epoch.concat();
        assert_ne!(all, (0..10).collect::<Vec<_>>());
        all.sort_unstable();
        assert_eq!(all, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn a_short_last_batch_can_be_dropped_and_a_batch_of_none_is_one_of_one() {
        assert_eq!(batches(Sample::All, Order::InOrder, 4, true, 10).len(), 2);
        assert!(batches(Sample::All, Order::InOrder, 4, true, 3).is_empty());
        assert_eq!(batches(Sample::All, Order::InOrder, 0, false, 3), [[0], [1], [2]]);
    }

    #[test]
    fn a_sample_holds_no_image_twice_and_keeps_the_order_asked_for() {
        let sample = batches(Sample::WithoutReplacement(6), Order::InOrder, 6, false, 50).concat();
        assert!(sample.is_sorted_by(|a, b| a < b) && sample.len() == 6, "{sample:?}");
        let all = batches(Sample::WithoutReplacement(60), Order::InOrder, 100, false, 50).concat();
        assert_eq!(all, (0..50).collect::<Vec<_>>());
    }
}
