//! Files of every format, whole and damaged.

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor, Var};
use pretrained::{Embedded, Error, Hub, Source, Weights};
use proptest::prelude::*;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

fn ramp(shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|i| i as f32 / count as f32 - 0.5).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn open(path: &Path) -> Result<Weights, Error> {
    let source = if path.is_dir() { Source::Directory(path.into()) } else { Source::File(path.into()) };
    Weights::open(&source, &Hub::offline())
}

fn tensors() -> HashMap<String, Tensor> {
    HashMap::from([("block.weight".to_owned(), ramp(&[4, 64])), ("block.bias".to_owned(), ramp(&[5]))])
}

fn safetensors_bytes() -> Vec<u8> {
    safetensors::serialize(tensors(), None).unwrap()
}

fn gguf_bytes() -> Vec<u8> {
    let weight = QTensor::quantize(&ramp(&[4, 64]), GgmlDType::Q8_0).unwrap();
    let bias = QTensor::quantize(&ramp(&[5]), GgmlDType::F32).unwrap();
    let mut out = std::io::Cursor::new(Vec::new());
    let name = Value::String("test".into());
    let entries = [("block.weight", &weight), ("block.bias", &bias)];
    gguf_file::write(&mut out, &[("general.name", &name)], &entries).unwrap();
    out.into_inner()
}

#[test]
fn safetensors_of_every_number_type_come_as_f32() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let exact = Tensor::new(&[[0.5_f32, -1.25], [2.0, 0.0]], &Device::Cpu).unwrap();
    let types = [DType::F32, DType::F16, DType::BF16, DType::F64];
    let stored = types.map(|kind| (format!("{kind:?}"), exact.to_dtype(kind).unwrap()));
    candle_core::safetensors::save(&HashMap::from(stored), &path).unwrap();
    let weights = open(&path).unwrap();
    for kind in types {
        let tensor = weights.get(&format!("{kind:?}"), &Device::Cpu).unwrap();
        assert_eq!((tensor.dtype(), tensor.dims()), (DType::F32, &[2, 2][..]));
        assert_eq!(values(&tensor), values(&exact), "{kind:?}");
        assert!(!tensor.is_variable() && !tensor.track_op());
    }
}

#[test]
fn gguf_is_dequantised_and_keeps_pytorchs_order_of_dimensions() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("anything.gguf");
    fs::write(&path, gguf_bytes()).unwrap();
    let weights = open(&path).unwrap();
    assert_eq!(weights.shape("block.weight"), Some(&[4, 64][..]));
    let weight = weights.get("block.weight", &Device::Cpu).unwrap();
    let worst =
        values(&(weight - ramp(&[4, 64])).unwrap()).into_iter().fold(0.0, |worst: f32, d| worst.max(d.abs()));
    // Half a step of an 8-bit block whose largest value is 0.5.
    assert!(worst > 0.0 && worst <= 0.5 / 127.0, "{worst}");
    assert_eq!(values(&weights.get("block.bias", &Device::Cpu).unwrap()), values(&ramp(&[5])));
}

#[test]
fn a_tensor_that_is_missing_or_of_another_shape_is_named() {
    let weights = Weights::from_tensors(tensors()).unwrap();
    let error = weights.get("block.wieght", &Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("block.wieght") && error.contains("nearest: block.weight"), "{error}");
    let error = weights.get("something else altogether", &Device::Cpu).unwrap_err().to_string();
    assert!(!error.contains("nearest"), "{error}");
    let error = weights.get_shaped("block.bias", &[6], &Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("[5]") && error.contains("[6]") && error.contains("block.bias"), "{error}");
    assert_eq!(values(&weights.get_shaped("block.bias", &[5], &Device::Cpu).unwrap()), values(&ramp(&[5])));
}

#[test]
fn a_variable_comes_back_as_a_plain_tensor() {
    let var = Var::from_tensor(&ramp(&[3])).unwrap();
    let weights = Weights::from_tensors(HashMap::from([("v".to_owned(), var.as_tensor().clone())])).unwrap();
    let tensor = weights.get("v", &Device::Cpu).unwrap();
    let squared = tensor.sqr().unwrap().sum_all().unwrap();
    assert!(!tensor.is_variable() && !squared.track_op());
}

#[test]
fn the_digest_of_tensors_in_memory_covers_names_shapes_and_values() {
    let digest = |name: &str, tensor: Tensor| {
        Weights::from_tensors(HashMap::from([(name.to_owned(), tensor)])).unwrap().sha256().to_owned()
    };
    let base = digest("a", ramp(&[4]));
    assert_eq!(base, digest("a", ramp(&[4])));
    for other in [
        digest("b", ramp(&[4])),
        digest("a", ramp(&[2, 2])),
        digest("a", ramp(&[4]).affine(1.0, 0.1).unwrap()),
    ] {
        assert_ne!(base, other);
    }
}

