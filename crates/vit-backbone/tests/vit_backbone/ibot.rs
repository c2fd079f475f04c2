//! iBOT's files, which are on no hub: recognised by their name.

use candle_core::{Device, Tensor};
use random_streams::Streams;
use vit_backbone::{Error, LoadOptions, NameScheme, Vit, catalogue};

#[test]
fn a_file_of_the_entry_s_name_is_loaded_as_the_entry() {
    let entry = catalogue::find("vit_small_patch16_224_ibot").unwrap();
    let vit = Vit::random(
        vit_backbone::VitConfig { depth: 1, ..entry.config.clone() },
        &mut Streams::new(0).stream("init"),
        &Device::Cpu,
    )
    .unwrap();
    // All twelve blocks, each a copy of the one, behind the prefix of wrapped models.
    let mut tensors = std::collections::HashMap::new();
    for (name, tensor) in vit.file_tensors(NameScheme::Original).unwrap() {
        match name.strip_prefix("blocks.0.") {
            Some(rest) => {
                for block in 0..12 {
                    tensors.insert(format!("module.blocks.{block}.{rest}"), tensor.clone());
                }
            }
            None => {
                tensors.insert(format!("module.{name}"), tensor);
            }
        }
    }
    // What the student's part of the checkpoint holds besides.
    tensors.insert(
        "module.masked_embed".to_owned(),
        Tensor::zeros((1, 384), candle_core::DType::F32, &Device::Cpu).unwrap(),
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vit_small_patch16_224_ibot.safetensors");
    candle_core::safetensors::save(&tensors, &path).unwrap();
    let loaded = Vit::load(path.to_str().unwrap(), &LoadOptions::default()).unwrap();
    assert_eq!(loaded.config(), &entry.config);
    assert_eq!((loaded.depth(), loaded.dim(), loaded.identity().licence.as_str()), (12, 384, "Apache-2.0"));

    // Under another name nothing says what it is.
    let unnamed = folder.path().join("teacher.safetensors");
    std::fs::rename(&path, &unnamed).unwrap();
    let refused = Vit::load(unnamed.to_str().unwrap(), &LoadOptions::default()).unwrap_err();
    assert!(matches!(refused, Error::Unsupported { .. }), "{refused}");
}
