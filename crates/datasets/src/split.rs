//! Which images a fit learns from and which it is judged by, as lists.

use std::collections::BTreeMap;

use anomaly_core::{Stream, Streams, hex};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Error;
use crate::dataset::{Dataset, Part};
use crate::protocol::{ALL, Protocol, ShotDraw, Shots, Task, multimodal, one_class_abnormal, unimodal};

/// What makes a split smaller, and what is held out of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SplitOptions {
    /// Only so many training images of each normal class; excludes `train_limit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shots: Option<Shots>,
    /// At most this many training images (those held out included), drawn in proportion to their classes.
    pub train_limit: Option<usize>,
    /// At most this many test images, drawn in proportion to normal and anomalous, and within these to their classes
    /// and defects; at least one of either.
    pub test_limit: Option<usize>,
    /// The share of the training images that the fit does not see, 0 to 1 exclusive, for an honest selection among what
    /// it offers. 0 holds nothing out but the data set's own validation images, anything above at least one image more.
    pub held_out_share: f64,
    /// Seeds all draws.
    pub seed: u64,
}

/// The lists of one protocol and category: indices into [`Dataset::items`], ascending but for the test images of
/// [`Protocol::OneClassAbnormal`], which have an order of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// The data set's registered name.
    pub dataset: String,
    /// The category's key, or [`ALL`].
    pub category: String,
    /// Who is normal.
    pub protocol: Protocol,
    /// How few normal images there are to learn from; all if `None`.
    pub shots: Option<Shots>,
    /// Normal images to learn from.
    pub train: Vec<usize>,
    /// Normal images that the fit does not see: the data set's own validation images, and the share held out of the
    /// training images.
    pub held_out: Vec<usize>,
    /// Images to be judged by.
    pub test: Vec<usize>,
    /// Of each test image, whether it is anomalous.
    pub anomalous: Vec<bool>,
}

/// Two sha256 in hex that tell splits apart, for records and cell ids.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Of the ids and contents of all images that the split uses: two copies of a data set agree.
    pub content: String,
    /// Of the protocol and its lists of ids with their labels.
    pub split: String,
}

impl Split {
    /// The split of `dataset` by `protocol` for `category` (a class's key or title).
    ///
    /// # Errors
    /// [`Error::UnknownCategory`]; [`Error::Split`] if the protocol does not suit the data set, a limit leaves too
    /// little, or the test images are all normal or all anomalous.
    pub fn new(
        dataset: &dyn Dataset,
        protocol: Protocol,
        category: &str,
        options: &SplitOptions,
    ) -> Result<Self, Error> {
        Self::build(dataset, protocol, category, options, true)
    }

    /// As [`Split::new`], for a fit alone: there may be no anomalous test images, or no test images at all, as in a folder
    /// of good parts.
    ///
    /// # Errors
    /// As [`Split::new`], but for the test images.
    pub fn for_training(
        dataset: &dyn Dataset,
        protocol: Protocol,
        category: &str,
        options: &SplitOptions,
    ) -> Result<Self, Error> {
        Self::build(dataset, protocol, category, options, false)
    }

    fn build(
        dataset: &dyn Dataset,
        protocol: Protocol,
        category: &str,
        options: &SplitOptions,
        judged: bool,
    ) -> Result<Self, Error> {
        let class = match dataset.class_index(category) {
            Err(_) if protocol == Protocol::MultiClass && category == ALL => None,
            found => Some(found?),
        };
        let key = class.map_or(ALL, |class| dataset.classes()[class].key.as_str());
        let chosen = Chooser { dataset, category: key, options, judged };
        let Lists { train, validation, test, anomalous } = chosen.lists(protocol, class)?;
        let (train, held_out) = chosen.train(&train, validation)?;
        let (test, anomalous) = chosen.test(test, anomalous)?;
        Ok(Self {
            dataset: dataset.card().name.clone(),
            category: chosen.category.to_owned(),
            protocol,
            shots: options.shots,
            train,
            held_out,
            test,
            anomalous,
        })
    }

