//! Too little memory, on purpose: a limit on the control group that this process runs in.
//!
//! `KAELIX_BENCH_CGROUP` names the group's folder, which the process must be in and may write to
//! (`scripts/run_benchmarks.sh stress` sees to it where it may). A ring that does not fit under the
//! limit is written back and dropped by the kernel, and faulted in again.

use std::fs;
use std::path::PathBuf;

/// The group's limit.
pub struct MemoryLimit {
    group: PathBuf,
    file: &'static str,
    none: &'static str,
}

impl MemoryLimit {
    /// The limit of the group that the environment names, in either version of control groups.
    pub fn of_environment() -> Option<MemoryLimit> {
        let group = PathBuf::from(std::env::var_os("KAELIX_BENCH_CGROUP")?);
        let (file, none) = [("memory.max", "max"), ("memory.limit_in_bytes", "-1")]
            .into_iter()
            .find(|(file, _)| group.join(file).exists())?;
        Some(MemoryLimit { group, file, none })
    }

    /// What the group cannot give back, and so much more.
    pub fn set(&self, more: u64) -> std::io::Result<()> {
        // What is over the limit is reclaimed by and by, once the disk has taken what is dirty: the
        // attempts of the first seconds may find it busy.
        let mut result = Ok(());
        for _ in 0..500 {
            let bytes = self.kept_bytes() + more;
            result = fs::write(self.group.join(self.file), bytes.to_string());
            if result.is_ok() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        result
    }

    /// No limit.
    pub fn lift(&self) -> std::io::Result<()> {
        fs::write(self.group.join(self.file), self.none)
    }

    /// Memory of the group's processes that no file stands behind, which includes whoever started
    /// this one, and kernel memory for them; and a little, since it moves.
    fn kept_bytes(&self) -> u64 {
        let stat = fs::read_to_string(self.group.join("memory.stat")).unwrap_or_default();
        let of = |name: &str| -> Option<u64> {
            let mut fields = stat.lines().filter_map(|line| line.split_once(' '));
            fields.find(|(field, _)| *field == name)?.1.parse().ok()
        };
        let kernel = fs::read_to_string(self.group.join("memory.kmem.usage_in_bytes"));
        let kernel = kernel.ok().and_then(|bytes| bytes.trim().parse().ok()).or(of("kernel"));
        let anonymous = of("anon").or(of("rss")).unwrap_or(64 << 20);
        let shared = of("shmem").unwrap_or(0);
        anonymous + shared + kernel.unwrap_or(0) + (8 << 20)
    }
}
