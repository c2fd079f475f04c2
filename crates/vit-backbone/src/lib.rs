//! Faithful Vision Transformer backbones: tokens, chosen blocks, attention