    /// The normal test images: what references that validate, validate on. An oracle.
    pub fn test_normals(&self) -> Vec<usize> {
        self.test.iter().zip(&self.anomalous).filter(|(_, anomalous)| !**anomalous).map(|(&i, _)| i).collect()
    }

    /// What tells this split from any other. Reads every image the split uses.
    ///
    /// # Errors
    /// If an image can't be read.
    pub fn fingerprint(&self, dataset: &dyn Dataset) -> Result<Fingerprint, Error> {
        let mut used = [&self.train[..], &self.held_out, &self.test].concat();
        used.sort_unstable();
        let digests: Vec<_> = used.par_iter().map(|&index| dataset.digest(index)).collect();
        let mut content = Sha256::new();
        for (&index, digest) in used.iter().zip(digests) {
            add(&mut content, &dataset.items()[index].id);
            content.update(digest?);
        }
        let mut split = Sha256::new();
        add(&mut split, &Task { protocol: self.protocol, shots: self.shots }.to_string());
        add(&mut split, &self.category);
        let normal = |list: &[usize]| list.iter().map(|&index| (index, false)).collect::<Vec<_>>();
        let test = self.test.iter().copied().zip(self.anomalous.iter().copied()).collect();
        for (name, list) in
            [("train", normal(&self.train)), ("held out", normal(&self.held_out)), ("test", test)]
        {
            add(&mut split, name);
            split.update((list.len() as u64).to_le_bytes());
            for (index, anomalous) in list {
                add(&mut split, &dataset.items()[index].id);
                split.update([u8::from(anomalous)]);
            }
        }
        Ok(Fingerprint { content: hex(&content.finalize()), split: hex(&split.finalize()) })
    }
}

/// A string in a hash, so that no two lists of strings give the same bytes.
fn add(hash: &mut Sha256, text: &str) {
    hash.update((text.len() as u64).to_le_bytes());
    hash.update(text);
}

struct Chooser<'a> {
    dataset: &'a dyn Dataset,
    category: &'a str,
    options: &'a SplitOptions,
    /// Whether there must be test images of either kind.
    judged: bool,
}

/// What a protocol chooses, before limits.
struct Lists {
    train: Vec<usize>,
    /// The data set's own images to validate on.
    validation: Vec<usize>,
    test: Vec<usize>,
    anomalous: Vec<bool>,
}

