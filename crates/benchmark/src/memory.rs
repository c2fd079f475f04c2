//! How much memory this process took.

/// The largest resident memory of this process so far, in bytes; `None` where the system doesn't say.
pub fn peak_bytes() -> Option<u64> {
    // Linux only; elsewhere the file isn't there.
    peak_in(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn peak_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::peak_in;

    #[test]
    fn the_high_water_mark_is_read_in_bytes() {
        let status = "Name:\txtask\nVmPeak:\t  900 kB\nVmHWM:\t   123 kB\nVmRSS:\t 99 kB\n";
        assert_eq!(peak_in(status), Some(123 * 1024));
        assert_eq!(peak_in("Name:\txtask\n"), None);
    }
}
