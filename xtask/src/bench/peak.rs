//! How much memory this process took.

/// Resident memory of this process, at its largest.
#[derive(Debug)]
pub(super) struct Peak {
    /// What the process took when this was made.
    base: Option<u64>,
    /// What the peak was before the last [`Peak::restart`].
    before: Option<u64>,
}

impl Peak {
    /// Notes what the process takes now.
    pub(super) fn new() -> Self {
        // Linux only; elsewhere the file isn't there.
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self { base: resident_in(&status), before: None }
    }

    /// What the process took when this was made, in bytes.
    pub(super) fn base(&self) -> Option<u64> {
        self.base
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

/// The resident memory that the text of `/proc/self/status` tells.
fn resident_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Peak, resident_in};

    #[test]
    fn what_is_resident_is_read_in_bytes() {
        assert_eq!(resident_in("VmHWM:\t   123 kB\nVmRSS:\t 99 kB\n"), Some(99 * 1024));
        assert_eq!(resident_in(""), None);
    }

    #[test]
    fn what_was_freed_counts_in_the_total_alone() {
        let mut peak = Peak::new();
        let block = std::hint::black_box(vec![1_u8; 256 << 20]);
        drop(block);
        peak.restart();
        let (total, since) = (peak.total().unwrap(), Peak::since_restart().unwrap());
        assert!(total >= 256 << 20, "{total}");
        assert!(since <= total, "{since} {total}");
        // The base is from before the block.
        assert!(peak.base().unwrap() < total, "{:?} {total}", peak.base());
    }
}