impl Chooser<'_> {
    fn lists(&self, protocol: Protocol, class: Option<usize>) -> Result<Lists, Error> {
        let items = self.dataset.items();
        let of = |part, own: &dyn Fn(usize) -> bool| {
            let wanted = |&index: &usize| items[index].part == part && own(items[index].class);
            (0..items.len()).filter(wanted).collect::<Vec<_>>()
        };
        let everyone = |_: usize| true;
        let own = |c: usize| class.is_none_or(|class| c == class);
        if protocol.needs_defects() {
            let learned: &dyn Fn(usize) -> bool =
                if protocol == Protocol::MultiClass { &everyone } else { &own };
            let normals = |part| {
                let mut list = of(part, learned);
                list.retain(|&index| items[index].defect.is_none());
                list
            };
            let test = of(Part::Test, &own);
            let anomalous = test.iter().map(|&index| items[index].defect.is_some()).collect();
            let (train, validation) = (normals(Part::Train), normals(Part::Validation));
            return Ok(Lists { train, validation, test, anomalous });
        }
        if items.iter().any(|item| item.defect.is_some()) {
            let expected = "class-separated or multi-class, since images have defects";
            return Err(self.wrong("protocol", expected, protocol.name()));
        }
        let (train, validation, test) =
            (of(Part::Train, &everyone), of(Part::Validation, &everyone), of(Part::Test, &everyone));
        let labels = |list: &[usize]| list.iter().map(|&index| items[index].class).collect::<Vec<_>>();
        let class = class.unwrap_or_default();
        let at =
            |list: &[usize], positions: &[usize]| positions.iter().map(|&at| list[at]).collect::<Vec<_>>();
        let (train_labels, test_labels) = (labels(&train), labels(&test));
        let select = if protocol == Protocol::Unimodal { unimodal } else { multimodal };
        let held = select(&labels(&validation), &[], class).train;
        let validation = at(&validation, &held);
        if protocol == Protocol::OneClassAbnormal {
            let chosen = one_class_abnormal(&train_labels, &test_labels, class);
            let both = |&(part, at): &(Part, usize)| if part == Part::Train { train[at] } else { test[at] };
            let anomalous = (0..chosen.test.len()).map(|at| at >= chosen.normal).collect();
            let judged = chosen.test.iter().map(both).collect();
            return Ok(Lists { train: at(&train, &chosen.train), validation, test: judged, anomalous });
        }
        let chosen = select(&train_labels, &test_labels, class);
        let mut anomalous = vec![false; test.len()];
        chosen.anomalous.iter().for_each(|&at| anomalous[at] = true);
        Ok(Lists { train: at(&train, &chosen.train), validation, test, anomalous })
    }

    /// Training and held-out images.
    fn train(&self, train: &[usize], mut validation: Vec<usize>) -> Result<(Vec<usize>, Vec<usize>), Error> {
        let share = self.options.held_out_share;
        if !(0.0..1.0).contains(&share) {
            return Err(self.wrong("held_out_share", "0 to 1 exclusive", &share.to_string()));
        }
        let streams = Streams::new(self.options.seed);
        let by_class = |index: usize| self.dataset.items()[index].class;
        let train = match (self.options.shots, self.options.train_limit) {
            (Some(_), Some(limit)) => {
                return Err(self.wrong("train_limit", "none beside shots", &limit.to_string()));
            }
            (Some(shots), None) => self.shots(train, shots, &mut streams.stream("shots"))?,
            (None, limit) => {
                let limit = limit.unwrap_or(train.len()).min(train.len());
                stratified(train, limit, by_class, &mut streams.stream("train-limit"))
            }
        };
        let needed = if share > 0.0 { 2 } else { 1 };
        if train.len() < needed {
            let expected = format!("at least {needed} normal images");
            return Err(self.wrong("training images", &expected, &train.len().to_string()));
        }
        if share == 0.0 {
            return Ok((train, validation));
        }
        let wanted = ((train.len() as f64 * share).round() as usize).clamp(1, train.len() - 1);
        let held_out = stratified(&train, wanted, by_class, &mut streams.stream("held-out"));
        let train = train.into_iter().filter(|index| held_out.binary_search(index).is_err()).collect();
        validation.extend(held_out);
        validation.sort_unstable();
        Ok((train, validation))
    }

    /// The few images of each class.
    fn shots(&self, train: &[usize], shots: Shots, stream: &mut Stream) -> Result<Vec<usize>, Error> {
        let mut classes: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for &index in train {
            classes.entry(self.dataset.items()[index].class).or_default().push(index);
        }
        let mut few = Vec::new();
        for own in classes.values() {
            let first = match shots.draw {
                ShotDraw::Drawn => 0,
                ShotDraw::Consecutive => usize::try_from(self.options.seed).unwrap_or(usize::MAX),
            };
            if first.checked_add(shots.count).is_none_or(|end| end > own.len()) {
                let expected = format!("at most {} from image {first} on", own.len().saturating_sub(first));
                return Err(self.wrong("shots", &expected, &shots.count.to_string()));
            }
            match shots.draw {
                ShotDraw::Drawn => {
                    few.extend(stream.permutation(own.len()).iter().take(shots.count).map(|&at| own[at]));
                }
                ShotDraw::Consecutive => few.extend(&own[first..first + shots.count]),
            }
        }
        few.sort_unstable();
        Ok(few)
    }

    fn test(&self, test: Vec<usize>, anomalous: Vec<bool>) -> Result<(Vec<usize>, Vec<bool>), Error> {
        // Positions, since the list may have an order of its own.
        let side = |wanted: bool| {
            let own = anomalous.iter().enumerate().filter(|(_, anomalous)| **anomalous == wanted);
            own.map(|(at, _)| at).collect::<Vec<_>>()
        };
        let (normals, anomalies) = (side(false), side(true));
        if self.judged && (normals.is_empty() || anomalies.is_empty()) {
            let found = format!("{} normal and {} anomalous", normals.len(), anomalies.len());
            return Err(self.wrong("test images", "normal and anomalous ones", &found));
        }
        let Some(limit) = self.options.test_limit.filter(|&limit| limit < test.len()) else {
            return Ok((test, anomalous));
        };
        if limit < 2 {
            return Err(self.wrong("test_limit", "at least 2", &limit.to_string()));
        }
        let streams = Streams::new(self.options.seed);
        let counts = allot(limit, &[normals.len(), anomalies.len()]);
        let items = self.dataset.items();
        let by_kind = |at: usize| (items[test[at]].class, items[test[at]].defect.as_deref());
        let mut kept = stratified(&normals, counts[0], by_kind, &mut streams.stream("test-limit-normal"));
        kept.extend(stratified(&anomalies, counts[1], by_kind, &mut streams.stream("test-limit-anomalous")));
        kept.sort_unstable();
        Ok(kept.into_iter().map(|at| (test[at], anomalous[at])).unzip())
    }

    fn wrong(&self, field: &'static str, expected: &str, found: &str) -> Error {
        Error::Split {
            dataset: self.dataset.card().name.clone(),
            category: self.category.to_owned(),
            field,
            expected: expected.to_owned(),
            found: found.to_owned(),
        }
    }
}

