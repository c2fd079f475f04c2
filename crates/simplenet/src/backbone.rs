//! The frozen network below.

use std::sync::Arc;

use candle_core::Device;
use cnn_backbone::ResNet;
use vit_backbone::Vit;

/// The frozen network that features come from.
#[derive(Debug, Clone)]
pub enum Backbone {
    /// A Vision Transformer: patch tokens after the final norm.
    Vit(Arc<Vit>),
    /// A residual network: maps of its stages, averaged over neighbours.
    ResNet(Arc<ResNet>),
}

impl Backbone {
    /// Where the weights are.
    pub fn device(&self) -> &Device {
        match self {
            Self::Vit(vit) => vit.device(),
            Self::ResNet(network) => network.device(),
        }
    }

    /// The name it was loaded by, and the SHA-256 of its weights.
    pub fn identity(&self) -> (&str, &str) {
        match self {
            Self::Vit(vit) => (&vit.identity().name, &vit.identity().sha256),
            Self::ResNet(network) => (&network.identity().name, &network.identity().sha256),
        }
    }
}

impl From<Arc<Vit>> for Backbone {
    fn from(vit: Arc<Vit>) -> Self {
        Self::Vit(vit)
    }
}

impl From<Vit> for Backbone {
    fn from(vit: Vit) -> Self {
        Self::Vit(Arc::new(vit))
    }
}

impl From<Arc<ResNet>> for Backbone {
    fn from(network: Arc<ResNet>) -> Self {
        Self::ResNet(network)
    }
}

impl From<ResNet> for Backbone {
    fn from(network: ResNet) -> Self {
        Self::ResNet(Arc::new(network))
    }
}
