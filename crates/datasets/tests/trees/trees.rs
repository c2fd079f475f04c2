//! Tiny trees that other tools wrote (`make_trees.py`), read, and damaged.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use datasets::{
    CheckReport, Dataset, Part, ProblemKind, Protocol, Split, SplitOptions, check, open, open_unchecked,
    without,
};
use image_prep::{DecodeOptions, decode_file};
use sha2::{Digest, Sha256};

fn trees() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/trees")
}

static EXPECTED: LazyLock<serde_json::Value> =
    LazyLock::new(|| serde_json::from_slice(&std::fs::read(trees().join("expected.json")).unwrap()).unwrap());

/// A copy of a tree that may be damaged, its packed files unpacked.
fn copy(name: &str) -> tempfile::TempDir {
    fn copy_into(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            let target = to.join(path.file_name().unwrap());
            if path.is_dir() {
                copy_into(&path, &target);
            } else if let Some(plain) = target.to_str().unwrap().strip_suffix(".bin.gz") {
                let mut bytes = Vec::new();
                let packed = std::fs::read(&path).unwrap();
                flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut bytes).unwrap();
                std::fs::write(format!("{plain}.bin"), bytes).unwrap();
            } else {
                std::fs::copy(&path, target).unwrap();
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    copy_into(&trees().join(name), folder.path());
    folder
}

fn sha(data: &[u8]) -> String {
    Sha256::digest(data).iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

fn counts(set: &dyn Dataset) -> [usize; 3] {
    [Part::Train, Part::Validation, Part::Test]
        .map(|part| set.items().iter().filter(|item| item.part == part).count())
}

fn only(report: &CheckReport, kind: ProblemKind) -> Vec<String> {
    report.problems.iter().filter(|problem| problem.kind == kind).map(ToString::to_string).collect()
}

/// All but the counts: no tree here is a whole data set.
fn faults(report: &CheckReport) -> Vec<String> {
    report.faults().map(ToString::to_string).collect()
}

/// Labels and pixels as torchvision or the script saw them.
fn assert_packed(name: &str, tree: &str) {
    let root = copy(tree);
    let set = open_unchecked(name, Some(root.path())).unwrap();
    let expected = EXPECTED[tree].as_array().unwrap();
    assert_eq!(set.items().len(), expected.len(), "{name}");
    for (index, wanted) in expected.iter().enumerate() {
        let image = set.image(index).unwrap();
        let found = serde_json::json!([set.items()[index].class, sha(&image.data)]);
        assert_eq!(found, *wanted, "{name} {index}");
    }
}

#[test]
fn packed_files_hold_what_torchvision_reads() {
    assert_packed("mnist", "mnist");
    assert_packed("cifar10", "cifar10");
    assert_packed("cifar100", "cifar100");
    assert_packed("stl10", "stl10");
    let root = copy("cifar100");
    let fine = open("cifar100-fine", Some(root.path())).unwrap();
    let classes: Vec<usize> = fine.items().iter().map(|item| item.class).collect();
    assert_eq!(classes, [(0..100).collect::<Vec<_>>(), (0..100).collect()].concat());
}

#[test]
fn the_abnormal_class_of_stl10_is_listed_as_its_reference_does() {
    let root = copy("stl10");
    let set = open("stl10", Some(root.path())).unwrap();
    assert_eq!(set.card().protocol, Protocol::OneClassAbnormal);
    let split = Split::new(&*set, Protocol::OneClassAbnormal, "cat", &SplitOptions::default()).unwrap();
    let ids: Vec<&str> = split.test.iter().map(|&index| set.items()[index].id.as_str()).collect();
    assert_eq!((split.train.len(), ids.len()), (9, 11));
    assert_eq!(ids[9..], ["train/00003", "test/00003"]);
}

#[test]
fn aircraft_are_the_images_and_variants_that_torchvision_sees() {
    let root = copy("fgvc-aircraft");
    let ten = open("fgvc-aircraft-10", Some(root.path())).unwrap();
    assert_eq!(counts(&*ten), [10, 10, 10]);
    let all = open_unchecked("fgvc-aircraft", Some(root.path())).unwrap();
    for (part, word) in [(Part::Train, "train"), (Part::Validation, "val"), (Part::Test, "test")] {
        let items = all.items().iter().filter(|item| item.part == part);
        let mut found: Vec<(String, usize)> = items
            .map(|item| {
                let image = item.id.rsplit('/').next().unwrap().to_owned();
                (image, all.classes()[item.class].key.parse().unwrap())
            })
            .collect();
        found.sort();
        assert_eq!(serde_json::to_value(found).unwrap(), EXPECTED["fgvc-aircraft"][word]);
    }
    // 89 variants without an image, in each of three lists.
    assert_eq!(all.problems().iter().filter(|p| p.kind == ProblemKind::EmptyClass).count(), 3 * 89);
    let split = Split::new(&*ten, Protocol::Unimodal, "91", &SplitOptions::default()).unwrap();
    assert_eq!((split.train.len(), split.held_out.len(), split.test.len()), (1, 1, 10));
}

#[test]
fn cars_are_the_files_and_classes_that_torchvision_sees() {
    let root = copy("stanford-cars");
    let set = open("stanford-cars", Some(root.path())).unwrap();
    assert_eq!(set.classes()[2].title, "BMW M3 Coupe 2012");
    for (part, word) in [(Part::Train, "train"), (Part::Test, "test")] {
        let items = set.items().iter().filter(|item| item.part == part);
        let found: Vec<_> = items.map(|item| (item.id.rsplit('/').next().unwrap(), item.class)).collect();
        assert_eq!(serde_json::to_value(found).unwrap(), EXPECTED["stanford-cars"][word]);
    }
    let report = check("stanford-cars", Some(root.path()));
    assert_eq!(faults(&report), Vec::<String>::new());
    let annotations = root.path().join("stanford_cars/devkit/cars_train_annos.mat");
    let bytes = std::fs::read(&annotations).unwrap();
    std::fs::write(&annotations, &bytes[..bytes.len() - 40]).unwrap();
    let found = open("stanford-cars", Some(root.path())).map(|_| ()).unwrap_err().to_string();
    assert!(found.contains("cars_train_annos.mat"), "{found}");
}

#[test]
fn objects_of_dior_are_cropped_by_their_boxes() {
    let root = copy("dior");
    let set = open("dior", Some(root.path())).unwrap();
    let names: Vec<&str> = set.classes().iter().map(|class| class.key.as_str()).collect();
    // A class of two training objects and objects of 100 pixels are left out.
    assert_eq!(names, ["ship", "stadium"]);
    assert_eq!(counts(&*set), [2 * 28 + 2 * 27, 0, 28 + 27]);
    let sized = |size| (0..set.items().len()).filter(move |&i| set.size(i).unwrap() == size);
    let right: Vec<usize> = sized((125, 130)).collect();
    assert_eq!(right.len(), 6);
    let image = open("dior", Some(root.path())).unwrap().image(right[0]).unwrap();
    assert_eq!((image.height, image.width), (125, 130));
    // The right half of each picture is light.
    assert!(image.data.iter().all(|&level| level.abs_diff(200) < 12));
}

#[test]
fn folders_of_images_are_read_with_the_protocols_of_their_papers() {
    let view = open("view", Some(&trees().join("view"))).unwrap();
    assert_eq!((view.classes().len(), counts(&*view)), (6, [18, 0, 12]));
    let cats = trees().join("cats-vs-dogs");
    let usual = open("cats-vs-dogs", Some(&cats)).unwrap();
    assert_eq!(counts(&*usual), [16, 0, 4]);
    let drawn = open("cats-vs-dogs-80-20", Some(&cats)).unwrap();
    assert_eq!(counts(&*drawn), [16, 0, 4]);
    assert_ne!(usual.items(), drawn.items());
    let release = check("cats-vs-dogs-release", Some(&cats));
    assert_eq!(
        only(&release, ProblemKind::TrainTestDuplicate).len(),
        20,
        "its test images are its training images"
    );
    assert!(check("cats-vs-dogs", Some(&cats)).passed());
}

#[test]
fn industrial_layouts_are_read() {
    let opened = |name: &str, tree: &str| open(name, Some(&trees().join(tree))).unwrap();
    let mvtec = opened("mvtec", "mvtec");
    assert_eq!((mvtec.classes().len(), counts(&*mvtec), mvtec.has_masks()), (2, [8, 0, 12], true));
    let btad = opened("btad", "btad");
    assert_eq!((btad.classes()[0].key.as_str(), counts(&*btad), btad.has_masks()), ("01", [8, 0, 8], true));
    assert_eq!(counts(&*opened("mpdd", "mpdd")), [4, 0, 4]);
    let loco = opened("mvtec-loco", "mvtec-loco");
    assert_eq!((counts(&*loco), loco.saturations(0).len()), ([4, 2, 6], 3));
    let masks = |set: &dyn Dataset| {
        (0..set.items().len()).map(|i| set.masks(i).unwrap().len()).filter(|&n| n > 0).collect::<Vec<_>>()
    };
    assert_eq!(masks(&*loco), [1, 2, 1, 2]);
    assert_eq!(masks(&*opened("mvtec-loco-first-mask", "mvtec-loco")), [1, 1, 1, 1]);
    let split = Split::new(&*loco, Protocol::ClassSeparated, "pushpins", &SplitOptions::default()).unwrap();
    assert_eq!((split.train.len(), split.held_out.len(), split.test.len()), (4, 2, 6));

    let official = opened("visa", "visa");
    assert_eq!((counts(&*official), official.has_masks()), ([18, 0, 6], true));
    assert_eq!(official.items()[18].id, "candle/Data/Images/Anomaly/000.JPG");
    let own = opened("visa-80-20", "visa");
    assert_eq!(counts(&*own), [16, 0, 8]);
    for (name, tree) in [("mvtec", "mvtec"), ("mvtec-loco", "mvtec-loco"), ("visa", "visa"), ("btad", "btad")]
    {
        assert_eq!(faults(&check(name, Some(&trees().join(tree)))), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn custom_layouts_are_read() {
    let opened = |name: &str, place: &str| open(name, Some(&trees().join(place))).unwrap();
    assert_eq!(counts(&*opened("normal-abnormal", "normal-abnormal")), [2, 0, 4]);
    let parts = opened("good-bad", "good-bad");
    assert_eq!((counts(&*parts), parts.has_masks()), ([4, 0, 6], true));
    let list = opened("csv", "csv/parts.csv");
    assert_eq!((counts(&*list), list.classes()[0].key.as_str()), ([1, 0, 3], "nut"));
    assert_eq!(list.masks(3).unwrap()[0].area(), 1);
    for (name, place) in [("good-bad", "good-bad"), ("csv", "csv/parts.csv"), ("folder", "normal-abnormal")] {
        assert_eq!(faults(&check(name, Some(&trees().join(place)))), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn good_parts_alone_can_be_learned_from() {
    let root = copy("good-bad");
    std::fs::remove_dir_all(root.path().join("bad")).unwrap();
    std::fs::remove_dir_all(root.path().join("masks")).unwrap();
    let set = open("good-bad", Some(root.path())).unwrap();
    let category = set.classes()[0].key.clone();
    let options = SplitOptions { held_out_share: 0.2, ..SplitOptions::default() };
    let split = Split::for_training(&*set, Protocol::ClassSeparated, &category, &options).unwrap();
    assert_eq!((split.train.len(), split.held_out.len(), split.test.len()), (4, 1, 0));
}

#[test]
fn images_are_what_pillow_makes_of_them() {
    let modes: BTreeMap<String, String> = serde_json::from_value(EXPECTED["modes"].clone()).unwrap();
    for (name, wanted) in modes {
        let image = decode_file(trees().join("modes").join(&name), &DecodeOptions::default()).unwrap();
        assert_eq!(sha(&image.data), wanted, "{name}");
    }
    let jpeg: BTreeMap<String, Vec<u8>> = serde_json::from_value(EXPECTED["jpeg"].clone()).unwrap();
    for (name, wanted) in jpeg {
        let image = decode_file(trees().join("modes").join(&name), &DecodeOptions::default()).unwrap();
        let apart = image.data.iter().zip(&wanted).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(image.data.len() == wanted.len() && apart <= 3, "{name}: {apart} levels");
    }
    let applied = DecodeOptions { apply_orientation: true };
    let turned = decode_file(trees().join("modes/rotated.png"), &applied).unwrap();
    assert_eq!((turned.height, turned.width), (16, 8));
}

#[test]
fn every_fault_of_a_damaged_tree_is_told_at_once() {
    let root = copy("mvtec");
    let at = |name: &str| root.path().join(name);
    // Four faults that opening finds, and five that only decoding does.
    std::fs::remove_file(at("bottle/ground_truth/contamination/000_mask.png")).unwrap();
    std::fs::write(at("bottle/train/good/001.png"), b"").unwrap();
    std::fs::rename(at("grid/ground_truth/broken_large"), at("grid/ground_truth/broken_lagre")).unwrap();
    let cut = std::fs::read(at("bottle/train/good/002.png")).unwrap();
    std::fs::write(at("bottle/train/good/002.png"), &cut[..cut.len() / 2]).unwrap();
    std::fs::copy(at("grid/train/good/000.png"), at("grid/test/good/009.png")).unwrap();
    std::fs::copy(
        at("bottle/ground_truth/broken_large/001_mask.png"),
        at("bottle/ground_truth/broken_large/007_mask.png"),
    )
    .unwrap();
    let save = |name: &str, image: image::DynamicImage| image.save(at(name)).unwrap();
    save(
        "bottle/ground_truth/broken_large/000_mask.png",
        image::GrayImage::from_pixel(9, 9, image::Luma([255])).into(),
    );
    save("bottle/ground_truth/contamination/001_mask.png", image::GrayImage::new(8, 6).into());
    save("grid/train/good/004.png", image::GrayImage::from_pixel(5, 5, image::Luma([9])).into());
    let report = check("mvtec", Some(root.path()));
    let found = |kind| only(&report, kind);
    assert!(
        found(ProblemKind::MissingMask).iter().any(|p| p.contains("contamination/000.png")),
        "{report:?}"
    );
    assert_eq!(found(ProblemKind::Unreadable).len(), 2, "{report:?}");
    assert!(found(ProblemKind::Unreadable)[0].contains("001.png"));
    assert!(found(ProblemKind::FolderName)[0].contains("did you mean `broken_large`?"));
    assert!(found(ProblemKind::TrainTestDuplicate)[0].contains("train image"));
    assert!(found(ProblemKind::UnpairedMask)[0].contains("007_mask.png"));
    assert!(found(ProblemKind::MaskSize)[0].contains("9 x 9"));
    assert!(found(ProblemKind::EmptyMask)[0].contains("contamination/001_mask.png"));
    assert!(found(ProblemKind::MixedSizes)[0].contains("grid"));
    assert!(found(ProblemKind::MixedChannels)[0].contains("grid"));

    let refused = open("mvtec", Some(root.path())).map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("001.png") && refused.contains("broken_lagre"), "{refused}");
    // Two unreadable images, one missing and one wrong mask, and the two masks whose folder is misspelt.
    let unusable = report.unusable();
    assert_eq!(unusable.len(), 6, "{unusable:?}");
    let whole: Arc<dyn Dataset> = open_unchecked("mvtec", Some(root.path())).unwrap().into();
    let left = without(whole.clone(), &unusable);
    assert_eq!(left.items().len(), whole.items().len() - 6);
    for index in 0..left.items().len() {
        left.image(index).unwrap();
        left.masks(index).unwrap();
    }
}

#[test]
fn published_counts_hold_wherever_a_whole_data_set_is() {
    // Debian's package; elsewhere there is nothing to look at.
    let report = check("fashion-mnist", None);
    if report.images > 0 {
        assert_eq!((report.images, only(&report, ProblemKind::Counts)), (70_000, Vec::<String>::new()));
    }
    let part = check("mvtec", Some(&trees().join("mvtec")));
    let told = only(&part, ProblemKind::Counts);
    assert!(
        told.iter().any(|p| p.contains("normal train images of `bottle`: 209 were published, found 4")),
        "{told:?}"
    );
    assert!(!told.iter().any(|p| p.contains("cable")));
}
