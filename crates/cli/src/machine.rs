//! What the machine at hand is called, and what it can do.

use std::path::Path;
use std::time::Instant;

use cleandift::engine::cpu::Processor;
use sysinfo::System;

use crate::failure::Failure;

/// Rounds of the chains of multiply-adds in one task: about a millisecond.
pub const ROUNDS: usize = 1 << 19;

/// Tasks for each thread: several, so that a thread that was late does not decide.
pub const TASKS: usize = 8;

/// Multiply-adds a second of so many tasks, as fast as the processor can make them.
pub fn multiply_adds(processor: &Processor, tasks: usize, rounds: usize) -> f64 {
    let begun = Instant::now();
    let done = processor.install(|| processor.kernels().multiply_adds(tasks, rounds));
    done as f64 / begun.elapsed().as_secs_f64()
}

/// Bytes of a gibibyte.
pub const GIB: f64 = (1u64 << 30) as f64;

/// The processor's name.
pub fn processor() -> String {
    let mut system = System::new();
    system.refresh_cpu_all();
    let name = system.cpus().first().map(|cpu| cpu.brand().trim());
    let name = name.filter(|name| !name.is_empty());
    name.unwrap_or("unknown").to_owned()
}

/// The sets that kernels use, or may use one day.
pub fn instructions() -> Vec<&'static str> {
    let mut found = Vec::new();
    macro_rules! look_for {
        ($detect:ident: $($name:tt)*) => {
            $(if std::arch::$detect!($name) { found.push($name) })*
        };
    }
    #[cfg(target_arch = "x86_64")]
    look_for!(is_x86_feature_detected: "sse4.2" "avx" "avx2" "fma" "f16c" "avxvnni" "avx512f"
        "avx512bw" "avx512dq" "avx512vl" "avx512vnni" "avx512bf16" "avx512fp16");
    #[cfg(target_arch = "aarch64")]
    look_for!(is_aarch64_feature_detected: "neon" "fp16" "dotprod" "bf16" "i8mm" "sve" "sve2");
    found
}

/// What makes features need less memory.
pub const SMALLER_FEATURES: &str = "take a smaller --size, fewer pictures at once";

/// Memory that a new process can have, swap included, within the limits of a container.
pub fn available_memory() -> u64 {
    let mut system = System::new();
    system.refresh_memory();
    let machine = system.available_memory() + system.free_swap();
    match system.cgroup_limits() {
        // Not `free_memory`, which takes files that the system keeps in memory for used.
        Some(limits) if limits.total_memory > 0 => {
            machine.min(limits.total_memory.saturating_sub(limits.rss) + limits.free_swap)
        }
        _ => machine,
    }
}

/// Fails if so many bytes are not available, and says what to do.
pub fn check_memory(needed: usize, available: u64, remedy: &str) -> Result<(), Failure> {
    if needed as u64 <= available {
        return Ok(());
    }
    Err(Failure::new(format!(
        "this needs {:.1} GiB of memory, {:.1} GiB are available: {remedy}, or close other programs",
        needed as f64 / GIB,
        available as f64 / GIB
    )))
}

/// Free bytes on the disk of a path, be it there or not, if they are known.
pub fn free_disk(path: &Path) -> Option<u64> {
    let absolute = std::path::absolute(path).ok()?;
    let present = absolute.ancestors().find(|folder| folder.exists())?;
    free_at(present)
}

/// The system's answer for the path itself: lists of disks leave those in memory out.
#[cfg(unix)]
fn free_at(path: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(path).ok()?;
    found.f_bavail.checked_mul(found.f_frsize)
}

#[cfg(not(unix))]
fn free_at(path: &Path) -> Option<u64> {
    let disks = sysinfo::Disks::new_with_refreshed_list();
    let on = disks
        .iter()
        .filter(|disk| path.starts_with(disk.mount_point()));
    on.max_by_key(|disk| disk.mount_point().as_os_str().len())
        .map(|disk| disk.available_space())
}

/// The most memory that this process has had so far, in bytes: since its start on Linux, elsewhere
/// what it has now.
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status");
    let kibibytes = status.ok().and_then(|status| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    });
    kibibytes.map(|count| count * 1024).or_else(resident_memory)
}

/// The memory that this process has now, in bytes.
pub fn resident_memory() -> Option<u64> {
    let id = sysinfo::get_current_pid().ok()?;
    let mut system = System::new();
    system.refresh_processes(sysinfo::ProcessesToUpdate::Some(&[id]), false);
    Some(system.process(id)?.memory())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_memory_is_refused_with_both_numbers() {
        assert!(check_memory(6 << 30, 6 << 30, "wait").is_ok());
        let error = check_memory(6 << 30, 4 << 30, "wait")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("6.0 GiB") && error.contains("4.0 GiB"),
            "{error}"
        );
    }
}
