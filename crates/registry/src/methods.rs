//! The list of methods: one line each.

use crate::entry::entry;
use crate::{Error, MethodEntry};

static METHODS: &[MethodEntry] = &[
    // `cargo xtask new-method` adds its line below this one.
    entry!(needed, generalad, GeneralAd, GeneralAdDetector),
    entry!(alone, advit_gmdn, Advit, AdvitDetector),
    entry!(alone, vtadl_registers, VtadlRegisters, VtadlRegistersDetector),
    entry!(alone, anogan_trans, AnoTrans, AnoTransDetector),
    entry!(needed, transformaly, Transformaly, TransformalyDetector),
    entry!(optional, pixel_knn, PixelKnn),
    entry!(needed, kdad, Kdad, KdadDetector),
    entry!(either, simplenet, SimpleNet, SimpleNetDetector),
];

/// All methods.
pub fn methods() -> &'static [MethodEntry] {
    METHODS
}

/// The method called `name`.
///
/// # Errors
/// [`Error::UnknownMethod`], with the nearest name if one is near.
pub fn find(name: &str) -> Result<&'static MethodEntry, Error> {
    if let Some(entry) = METHODS.iter().find(|entry| entry.info.name == name) {
        return Ok(entry);
    }
    let names = || METHODS.iter().map(|entry| entry.info.name);
    let nearest = names()
        .map(|known| (strsim::damerau_levenshtein(known, name), known))
        .min()
        .filter(|(distance, known)| *distance <= known.len().max(name.len()) / 2)
        .map(|(_, known)| known.to_owned());
    Err(Error::UnknownMethod {
        name: name.to_owned(),
        nearest,
        known: names().collect::<Vec<_>>().join(", "),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::{Arc, Mutex};

    use anomaly_core::{
        ContentKey, DataError, DetectorWriter, FitContext, Images, Precision, TrainingData,
        TrainingFingerprint,
    };
    use candle_core::{Device, Tensor};
    use cnn_backbone::{BlockKind, ResNet, ResNetConfig};
    use serde_json::{Value, json};
    use vit_backbone::{Family, Vit, VitConfig};

    use super::{find, methods};
    use crate::{Backbones, Resources};

    /// One small random network under any name, none under `missing`; and the precisions asked for.
    struct Tiny(Arc<Vit>, Mutex<Vec<Precision>>);

    impl Tiny {
        fn new(seed: u64) -> Self {
            let config = VitConfig::new(Family::TimmVit, (16, 1, 2), 8, 16);
            let mut stream = anomaly_core::Streams::new(seed).stream("init");
            Self(Arc::new(Vit::random(config, &mut stream, &Device::Cpu).unwrap()), Mutex::default())
        }
    }

    impl Backbones for Tiny {
        fn load(&self, name: &str, precision: Precision) -> Result<Arc<Vit>, vit_backbone::Error> {
            self.1.lock().unwrap().push(precision);
            if name == "missing" {
                return Err(vit_backbone::Error::UnknownName { name: name.into(), nearest: vec![] });
            }
            Ok(Arc::clone(&self.0))
        }
    }

    /// Four images of 16 x 16 pixels in four shades of grey.
    struct Greys;

    impl TrainingData for Greys {
        fn len(&self) -> usize {
            4
        }
        fn key(&self, index: usize) -> Result<ContentKey, DataError> {
            Ok(ContentKey::of_pixels(1, 1, &[index as u8]))
        }
        fn get(&self, indices: &[usize]) -> Result<Images, DataError> {
            let shades: Vec<f32> = indices.iter().map(|index| *index as f32 / 4.0).collect();
            let pixels = Tensor::new(shades, &Device::Cpu).and_then(|shades| {
                shades.reshape(((), 1, 1, 1))?.expand((indices.len(), 3, 16, 16))?.contiguous()
            });
            let ids = indices.iter().map(usize::to_string).collect();
            Images::new(ids, pixels.map_err(DataError::new)?).map_err(DataError::new)
        }
    }

    #[test]
    fn every_method_has_its_own_name_and_a_valid_default() {
        for entry in methods() {
            let name = entry.info.name;
            assert_eq!(methods().iter().filter(|other| other.info.name == name).count(), 1, "{name}");
            let default = (entry.default_config)();
            assert_eq!((entry.check_config)(&Value::Null).unwrap(), default, "{name}");
            assert_eq!((entry.check_config)(&default).unwrap(), default, "{name}");
            let unknown = (entry.check_config)(&json!({"no such field": 1})).unwrap_err();
            assert_eq!(unknown.field_name(), Some("no such field"));
            assert_eq!((entry.backbone)(&Value::Null, None).unwrap(), entry.info.default_backbone, "{name}");
        }
    }

    #[test]
    fn a_miss_names_the_nearest() {
        assert_eq!(find("pixel-knn").unwrap().info.name, "pixel-knn");
        let near = find("pixelknn").unwrap_err().to_string();
        assert!(near.contains("did you mean `pixel-knn`?"), "{near}");
        let far = find("zzzzzzzzzzzzzzzzzzz").unwrap_err().to_string();
        assert!(!far.contains("did you mean") && far.contains("pixel-knn"), "{far}");
    }

    #[test]
    fn a_backbone_is_loaded_where_it_is_needed_and_only_there() {
        let entry = find("pixel-knn").unwrap();
        let tiny = Tiny::new(0);
        let precision = Precision::F32;
        let resources = |backbone| Resources { backbones: &tiny, backbone, device: Device::Cpu, precision };
        let build =
            |config: Value, backbone| (entry.build)(&config, &resources(backbone)).map(|m| m.config());
        assert!(build(json!({}), Some("missing")).is_ok());
        let message = build(json!({"features": "tokens"}), Some("missing")).unwrap_err().to_string();
        assert!(message.contains("pixel-knn") && message.contains("missing"), "{message}");
        let message = build(json!({"features": "tokens"}), None).unwrap_err().to_string();
        assert!(message.contains("backbone"), "{message}");
        assert_eq!((entry.backbone)(&json!({"features": "tokens"}), Some("x")).unwrap(), Some("x"));
        assert_eq!((entry.backbone)(&json!({}), Some("x")).unwrap(), None);
    }

    #[test]
    fn a_saved_detector_finds_its_backbone_again_and_no_other() {
        let entry = find("pixel-knn").unwrap();
        let tiny = Tiny::new(0);
        let resources = Resources {
            backbones: &tiny,
            backbone: Some("tiny"),
            device: Device::Cpu,
            precision: Precision::Bf16x3,
        };
        let method = (entry.build)(&json!({"features": "tokens", "k": 1}), &resources).unwrap();
        let detector = method.fit(&mut Greys, &mut FitContext::new(Device::Cpu, 0)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let training = TrainingFingerprint { images: 4, sha256: String::new() };
        let mut writer = DetectorWriter::new(
            folder.path(),
            method.info(),
            method.preprocess(),
            Precision::Bf16x3,
            0,
            training,
        );
        detector.save(&mut writer).unwrap();
        writer.finish().unwrap();

        // The detector's own precision, whatever others are asked for.
        let unasked = Resources { backbone: None, precision: Precision::F32, ..resources.clone() };
        let loaded = (entry.load)(folder.path(), &unasked).unwrap();
        let images = Greys.get(&[0, 1, 2, 3]).unwrap();
        assert_eq!(loaded.score(&images).unwrap().scores, detector.score(&images).unwrap().scores);

        assert_eq!(*tiny.1.lock().unwrap(), [Precision::Bf16x3; 2]);

        let other = Tiny::new(1);
        let message =
            (entry.load)(folder.path(), &Resources { backbones: &other, ..resources }).err().unwrap();
        assert!(message.to_string().contains("sha256"), "{message}");
    }

    /// One small random residual network under any name.
    struct TinyResNet(Arc<ResNet>);

    impl Backbones for TinyResNet {
        fn load(&self, name: &str, _: Precision) -> Result<Arc<Vit>, vit_backbone::Error> {
            Err(vit_backbone::Error::UnknownName { name: name.into(), nearest: vec![] })
        }
        fn load_resnet(&self, _: &str) -> Result<Arc<ResNet>, cnn_backbone::Error> {
            Ok(Arc::clone(&self.0))
        }
    }

    #[test]
    fn a_method_of_either_kind_gets_the_network_that_the_name_says() {
        let entry = find("simplenet").unwrap();
        let config = ResNetConfig { kind: BlockKind::Basic, blocks: [1; 4], stem: 4, width: 4 };
        let mut stream = anomaly_core::Streams::new(0).stream("init");
        let tiny = TinyResNet(Arc::new(ResNet::random(config, &mut stream, &Device::Cpu).unwrap()));
        assert_eq!(tiny.weights_sha256("resnet18.tv_in1k").unwrap(), tiny.0.identity().sha256);
        assert!(tiny.weights_sha256("dinov2-small-b9").unwrap_err().contains("dinov2-small-b9"));
        let precision = Precision::F32;
        let resources = |backbone| Resources { backbones: &tiny, backbone, device: Device::Cpu, precision };
        let config = json!({"image_size": 16, "epochs": 1, "hidden_dim": 4});
        // The published one is a residual network.
        let method = (entry.build)(&config, &resources(None)).unwrap();
        assert_eq!(method.config()["layers"], json!([2, 3]));
        let refused = (entry.build)(&config, &resources(Some("dinov2-small-b9"))).err().unwrap().to_string();
        assert!(refused.contains("dinov2-small-b9"), "{refused}");
        let on_vits_only = Tiny::new(0);
        let other = Resources { backbones: &on_vits_only, ..resources(None) };
        assert!((entry.build)(&config, &other).err().unwrap().to_string().contains("wide_resnet50_2"));

        let detector = method.fit(&mut Greys, &mut FitContext::new(Device::Cpu, 0)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let training = TrainingFingerprint { images: 4, sha256: String::new() };
        let (info, preprocess) = (method.info(), method.preprocess());
        let mut writer = DetectorWriter::new(folder.path(), info, preprocess, precision, 0, training);
        detector.save(&mut writer).unwrap();
        writer.finish().unwrap();
        // The detector names its network: a random one's name says nothing, so it is given.
        let loaded = (entry.load)(folder.path(), &resources(Some("resnet"))).unwrap();
        let images = Greys.get(&[0, 3]).unwrap();
        assert_eq!(loaded.score(&images).unwrap().scores, detector.score(&images).unwrap().scores);
    }
}
