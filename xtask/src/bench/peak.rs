//! How much memory this process took.

/// Resident memory of this process, at its largest.
#[derive(Debug)]
pub(super) struct Peak {
    /// What it was before the last [`Peak::restart`].
    before: Option<u64>,
}

impl Peak {
    pub(super) fn new() -> Self {
        Self { before: None }
    }

    /// Counts anew from what is in use now.
    pub(super) fn restart(&mut self) {
        self.before = self.total();
        // Linux only, and only where the kernel was built with it; elsewhere both figures are the total.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
    }

    /// The largest since the process began.
    pub(super) fn total(&self) -> Option<u64> {
        benchmark::peak_bytes().max(self.before)
    }

    /// The largest since [`Peak::restart`].
    pub(super) fn since_restart() -> Option<u64> {
        benchmark::peak_bytes()
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::Peak;

    #[test]
    fn what_was_freed_counts_in_the_total_alone() {
        let mut peak = Peak::new();
        let block = std::hint::black_box(vec![1_u8; 256 << 20]);
        drop(block);
        peak.restart();
        let (total, since) = (peak.total().unwrap(), Peak::since_restart().unwrap());
        assert!(total >= 256 << 20, "{total}");
        assert!(since <= total, "{since} {total}");
    }
}
