//! How much memory the process took.

/// The largest resident memory of this process so far, MB (10⁶ bytes): `VmHWM` of proc(5). `None`
/// where there is no `/proc`.
pub fn peak_rss_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    peak_of(&status)
}

fn peak_of(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some((kib * 1024.0 / 1e5).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_read_in_megabytes() {
        assert_eq!(peak_of("VmPeak:\t 9 kB\nVmHWM:\t  976562 kB\n"), Some(1000.0));
        assert!(peak_rss_mb().is_some_and(|mb| mb > 1.0));
    }
}
