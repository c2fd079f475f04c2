//! How much memory a contender took, and how that stands to another's.

use serde::{Deserialize, Serialize};

/// Resident memory of a contender's process in bytes, where the system says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Memory {
    /// What it took when its libraries were loaded and the inputs of its work not yet read.
    #[serde(rename = "base_bytes")]
    pub(crate) base: Option<u64>,
    /// The largest so far.
    #[serde(rename = "peak_bytes")]
    pub(crate) peak: Option<u64>,
    /// The same, counted from when the work was ready: without what only loading took.
    #[serde(rename = "running_bytes")]
    pub(crate) running: Option<u64>,
}

/// Memory by the baseline's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct MemoryRatio {
    /// Of the peaks of the whole processes.
    pub(crate) peak: f64,
    /// From when the work was ready.
    pub(crate) running: f64,
    /// Of the peaks less what each process took before it read its inputs: without libraries.
    pub(crate) peak_less_base: Option<f64>,
    /// The same from when the work was ready.
    pub(crate) running_less_base: Option<f64>,
}

impl MemoryRatio {
    /// `None` where the system does not tell the peaks.
    pub(crate) fn of(ours: &Memory, theirs: &Memory) -> Option<Self> {
        let share = |ours: Option<u64>, theirs: Option<u64>| {
            theirs.filter(|&bytes| bytes > 0).and_then(|theirs| Some(ours? as f64 / theirs as f64))
        };
        let less = |of: &Memory, bytes: Option<u64>| bytes?.checked_sub(of.base?);
        Some(Self {
            peak: share(ours.peak, theirs.peak)?,
            running: share(ours.running, theirs.running)?,
            peak_less_base: share(less(ours, ours.peak), less(theirs, theirs.peak)),
            running_less_base: share(less(ours, ours.running), less(theirs, theirs.running)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Memory, MemoryRatio};

    fn memory(base: u64, peak: u64, running: u64) -> Memory {
        Memory { base: Some(base), peak: Some(peak), running: Some(running) }
    }

    #[test]
    fn what_libraries_take_counts_in_the_ratio_of_processes_alone() {
        let (ours, theirs) = (memory(20, 520, 420), memory(500, 1000, 840));
        let ratio = MemoryRatio {
            peak: 0.52,
            running: 0.5,
            peak_less_base: Some(1.0),
            running_less_base: Some(400.0 / 340.0),
        };
        assert_eq!(MemoryRatio::of(&ours, &theirs), Some(ratio));
    }

    #[test]
    fn what_the_system_does_not_tell_has_no_ratio() {
        assert_eq!(MemoryRatio::of(&Memory::default(), &memory(1, 2, 2)), None);
        let without = Memory { base: None, ..memory(0, 4, 4) };
        let ratio = MemoryRatio::of(&memory(1, 2, 2), &without);
        assert_eq!(ratio.map(|ratio| (ratio.peak, ratio.peak_less_base)), Some((0.5, None)));
        // Less than before: what was read took no memory of its own.
        let ratio = MemoryRatio::of(&memory(3, 4, 2), &memory(1, 2, 2));
        assert_eq!(
            ratio.map(|ratio| (ratio.peak_less_base, ratio.running_less_base)),
            Some((Some(1.0), None))
        );
    }
}
