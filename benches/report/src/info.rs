//! The machine, as far as it matters for a measurement, and what would spoil one.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::text;

/// What a line says, and whether it is a warning.
pub struct Fact {
    pub name: &'static str,
    pub value: String,
    pub warning: Option<String>,
}

fn fact(name: &'static str, value: impl Into<String>) -> Fact {
    Fact { name, value: value.into(), warning: None }
}

impl Fact {
    fn warn_if(mut self, condition: bool, warning: &str) -> Fact {
        self.warning = condition.then(|| warning.to_owned());
        self
    }
}

/// All facts, for logs in `dir`.
pub fn facts(dir: &Path) -> Vec<Fact> {
    let mut facts = vec![processor(), cores(), frequency(), load(), memory(), kernel()];
    facts.extend(disk(dir));
    facts.extend(page_cache());
    facts
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// The value of a line `name: value` or `name value`.
fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line[name.len()..].trim_start_matches([' ', '\t', ':']).trim().to_owned())
}

fn processor() -> Fact {
    let text = read("/proc/cpuinfo");
    let model = field(&text, "model name").unwrap_or_else(|| "unknown".to_owned());
    let flags = field(&text, "flags").unwrap_or_default();
    let is_guest = flags.split(' ').any(|flag| flag == "hypervisor");
    let guest = if is_guest { ", a virtual machine" } else { "" };
    fact("processor", format!("{model}{guest}"))
        .warn_if(is_guest, "other guests share the host: believe ratios to a floor of the same run")
}

fn cores() -> Fact {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    fact("cores", cores.to_string()).warn_if(
        cores < 4,
        "producers, janitor and flusher share them: curves over threads are flat",
    )
}

fn frequency() -> Fact {
    let governor = read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
    if governor.is_empty() {
        return fact("frequency", "not ours to know");
    }
    let slow = governor != "performance";
    fact("frequency", governor).warn_if(slow, "the clock follows the load: set `performance`")
}

fn load() -> Fact {
    let text = read("/proc/loadavg");
    let load: f64 = text.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0);
    fact("load", text::number(load))
        .warn_if(load > 0.3, "something else is running: single times mean nothing")
}

fn memory() -> Fact {
    let text = read("/proc/meminfo");
    let gib = |name: &str| {
        let kib = field(&text, name).and_then(|value| value.split(' ').next()?.parse::<f64>().ok());
        kib.unwrap_or(0.0) / f64::from(1 << 20)
    };
    let (total, free) = (gib("MemTotal"), gib("MemAvailable"));
    let value =
        format!("{total:.1} GiB, {free:.1} of them available, {:.1} swap", gib("SwapTotal"));
    fact("memory", value).warn_if(free < 4.0, "a ring of 1 GiB and its floor may not stay cached")
}

fn kernel() -> Fact {
    let release = read("/proc/sys/kernel/osrelease");
    let pages = read("/sys/kernel/mm/transparent_hugepage/enabled");
    let chosen = pages.split(['[', ']']).nth(1).unwrap_or("unknown").to_owned();
    fact("kernel", format!("Linux {release}, transparent huge pages: {chosen}"))
}

/// The file system under `dir`, and what is under that.
fn disk(dir: &Path) -> Vec<Fact> {
    let output = Command::new("findmnt")
        .args(["--noheadings", "--output", "FSTYPE,SOURCE,OPTIONS", "--target"])
        .arg(dir)
        .output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    let mut words = text.split_whitespace();
    let (kind, source) = (words.next().unwrap_or("unknown"), words.next().unwrap_or(""));
    let remote = ["nfs", "nfs4", "cifs", "9p", "fuse", "overlay"].contains(&kind);
    let mut facts = vec![match kind {
        "tmpfs" | "ramfs" => fact("file system", format!("{kind} under {}", dir.display()))
            .warn_if(true, "it is memory: nothing durable is measured; name another with TMPDIR"),
        _ => fact("file system", format!("{text} under {}", dir.display()))
            .warn_if(remote, "another machine or layer decides what a sync means"),
    }];
    let device = source.rsplit('/').next().unwrap_or("");
    if let Some(queue) = queue_of(device) {
        let setting = |name: &str| read(queue.join(name));
        let scheduler = setting("scheduler");
        let scheduler = scheduler.split(['[', ']']).nth(1).unwrap_or(&scheduler);
        let cache = setting("write_cache");
        let kind = if setting("rotational") == "1" { "rotating" } else { "not rotating" };
        facts.push(
            fact("disk", format!("{device}, {kind}, cache: {cache}, scheduler: {scheduler}"))
                .warn_if(
                    cache == "write through",
                    "no volatile cache, or none that it admits: \
                         a sync costs no flush here",
                ),
        );
    }
    facts
}

/// Where the settings of a device or of the disk that it is a part of are.
fn queue_of(device: &str) -> Option<std::path::PathBuf> {
    if device.is_empty() {
        return None;
    }
    let block = fs::canonicalize(Path::new("/sys/class/block").join(device)).ok()?;
    [block.join("queue"), block.parent()?.join("queue")].into_iter().find(|queue| queue.is_dir())
}

fn page_cache() -> Vec<Fact> {
    let setting = |name: &str| read(Path::new("/proc/sys/vm").join(name));
    let dirty = format!(
        "written back from {} % of memory, producers held at {} %, or after {} s",
        setting("dirty_background_ratio"),
        setting("dirty_ratio"),
        setting("dirty_expire_centisecs").parse().unwrap_or(0) / 100,
    );
    let meminfo = read("/proc/meminfo");
    let pending = field(&meminfo, "Dirty").and_then(|v| v.split(' ').next()?.parse().ok());
    let pending: f64 = pending.unwrap_or(0.0) / 1024.0;
    vec![
        fact("dirty pages", dirty),
        fact("to be written", format!("{pending:.0} MiB"))
            .warn_if(pending > 256.0, "the disk is busy with what others wrote: wait, or `sync`"),
    ]
}

/// All of it, for a terminal.
pub fn print(facts: &[Fact]) -> String {
    let mut text = String::new();
    for Fact { name, value, warning } in facts {
        text.push_str(&format!("{name:<14} {value}\n"));
        if let Some(warning) = warning {
            text.push_str(&format!("{:<14} warning: {warning}\n", ""));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_name() {
        let text = "model name\t: A processor\nMemTotal:       16 kB\n";
        assert_eq!(field(text, "model name").as_deref(), Some("A processor"));
        assert_eq!(field(text, "MemTotal").as_deref(), Some("16 kB"));
        assert_eq!(field(text, "missing"), None);
    }

    #[test]
    fn every_machine_has_facts() {
        let text = print(&facts(Path::new("/")));
        assert!(text.contains("processor") && text.contains("file system"), "{text}");
    }
}
