//! What the daemon asks of the kernel and the machine, apart from its connections.

use crate::error::Error;
use mutirao_wire::Tick;
use rustix::time::{ClockId, clock_gettime};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{IntoRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Now, on a clock that also counts suspended time.
pub(crate) fn now() -> Tick {
    let time = clock_gettime(ClockId::Boottime);
    Tick(time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000)
}

/// Milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |span| span.as_millis() as u64)
}

/// Fills an array with random bytes.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        let flags = rustix::rand::GetRandomFlags::empty();
        filled +=
            rustix::rand::getrandom(&mut bytes[filled..], flags).map_err(Error::kernel("random numbers"))?;
    }
    Ok(bytes)
}

/// Where the signal handler writes; -1 before there is one.
static END_PIPE: AtomicI32 = AtomicI32::new(-1);

#[allow(unsafe_code)]
extern "C" fn on_end_signal(_signal: libc::c_int) {
    let fd = END_PIPE.load(Ordering::Relaxed);
    // SAFETY: only functions that are safe in a signal handler are called; the descriptor is never
    // closed once stored, the byte outlives the call, and errno is left as it was found.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        libc::write(fd, [1_u8].as_ptr().cast(), 1);
        *errno = before;
    }
}

/// A descriptor that becomes readable when SIGTERM or SIGINT came, in whatever thread. They no
/// longer end this process; programs it executes are not affected.
#[allow(unsafe_code)]
pub(crate) fn end_signals() -> Result<OwnedFd, Error> {
    let flags = rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK;
    let (reader, writer) = rustix::pipe::pipe_with(flags).map_err(Error::kernel("a pipe for signals"))?;
    END_PIPE.store(writer.into_raw_fd(), Ordering::Relaxed); // open until the process ends
    for signal in [libc::SIGTERM, libc::SIGINT] {
        // SAFETY: an all-zero sigaction is valid (no flags, empty mask); the handler is a function
        // with the signature that belongs to a handler without SA_SIGINFO.
        let result = unsafe {
            let mut action: libc::sigaction = core::mem::zeroed();
            action.sa_sigaction = on_end_signal as *const () as libc::sighandler_t;
            action.sa_flags = libc::SA_RESTART;
            libc::sigaction(signal, &action, core::ptr::null_mut())
        };
        if result != 0 {
            return Err(Error::kernel("a handler for signals")(io::Error::last_os_error()));
        }
    }
    Ok(reader)
}

/// The version of the C library that programs on this machine share.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
pub(crate) fn libc_version() -> Option<(u16, u16)> {
    // SAFETY: the function returns a pointer to a string that lives as long as the process.
    let text = unsafe { core::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) };
    let (major, minor) = text.to_str().ok()?.split_once('.')?;
    Some((major.parse().ok()?, minor.split('.').next()?.parse().ok()?))
}

/// The version of the C library that programs on this machine share: not known to this build.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn libc_version() -> Option<(u16, u16)> {
    None
}

/// Minutes since Monday, midnight, by this machine's clock and time zone.
#[allow(unsafe_code)]
pub(crate) fn minute_of_week() -> u16 {
    let now = (unix_ms() / 1000) as libc::time_t;
    // SAFETY: an all-zero `tm` is valid, and both pointers are to live objects of the right type.
    let local = unsafe {
        let mut local: libc::tm = core::mem::zeroed();
        libc::localtime_r(&now, &mut local);
        local
    };
    let day = (local.tm_wday + 6).rem_euclid(7);
    (day * 24 * 60 + local.tm_hour * 60 + local.tm_min) as u16
}

/// Load average over one minute, hundredths.
pub(crate) fn load_centi() -> u32 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: f64 = text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0.0);
    (load * 100.0) as u32
}

/// Memory this process holds resident, KiB.
pub(crate) fn resident_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    kib_of(&text, "VmRSS:")
}