/// `limit` of `indices`, drawn in proportion to their strata, ascending.
fn stratified<K: Ord>(
    indices: &[usize],
    limit: usize,
    stratum: impl Fn(usize) -> K,
    stream: &mut Stream,
) -> Vec<usize> {
    let mut strata: BTreeMap<K, Vec<usize>> = BTreeMap::new();
    for &index in indices {
        strata.entry(stratum(index)).or_default().push(index);
    }
    let sizes: Vec<usize> = strata.values().map(Vec::len).collect();
    let mut drawn: Vec<usize> = Vec::new();
    for (members, wanted) in strata.values().zip(allot(limit, &sizes)) {
        drawn.extend(stream.permutation(members.len()).into_iter().take(wanted).map(|at| members[at]));
    }
    drawn.sort_unstable();
    drawn
}

/// Shares `limit` among groups of these sizes: one to each as far as it goes (the first come first), the rest in
/// proportion to what is left of them, by largest remainders.
fn allot(limit: usize, sizes: &[usize]) -> Vec<usize> {
    let total: usize = sizes.iter().sum();
    let limit = limit.min(total);
    let mut shares: Vec<usize> = sizes.iter().map(|&size| size.min(1)).collect();
    let mut given: usize = shares.iter().sum();
    // Fewer places than groups: the last groups go without.
    for share in shares.iter_mut().rev() {
        if given > limit {
            given -= *share;
            *share = 0;
        }
    }
    let left: usize = total - given;
    let places = limit - given;
    if places == 0 {
        return shares;
    }
    let left_of: Vec<usize> = sizes.iter().zip(&shares).map(|(size, share)| size - share).collect();
    let mut remainders: Vec<(usize, usize)> = Vec::new();
    let mut handed = 0;
    for (group, &own) in left_of.iter().enumerate() {
        shares[group] += places * own / left;
        handed += places * own / left;
        remainders.push((places * own % left, group));
    }
    remainders.sort_by_key(|&(remainder, group)| (std::cmp::Reverse(remainder), group));
    for &(_, group) in remainders.iter().take(places - handed) {
        shares[group] += 1;
    }
    shares
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use image_prep::Rgb8;
    use proptest::prelude::*;

    use super::*;
    use crate::{InMemory, MemoryImage};

    /// 3 classes; class c has 10 (c + 1) training and 4 (c + 1) test images.
    fn semantic() -> InMemory {
        let mut images = Vec::new();
        for (part, times) in [(Part::Train, 10), (Part::Test, 4)] {
            for number in 0..times * 3 {
                for class in (0..3).filter(|class| number < times * (class + 1)) {
                    let image = Rgb8::filled(2, 2, [number as u8, class as u8, times as u8]);
                    images.push(MemoryImage {
                        part,
                        class: format!("c{class}"),
                        defect: None,
                        image,
                        masks: vec![],
                    });
                }
            }
        }
        InMemory::new("toy", images)
    }

    fn industrial() -> InMemory {
        let image = |part, class: &str, defect: Option<&str>| MemoryImage {
            part,
            class: class.into(),
            defect: defect.map(str::to_owned),
            image: Rgb8::filled(1, 1, [0, 0, 0]),
            masks: vec![],
        };
        let mut images = Vec::new();
        for class in ["nut", "pill"] {
            images.extend((0..5).map(|_| image(Part::Train, class, None)));
            images.extend((0..4).map(|_| image(Part::Test, class, None)));
            images.extend((0..9).map(|_| image(Part::Test, class, Some("cut"))));
            images.extend((0..3).map(|_| image(Part::Test, class, Some("bent"))));
        }
        InMemory::new("parts", images)
    }

    fn count(set: &InMemory, list: &[usize], class: usize) -> usize {
        list.iter().filter(|&&index| set.items()[index].class == class).count()
    }

    #[test]
    fn the_three_protocols_list_what_they_say() {
        let set = semantic();
        let split = |protocol| Split::new(&set, protocol, "c1", &SplitOptions::default());
        let one = split(Protocol::Unimodal).unwrap();
        assert_eq!((one.train.len(), count(&set, &one.train, 1)), (20, 20));
        assert_eq!((one.test.len(), one.test_normals().len()), (24, 8));
        assert_eq!(count(&set, &one.test_normals(), 1), 8);
        let rest = split(Protocol::Multimodal).unwrap();
        assert_eq!((rest.train.len(), count(&set, &rest.train, 1), rest.test_normals().len()), (40, 0, 16));
        assert!(
            split(Protocol::ClassSeparated).unwrap_err().to_string().contains("8 normal and 0 anomalous")
        );

        let parts = industrial();
        let split = |protocol| Split::new(&parts, protocol, "pill", &SplitOptions::default());
        let separated = split(Protocol::ClassSeparated).unwrap();
        assert_eq!((separated.train.len(), separated.test.len(), separated.test_normals().len()), (5, 16, 4));
        assert_eq!(count(&parts, &separated.test, 1), 16);
        assert!(split(Protocol::Unimodal).unwrap_err().to_string().contains("class-separated"));
    }

    #[test]
    fn the_abnormal_class_is_tested_on_in_the_order_of_its_reference() {
        let set = semantic();
        let with =
            |options: &SplitOptions| Split::new(&set, Protocol::OneClassAbnormal, "c1", options).unwrap();
        let split = with(&SplitOptions::default());
        // 10 + 30 normal training images; 4 + 12 normal test images, then 20 + 8 anomalous ones.
        assert_eq!((split.train.len(), count(&set, &split.train, 1)), (40, 0));
        assert_eq!(split.test.len(), 16 + 20 + 8);
        assert_eq!(split.anomalous, [vec![false; 16], vec![true; 28]].concat());
        let parts: Vec<Part> = split.test.iter().map(|&index| set.items()[index].part).collect();
        assert_eq!(parts[16..], [vec![Part::Train; 20], vec![Part::Test; 8]].concat());
        assert!(split.train.iter().all(|index| !split.test.contains(index)));
        let few = with(&SplitOptions { test_limit: Some(12), ..SplitOptions::default() });
        assert_eq!(few.test.len(), 12);
        assert!(few.anomalous.is_sorted());
    }

    #[test]
    fn one_model_for_all_categories_learns_from_all_and_is_judged_by_one_or_all() {
        let parts = industrial();
        let split =
            |category| Split::new(&parts, Protocol::MultiClass, category, &SplitOptions::default()).unwrap();
        let (nut, all) = (split("nut"), split(ALL));
        assert_eq!((nut.train.len(), nut.test.len(), count(&parts, &nut.test, 0)), (10, 16, 16));
        assert_eq!((all.category.as_str(), all.train.len(), all.test.len()), ("all", 10, 32));
        assert_eq!(nut.train, all.train);
        let semantic = semantic();
        let wrong = Split::new(&semantic, Protocol::MultiClass, ALL, &SplitOptions::default()).unwrap_err();
        assert!(wrong.to_string().contains("0 anomalous"), "{wrong}");
        assert!(Split::new(&parts, Protocol::ClassSeparated, ALL, &SplitOptions::default()).is_err());
    }

    #[test]
    fn shots_are_few_of_each_class_and_follow_the_seed() {
        let parts = industrial();
        let with = |protocol, count, draw, seed| {
            let shots = Some(Shots { count, draw });
            Split::new(&parts, protocol, "pill", &SplitOptions { shots, seed, ..SplitOptions::default() })
        };
        let drawn = with(Protocol::ClassSeparated, 2, ShotDraw::Drawn, 0).unwrap();
        assert_eq!(drawn, with(Protocol::ClassSeparated, 2, ShotDraw::Drawn, 0).unwrap());
        assert_eq!(drawn.train.len(), 2);
        let lists: Vec<_> = (0..20)
            .map(|seed| with(Protocol::ClassSeparated, 2, ShotDraw::Drawn, seed).unwrap().train)
            .collect();
        assert!(lists.iter().any(|list| *list != lists[0]));
        let both = with(Protocol::MultiClass, 3, ShotDraw::Drawn, 0).unwrap();
        assert_eq!([0, 1].map(|class| count(&parts, &both.train, class)), [3, 3]);
        let whole = Split::new(&parts, Protocol::ClassSeparated, "pill", &SplitOptions::default()).unwrap();
        let row = with(Protocol::ClassSeparated, 2, ShotDraw::Consecutive, 3).unwrap();
        assert_eq!(row.train, whole.train[3..5]);
        let beyond = with(Protocol::ClassSeparated, 2, ShotDraw::Consecutive, 4).unwrap_err().to_string();
        assert!(beyond.contains("shots: expected at most 1 from image 4 on"), "{beyond}");
        assert!(with(Protocol::ClassSeparated, 6, ShotDraw::Drawn, 0).is_err());
        assert_ne!(drawn.fingerprint(&parts).unwrap().split, row.fingerprint(&parts).unwrap().split);
        let shots = Some(Shots { count: 1, draw: ShotDraw::Drawn });
        let both = SplitOptions { shots, train_limit: Some(3), ..SplitOptions::default() };
        let wrong = Split::new(&parts, Protocol::ClassSeparated, "pill", &both).unwrap_err().to_string();
        assert!(wrong.contains("train_limit"), "{wrong}");
    }

    #[test]
    fn official_validation_images_are_held_out_and_good_parts_alone_can_be_learned_from() {
        let image = |part| MemoryImage {
            part,
            class: "nut".into(),
            defect: None,
            image: Rgb8::filled(1, 1, [0, 0, 0]),
            masks: vec![],
        };
        let parts = [Part::Train, Part::Train, Part::Train, Part::Validation, Part::Test];
        let set = InMemory::new("good", parts.map(image).to_vec());
        let options = SplitOptions { held_out_share: 0.3, ..SplitOptions::default() };
        let split = Split::for_training(&set, Protocol::ClassSeparated, "nut", &options).unwrap();
        assert_eq!((split.train.len(), split.held_out.len(), split.test.len()), (2, 2, 1));
        assert!(split.held_out.contains(&3));
        let none = SplitOptions::default();
        let split = Split::for_training(&set, Protocol::ClassSeparated, "nut", &none).unwrap();
        assert_eq!((split.train.len(), split.held_out), (3, vec![3]));
        assert!(Split::new(&set, Protocol::ClassSeparated, "nut", &none).is_err());
    }

    #[test]
    fn limits_are_stratified_seeded_and_leave_both_sides() {
        let set = semantic();
        let options = SplitOptions { train_limit: Some(12), test_limit: Some(12), ..SplitOptions::default() };
        let split = |seed| {
            let options = SplitOptions { seed, ..options.clone() };
            Split::new(&set, Protocol::Multimodal, "c0", &options).unwrap()
        };
        let (first, again, other) = (split(0), split(0), split(1));
        assert_eq!(first, again);
        assert_ne!(first.train, other.train);
        // 20 and 30 training images of the normal classes; 4 anomalous and 8 + 12 normal test images.
        assert_eq!([1, 2].map(|class| count(&set, &first.train, class)), [5, 7]);
        assert_eq!([0, 1, 2].map(|class| count(&set, &first.test, class)), [2, 4, 6]);
        assert_eq!(first.anomalous.iter().filter(|&&a| a).count(), 2);
        assert!(first.train.is_sorted() && first.test.is_sorted());

        let parts = industrial();
        let few = SplitOptions { test_limit: Some(2), ..SplitOptions::default() };
        let split = Split::new(&parts, Protocol::ClassSeparated, "nut", &few).unwrap();
        assert_eq!((split.test.len(), split.test_normals().len()), (2, 1));
    }

    #[test]
    fn held_out_images_are_seen_by_no_fit() {
        let set = semantic();
        let options = SplitOptions { held_out_share: 0.2, ..SplitOptions::default() };
        let split = Split::new(&set, Protocol::Multimodal, "c2", &options).unwrap();
        assert_eq!((split.train.len(), split.held_out.len()), (24, 6));
        assert_eq!([0, 1].map(|class| count(&set, &split.held_out, class)), [2, 4]);
        assert!(split.held_out.iter().all(|index| !split.train.contains(index)));
    }

    #[test]
    fn options_that_leave_nothing_name_their_field() {
        let set = semantic();
        let message = |options| Split::new(&set, Protocol::Unimodal, "c0", &options).unwrap_err().to_string();
        let with = SplitOptions::default;
        assert!(message(SplitOptions { train_limit: Some(0), ..with() }).contains("at least 1 normal"));
        assert!(message(SplitOptions { test_limit: Some(1), ..with() }).contains("test_limit"));
        assert!(message(SplitOptions { held_out_share: 1.0, ..with() }).contains("held_out_share"));
        let one = SplitOptions { train_limit: Some(1), held_out_share: 0.1, ..with() };
        assert!(message(one).contains("at least 2 normal"));
        let unknown = Split::new(&set, Protocol::Unimodal, "c3", &with()).unwrap_err().to_string();
        assert!(unknown.contains("did you mean") && unknown.contains("c0, c1, c2"), "{unknown}");
    }

    #[test]
    fn fingerprints_tell_contents_and_lists_apart() {
        let set = semantic();
        let options = SplitOptions::default();
        let print = |set: &InMemory, protocol, options: &SplitOptions| {
            Split::new(set, protocol, "c1", options).unwrap().fingerprint(set).unwrap()
        };
        let first = print(&set, Protocol::Unimodal, &options);
        assert_eq!(first, print(&semantic(), Protocol::Unimodal, &options));
        let held = print(&set, Protocol::Unimodal, &SplitOptions { held_out_share: 0.5, ..options.clone() });
        assert_eq!(held.content, first.content);
        assert_ne!(held.split, first.split);
        let images = set.items().iter().enumerate().map(|(index, item)| {
            let mut image = set.image(index).unwrap();
            image.data[0] ^= u8::from(index == set.items().len() - 1);
            let class = set.classes()[item.class].key.clone();
            MemoryImage { part: item.part, class, defect: None, image, masks: vec![] }
        });
        let changed = print(&InMemory::new("toy", images.collect()), Protocol::Unimodal, &options);
        assert_eq!(changed.split, first.split);
        assert_ne!(changed.content, first.content);
    }

    proptest! {
        #[test]
        fn shares_add_up_and_exceed_nothing(sizes in prop::collection::vec(0usize..50, 1..8), limit in 0usize..200) {
            let shares = allot(limit, &sizes);
            prop_assert_eq!(shares.iter().sum::<usize>(), limit.min(sizes.iter().sum()));
            prop_assert!(shares.iter().zip(&sizes).all(|(share, size)| share <= size));
            let groups = sizes.iter().filter(|&&size| size > 0).count();
            if limit >= groups {
                prop_assert!(shares.iter().zip(&sizes).all(|(&share, &size)| size == 0 || share > 0));
            }
        }
    }
}