#[test]
fn a_directory_is_read_by_the_hubs_names_first() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("other.gguf"), gguf_bytes()).unwrap();
    fs::write(folder.path().join("config.json"), r#"{"model_type": "dinov2"}"#).unwrap();
    let by_kind = open(folder.path()).unwrap();
    assert_eq!(by_kind.config().unwrap()["model_type"], "dinov2");
    fs::write(folder.path().join("model.safetensors"), safetensors_bytes()).unwrap();
    let by_name = open(folder.path()).unwrap();
    assert_ne!(by_kind.sha256(), by_name.sha256());
    assert_eq!(open(&folder.path().join("model.safetensors")).unwrap().sha256(), by_name.sha256());
}

#[test]
fn an_unclear_or_empty_directory_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let error = open(folder.path()).unwrap_err();
    assert!(matches!(error, Error::NoWeights { .. }), "{error}");
    fs::write(folder.path().join("a.gguf"), gguf_bytes()).unwrap();
    fs::write(folder.path().join("b.gguf"), gguf_bytes()).unwrap();
    let error = open(folder.path()).unwrap_err();
    assert!(error.to_string().contains("a.gguf, b.gguf"), "{error}");
    let error = Weights::open(&Source::Directory(folder.path().join("none")), &Hub::offline()).unwrap_err();
    assert!(matches!(error, Error::Read { .. }) && error.to_string().contains("none"), "{error}");
}