/// What a file of `/proc` says after `label`, KiB; 0 if it says nothing.
pub(crate) fn kib_of(text: &str, label: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(label));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The memory there is for this process, MiB: the machine's, or what its cgroups (of version 2) leave.
pub(crate) fn memory_mib() -> u32 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let machine = kib_of(&text, "MemTotal:") * 1024;
    let cgroups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let bytes =
        cgroup_memory(Path::new("/sys/fs/cgroup"), &cgroups).map_or(machine, |most| most.min(machine));
    (bytes >> 20).min(u32::MAX.into()) as u32
}

/// The least `memory.max` of the cgroup and those around it, bytes.
fn cgroup_memory(mount: &Path, cgroups: &str) -> Option<u64> {
    let own = cgroups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let limit = |cgroup: &Path| {
        let text = std::fs::read_to_string(mount.join(cgroup).join("memory.max")).ok()?;
        text.trim().parse::<u64>().ok()
    };
    Path::new(own).ancestors().filter_map(limit).min()
}

/// The beginning of `text` of at most `bytes_max` bytes.
pub(crate) fn shortened(mut text: String, bytes_max: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes_max));
    text
}

/// The name of a user, or `uid` and the number for one that `/etc/passwd` does not know.
pub fn user_name(uid: u32) -> String {
    let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found = text.lines().find_map(|line| {
        let mut words = line.split(':');
        let name = words.next()?;
        (words.nth(1)?.parse() == Ok(uid)).then_some(name)
    });
    // `@` separates user and node.
    found.filter(|name| !name.is_empty() && !name.contains('@')).map_or(format!("uid{uid}"), str::to_owned)
}

/// The addresses others can reach a listener on any address by: the one used towards the network
/// first, then the others; loopback only when there is nothing else.
pub(crate) fn reachable(port: u16, ipv6: bool) -> Vec<SocketAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    // Connecting a datagram socket sends nothing; it makes the kernel choose the address.
    let mut probe = |local: &str, remote: &str| {
        let address = UdpSocket::bind(local).and_then(|socket| {
            socket.connect(remote)?;
            socket.local_addr()
        });
        found.extend(address.map(|address| address.ip()).ok());
    };
    probe("0.0.0.0:0", "192.0.2.1:9");
    if ipv6 {
        probe("[::]:0", "[2001:db8::1]:9");
    }
    let trie = std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let mut last: Option<Ipv4Addr> = None;
    for line in trie.lines() {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse().ok();
        } else if line == "/32 host LOCAL" {
            found.extend(last.take().map(IpAddr::V4));
        }
    }
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for ip in found.into_iter().filter(|ip| !ip.is_loopback() && !ip.is_unspecified()) {
        let address = SocketAddr::new(ip, port);
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        addresses.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
    }
    addresses.truncate(mutirao_wire::limits::ADDRESSES_MAX);
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_forward() {
        let before = now();
        assert!(now() >= before && before > Tick(0));
    }

    #[test]
    fn the_tightest_cgroup_around_a_process_bounds_its_memory() {
        let mount = tempfile::tempdir().unwrap();
        let inner = mount.path().join("batch/job");
        std::fs::create_dir_all(&inner).unwrap();
        let most = || cgroup_memory(mount.path(), "1:cpu:/x\n0::/batch/job\n");
        assert_eq!(most(), None);
        std::fs::write(inner.join("memory.max"), "max\n").unwrap();
        assert_eq!(most(), None);
        std::fs::write(mount.path().join("batch/memory.max"), "1048576\n").unwrap();
        assert_eq!(most(), Some(1 << 20));
        std::fs::write(inner.join("memory.max"), "4096\n").unwrap();
        assert_eq!(most(), Some(4096));
    }

    #[test]
    fn a_week_has_so_many_minutes() {
        assert!(minute_of_week() < 7 * 24 * 60);
    }

    #[test]
    fn the_superuser_has_a_name_and_others_a_number() {
        assert_eq!(user_name(0), "root");
        assert_eq!(user_name(4_000_000_000), "uid4000000000");
    }

    #[test]
    fn a_machine_can_be_reached_somehow() {
        let addresses = reachable(7700, true);
        assert!(!addresses.is_empty());
        assert!(addresses.iter().all(|address| address.port() == 7700 && !address.ip().is_unspecified()));
    }
}
