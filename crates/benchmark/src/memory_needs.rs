//! How much memory a cell needs, and how much there is.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{CellSpec, Error, Layout, Plan};

/// What a process takes that does next to nothing.
pub(crate) const LEAST: u64 = 64 << 20;
/// How many arrays of a block's size are alive at a time while a frozen network computes, beside its weights.
const ALIVE: u64 = 8;

/// Cells that take about as long, and about as much memory, as each other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kind {
    method: String,
    backbone: Option<String>,
    dataset: String,
    config: String,
}

impl Kind {
    pub(crate) fn of(spec: &CellSpec) -> Self {
        let identity = &spec.identity;
        Self {
            method: identity.method.clone(),
            backbone: identity.backbone.clone(),
            dataset: identity.dataset.clone(),
            config: identity.config.to_string(),
        }
    }
}

/// How much memory a cell needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) bytes: u64,
    /// Whether a cell of its kind took so much; else it is the least that its sizes come to.
    pub(crate) measured: bool,
}

/// What finished cells of a folder took, by kind: the most.
pub(crate) struct Needs(BTreeMap<Kind, u64>);

impl Needs {
    /// What the records of `layout` say about the cells of `plan`.
    pub(crate) fn read(plan: &Plan, layout: &Layout) -> Result<Self, Error> {
        let mut most: BTreeMap<Kind, u64> = BTreeMap::new();
        for cell in &plan.cells {
            if let Some(peak) = layout.record(&cell.spec.id())?.and_then(|record| record.peak_memory_bytes) {
                let known = most.entry(Kind::of(&cell.spec)).or_default();
                *known = peak.max(*known);
            }
        }
        Ok(Self(most))
    }

    pub(crate) fn of(&self, spec: &CellSpec) -> Need {
        match self.0.get(&Kind::of(spec)) {
            Some(&bytes) => Need { bytes, measured: true },
            None => Need { bytes: least(spec), measured: false },
        }
    }
}

/// The least that a cell's sizes come to: its network's weights, once, and what a batch of tokens takes on its way through
/// it. A method's own layers, which it trains, are not in it.
pub(crate) fn least(spec: &CellSpec) -> u64 {
    let identity = &spec.identity;
    let Some(entry) = identity.backbone.as_deref().and_then(vit_backbone::catalogue::find) else {
        return LEAST;
    };
    // On a GPU they lie there.
    if spec.device != "cpu" {
        return LEAST;
    }
    let config = &entry.config;
    let size = identity.config.get("image_size").and_then(Value::as_u64).unwrap_or(entry.image_size as u64);
    let batch = identity.config.get("batch_size").and_then(Value::as_u64).unwrap_or(1);
    let tokens = (size / config.patch.0.max(1) as u64).max(1) * (size / config.patch.1.max(1) as u64).max(1);
    LEAST + weights_bytes(config) + 4 * ALIVE * batch * tokens * config.dim as u64
}

/// The bytes of a network's weights in f32, but for what is small.
pub(crate) fn weights_bytes(config: &vit_backbone::VitConfig) -> u64 {
    let (dim, hidden, depth) = (config.dim as u64, config.mlp_hidden as u64, config.depth as u64);
    4 * depth * (4 * dim * dim + 2 * dim * hidden)
}

/// The memory that is free for cells: what the system says is available, or what this process's group may take if that is
/// less. `None` where neither is told.
pub(crate) fn available() -> Option<u64> {
    let system = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| available_in(&text));
    let group =
        std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    system.into_iter().chain(group).min()
}

fn available_in(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// A number of bytes for people: `512 MiB`, `3.1 GiB`.
pub fn bytes_in_words(bytes: u64) -> String {
    let mebi = bytes as f64 / f64::from(1 << 20);
    if mebi < 1024.0 { format!("{mebi:.0} MiB") } else { format!("{:.1} GiB", mebi / 1024.0) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{available_in, bytes_in_words, least, weights_bytes};
    use crate::spec::tests::spec;

    #[test]
    fn larger_networks_images_and_batches_need_more() {
        let with = |backbone: &str, size: u64, batch: u64| {
            let mut spec = spec();
            spec.identity.backbone = Some(backbone.to_owned());
            spec.identity.config = serde_json::json!({"image_size": size, "batch_size": batch});
            least(&spec)
        };
        let large = "vit_large_patch14_dinov2.lvd142m";
        assert!(with(large, 518, 16) > with("dinov2-small-b9", 518, 16));
        assert!(with(large, 518, 16) > with(large, 224, 16) && with(large, 518, 16) > with(large, 518, 1));
        // 304 million parameters.
        let weights = weights_bytes(&vit_backbone::catalogue::find(large).unwrap().config) as f64;
        assert!((weights / (4.0 * 304e6) - 1.0).abs() < 0.02, "{weights}");
        assert_eq!(least(&spec()), super::LEAST);
    }

    #[test]
    fn the_system_s_word_is_read_and_told() {
        assert_eq!(available_in("MemTotal: 9 kB\nMemAvailable:    2048 kB\n"), Some(2 << 20));
        assert_eq!(available_in("MemTotal: 9 kB\n"), None);
        assert_eq!(
            (bytes_in_words(5 << 20).as_str(), bytes_in_words(3 << 29).as_str()),
            ("5 MiB", "1.5 GiB")
        );
    }
}