/// A folder with two shards; `map` is the index's `weight_map`.
fn shards(map: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (file, name) in [("s-1.safetensors", "a"), ("s-2.safetensors", "b")] {
        let bytes = safetensors::serialize([(name.to_owned(), ramp(&[2]))], None).unwrap();
        fs::write(folder.path().join(file), bytes).unwrap();
    }
    let index = format!(r#"{{"metadata": {{}}, "weight_map": {map}}}"#);
    fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
    folder
}

#[test]
fn shards_are_one_set_of_weights() {
    let folder = shards(r#"{"a": "s-1.safetensors", "b": "s-2.safetensors"}"#);
    let weights = open(folder.path()).unwrap();
    assert_eq!(weights.names().collect::<Vec<_>>(), ["a", "b"]);
    let mut both = fs::read(folder.path().join("s-1.safetensors")).unwrap();
    both.extend(fs::read(folder.path().join("s-2.safetensors")).unwrap());
    let expected = crate::sha256(&both);
    assert_eq!(weights.sha256(), expected);
    assert!(weights.expect_sha256(&expected.to_uppercase()).is_ok());
    let error = weights.expect_sha256(&"0".repeat(64)).unwrap_err().to_string();
    assert!(error.contains(&expected) && error.contains(&"0".repeat(64)), "{error}");
}

#[test]
fn a_wrong_index_is_refused() {
    for (map, words) in [
        (r#"{"a": "s-1.safetensors", "c": "s-2.safetensors"}"#, "tensor c"),
        (r#"{"a": "s-3.safetensors"}"#, "s-3.safetensors"),
        (r#"{"a": "../s-1.safetensors"}"#, "same folder"),
        (r#"{"a": 1}"#, "no file name"),
        ("[]", "weight_map"),
        ("{", "JSON"),
    ] {
        let error = open(shards(map).path()).unwrap_err().to_string();
        assert!(error.contains(words), "{map}: {error}");
    }
}

#[test]
fn a_file_of_another_kind_is_described() {
    let folder = tempfile::tempdir().unwrap();
    for (content, words) in [
        (&b""[..], "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\x80\x02\x8a\nl\xfc\x9c\x46", "before 1.6"),
        (b"<!doctype html>", "a web page"),
        (b"abcdefghijkl", "6162636465666768"),
    ] {
        let path = folder.path().join("weights.bin");
        fs::write(&path, content).unwrap();
        let error = open(&path).unwrap_err();
        assert!(matches!(error, Error::UnknownFormat { .. }), "{error}");
        assert!(error.to_string().contains(words) && error.to_string().contains("weights.bin"), "{error}");
    }
}

#[cfg(feature = "embedded")]
#[test]
fn the_embedded_backbone_has_its_recorded_digest_and_shapes() {
    let source = pretrained::embedded::find("dinov2-small-b9").unwrap();
    // Opening checks the digest.
    let weights = Weights::open(&source, &Hub::offline()).unwrap();
    assert_eq!(weights.sha256(), pretrained::embedded::DINOV2_SMALL_B9.sha256);
    let shape = |name: &str| weights.shape(name).unwrap().to_vec();
    assert_eq!(shape("embeddings.cls_token"), [1, 1, 384]);
    assert_eq!(shape("embeddings.position_embeddings"), [1, 1370, 384]);
    assert_eq!(shape("embeddings.patch_embeddings.projection.weight"), [384, 3, 14, 14]);
    assert_eq!(shape("encoder.layer.8.mlp.fc1.weight"), [1536, 384]);
    assert_eq!(shape("encoder.layer.0.mlp.fc2.weight"), [384, 1536]);
    assert_eq!(weights.names().count(), 6 + 9 * 18);
    assert_eq!(weights.config().unwrap()["num_hidden_layers"], 9);
    for name in weights.names() {
        let tensor = weights.get(name, &Device::Cpu).unwrap();
        assert!(values(&tensor).iter().all(|value| value.is_finite()), "{name}");
    }
    assert!(
        values(&weights.get("layernorm.weight", &Device::Cpu).unwrap()).iter().all(|&value| value == 1.0)
    );
    assert!(pretrained::embedded::find("dinov2-small").is_none());
}

#[test]
fn embedded_bytes_with_another_digest_are_refused() {
    static WRONG: Embedded =
        Embedded { name: "wrong", bytes: b"\x02\0\0\0\0\0\0\0{}", sha256: "00", config: "{}" };
    let error = Weights::open(&Source::Embedded(&WRONG), &Hub::offline()).unwrap_err();
    assert!(matches!(error, Error::Digest { .. }) && error.to_string().contains("wrong"), "{error}");
}

/// Opens the bytes and reads every tensor there is; a panic fails the test.
fn read_all(bytes: &[u8], name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    if let Ok(weights) = open(&path) {
        for name in weights.names() {
            let shape = weights.shape(name).unwrap();
            if let Ok(tensor) = weights.get(name, &Device::Cpu) {
                assert_eq!(tensor.dims(), shape);
            }
        }
    }
}

#[test]
fn every_file_cut_short_is_refused_when_opened() {
    let folder = tempfile::tempdir().unwrap();
    let pickled = fs::read(checkpoint("plain.pth")).unwrap();
    for (name, bytes) in
        [("a.safetensors", safetensors_bytes()), ("a.gguf", gguf_bytes()), ("a.pth", pickled)]
    {
        for length in (0..bytes.len()).step_by(7) {
            let path = folder.path().join(name);
            fs::write(&path, &bytes[..length]).unwrap();
            // GGUF files end in padding that no tensor needs.
            let padding = name == "a.gguf" && length + 32 > bytes.len();
            let result = open(&path);
            assert!(result.is_err() || padding, "{name} cut to {length} of {} bytes", bytes.len());
        }
    }
}

fn checkpoint(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checkpoints").join(name)
}

#[test]
fn pytorch_checkpoints_are_read_with_their_nesting() {
    let expected = [0.0_f32, 1.0, 2.0, 3.0, 4.0, 5.0];
    for file in ["plain.pth", "nested.pth"] {
        let weights = open(&checkpoint(file)).unwrap();
        assert_eq!(weights.names().collect::<Vec<_>>(), ["half", "weight"], "{file}");
        assert_eq!(weights.shape("weight"), Some(&[2, 3][..]));
        assert_eq!(values(&weights.get("weight", &Device::Cpu).unwrap()), expected);
        assert_eq!(values(&weights.get("half", &Device::Cpu).unwrap()), [0.5, -2.0]);
    }
    let key = |key: &str| Source::Checkpoint { path: checkpoint("nested.pth"), key: key.into() };
    let student = Weights::open(&key("student"), &Hub::offline()).unwrap();
    assert_eq!(values(&student.get("weight", &Device::Cpu).unwrap()), [7.0]);
    let error = Weights::open(&key("absent"), &Hub::offline()).unwrap_err().to_string();
    assert!(error.contains("absent") && error.contains("nested.pth"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_files_never_panic(
        kind in 0_usize..3,
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let (name, mut bytes) = match kind {
            0 => ("a.safetensors", safetensors_bytes()),
            1 => ("a.gguf", gguf_bytes()),
            _ => ("a.pth", fs::read(checkpoint("plain.pth")).unwrap()),
        };
        for (place, value) in places {
            // Headers are where damage hurts, and they come first.
            let place = place.index(bytes.len().min(600));
            bytes[place] = value;
        }
        read_all(&bytes, name);
    }
}
