//! Pretrained weights from the Hugging Face hub, a directory or memory
