//! System calls that QEMU never makes and its own `-sandbox` leaves open.
//!
//! A list of what is denied, not of what is allowed: QEMU's needs change with each
//! version and device, and its own filter is such a list too. What is here has had
//! kernel defects or reaches other processes.

use std::{collections::BTreeMap, io};

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter, sock_filter,
};

/// As if the kernel did not have them: libraries then do without.
const ABSENT: &[i64] = &[
    // Its flags cannot be looked at; C libraries fall back to clone(2).
    libc::SYS_clone3,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // One process may take the contexts of the whole host; the plan has no `aio=native`.
    libc::SYS_io_setup,
];

/// Refused whatever their arguments are.
const DENIED: &[i64] = &[
    // large and often broken parts of the kernel
    libc::SYS_bpf,
    libc::SYS_userfaultfd,
    libc::SYS_perf_event_open,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    libc::SYS_modify_ldt,
    libc::SYS_personality,
    // other processes
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_kcmp,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    // files past their paths
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_mknod,
    libc::SYS_mknodat,
    // mounts and namespaces
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
    STATMOUNT,
    LISTMOUNT,
    OPEN_TREE_ATTR,
    libc::SYS_unshare,
    libc::SYS_setns,
    // the host
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_syslog,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_vhangup,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
];

/// Numbers that the library does not have yet; new calls have one for all architectures.
const STATMOUNT: i64 = 457;
const LISTMOUNT: i64 = 458;
const OPEN_TREE_ATTR: i64 = 467;

/// What fallocate(2) may be asked for: room within the file's length, holes, zeroes. The
/// others take blocks past the end, which no limit of a file's length sees.
const FALLOCATE_MODES: [i32; 3] = [
    0,
    libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE,
    libc::FALLOC_FL_ZERO_RANGE,
];

/// Requests of ioctl(2) that are refused: linux/falloc.h, linux/if_tun.h, linux/sockios.h.
const REQUESTS: &[u32] = &[
    // fallocate by another name: FS_IOC_RESVSP, FS_IOC_RESVSP64, FS_IOC_ZERO_RANGE
    0x4030_5828,
    0x4030_582a,
    0x4030_5839,
    // The tap's: TUNSETDEBUG, TUNSETPERSIST, TUNSETOWNER, TUNSETLINK, TUNSETGROUP,
    // TUNSETCARRIER, and its MAC address (SIOCSIFHWADDR). The agent would put them back for ever.
    0x4004_54c9,
    0x4004_54cb,
    0x4004_54cc,
    0x4004_54cd,
    0x4004_54ce,
    0x4004_54e2,
    0x8924,
    // Filters of its packets, which all of the host has the memory of: TUNATTACHFILTER,
    // TUNSETSTEERINGEBPF, TUNSETFILTEREBPF
    0x4010_54d5,
    0x8004_54e0,
    0x8004_54e1,
];

/// Filters of a socket's packets (asm-generic/socket.h): SO_ATTACH_FILTER, SO_ATTACH_BPF,
/// SO_ATTACH_REUSEPORT_CBPF, SO_ATTACH_REUSEPORT_EBPF.
const SOCKET_FILTERS: [u32; 4] = [26, 50, 51, 52];

/// New namespaces, of which clone(2) makes all but this one.
const NAMESPACES: i64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as i64;

/// Puts the filter on this thread and on what it executes.
///
/// # Errors
/// When the kernel has no filters.
pub fn restrict() -> io::Result<()> {
    for program in filters()? {
        apply_filter(&program).map_err(|e| io::Error::other(format!("seccomp: {e}")))?;
    }
    Ok(())
}

/// The filters; the kernel asks all of them.
fn filters() -> io::Result<[BpfProgram; 2]> {
    let whatever = |calls: &[i64]| calls.iter().map(|&call| (call, Vec::new())).collect();
    let absent: BTreeMap<i64, Vec<SeccompRule>> = whatever(ABSENT);
    let mut denied: BTreeMap<i64, Vec<SeccompRule>> = whatever(DENIED);
    denied.extend(conditional().map_err(failed)?);
    Ok([
        compile(absent, libc::ENOSYS)?,
        compile(denied, libc::EPERM)?,
    ])
}

fn failed(e: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("seccomp: {e}"))
}

/// Refused for some arguments.
fn conditional() -> Result<[(i64, Vec<SeccompRule>); 6], seccompiler::BackendError> {
    let when = |argument, operator, value: u64| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
    };
    let rule =
        |operator, value: i64| SeccompRule::new(vec![when(0, operator, value.unsigned_abs())?]);
    let other_modes = FALLOCATE_MODES
        .iter()
        .map(|mode| when(1, SeccompCmpOp::Ne, u64::from(mode.unsigned_abs())))
        .collect::<Result<_, _>>()?;
    let requests = REQUESTS
        .iter()
        .map(|&r| SeccompRule::new(vec![when(1, SeccompCmpOp::Eq, r.into())?]))
        .collect::<Result<_, _>>()?;
    let socket = u64::from(libc::SOL_SOCKET.unsigned_abs());
    let socket_filters = SOCKET_FILTERS
        .iter()
        .map(|&option| {
            SeccompRule::new(vec![
                when(1, SeccompCmpOp::Eq, socket)?,
                when(2, SeccompCmpOp::Eq, option.into())?,
            ])
        })
        .collect::<Result<_, _>>()?;
    let other_families = || rule(SeccompCmpOp::Ne, libc::AF_UNIX.into());
    // Any one of the flags.
    let bits = (0..63).map(|bit| 1_i64 << bit);
    let namespaces = bits
        .filter(|bit| NAMESPACES & bit != 0)
        .map(|bit| rule(SeccompCmpOp::MaskedEq(bit.unsigned_abs()), bit))
        .collect::<Result<_, _>>()?;
    Ok([
        (libc::SYS_socket, vec![other_families()?]),
        (libc::SYS_socketpair, vec![other_families()?]),
        (libc::SYS_clone, namespaces),
        (libc::SYS_fallocate, vec![SeccompRule::new(other_modes)?]),
        (libc::SYS_ioctl, requests),
        (libc::SYS_setsockopt, socket_filters),
    ])
}

fn compile(rules: BTreeMap<i64, Vec<SeccompRule>>, errno: i32) -> io::Result<BpfProgram> {
    let arch = std::env::consts::ARCH.try_into().map_err(failed)?;
    let deny = SeccompAction::Errno(errno.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, deny, arch).map_err(failed)?;
    let compiled: BpfProgram = filter.try_into().map_err(failed)?;
    let mut program = no_second_numbering();
    program.extend(compiled);
    Ok(program)
}

/// x86-64 kernels may have each call under a second number (x32), which a list of
/// numbers does not name: these are refused. Other architectures are by the compiler.
fn no_second_numbering() -> BpfProgram {
    const X32: u32 = 0x4000_0000;
    let instruction = |code: u32, jt, jf, k| sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    vec![
        // seccomp_data.nr is the first word.
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, X32),
        instruction(
            libc::BPF_RET | libc::BPF_K,
            0,
            0,
            libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs(),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would do: a small interpreter of what the compiler emits.
    fn run(program: &[sock_filter], call: u32, arguments: [u64; 3]) -> u32 {
        let mut data = [0_u8; 64];
        data[..4].copy_from_slice(&call.to_le_bytes());
        data[4..8].copy_from_slice(&0xC000_003E_u32.to_le_bytes());
        for (bytes, argument) in data[16..].chunks_mut(8).zip(arguments) {
            bytes.copy_from_slice(&argument.to_le_bytes());
        }
        let (mut at, mut accumulator) = (0, 0_u32);
        loop {
            let i = &program[at];
            at += 1;
            let code = u32::from(i.code);
            let class = code & 7;
            if class == libc::BPF_LD {
                let k = i.k as usize;
                accumulator = u32::from_le_bytes(data[k..k + 4].try_into().unwrap());
            } else if class == libc::BPF_ALU {
                assert_eq!(code & 0xf0, libc::BPF_AND);
                accumulator &= i.k;
            } else if class == libc::BPF_JMP {
                let taken = match code & 0xf0 {
                    op if op == libc::BPF_JA => {
                        at += i.k as usize;
                        continue;
                    }
                    op if op == libc::BPF_JEQ => accumulator == i.k,
                    op if op == libc::BPF_JGE => accumulator >= i.k,
                    op if op == libc::BPF_JGT => accumulator > i.k,
                    other => panic!("{other:#x}"),
                };
                at += usize::from(if taken { i.jt } else { i.jf });
            } else {
                assert_eq!(class, libc::BPF_RET);
                return i.k;
            }
        }
    }

    #[test]
    fn what_the_filters_say() {
        let filters = filters().unwrap();
        let verdict_of = |call: i64, arguments: [u64; 3]| {
            let call = u32::try_from(call).unwrap();
            let all = filters.iter().map(|f| run(f, call, arguments));
            // The kernel takes the strictest: errors are below allowing.
            all.min().unwrap()
        };
        let verdict = |call: i64, argument: i64| verdict_of(call, [argument as u64, 0, 0]);
        let allow = libc::SECCOMP_RET_ALLOW;
        let errno = |e: i32| libc::SECCOMP_RET_ERRNO | e as u32;
        for call in DENIED {
            assert_eq!(verdict(*call, 0), errno(libc::EPERM), "{call}");
        }
        for call in ABSENT {
            assert_eq!(verdict(*call, 0), errno(libc::ENOSYS), "{call}");
        }
        let thread = i64::from(libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND);
        for (call, argument, expected) in [
            (libc::SYS_read, 0, allow),
            (libc::SYS_ioctl, 5, allow),
            (libc::SYS_execve, 0, allow),
            (libc::SYS_clone, thread, allow),
            (
                libc::SYS_clone,
                i64::from(libc::CLONE_NEWUSER),
                errno(libc::EPERM),
            ),
            (
                libc::SYS_clone,
                thread | i64::from(libc::CLONE_NEWNET),
                errno(libc::EPERM),
            ),
            (libc::SYS_socket, i64::from(libc::AF_UNIX), allow),
            (libc::SYS_socketpair, i64::from(libc::AF_UNIX), allow),
            (
                libc::SYS_socket,
                i64::from(libc::AF_INET),
                errno(libc::EPERM),
            ),
            (
                libc::SYS_socket,
                i64::from(libc::AF_VSOCK),
                errno(libc::EPERM),
            ),
            (
                libc::SYS_socket,
                i64::from(libc::AF_ALG),
                errno(libc::EPERM),
            ),
            (0x4000_0000 | libc::SYS_bpf, 0, errno(libc::EPERM)),
            (0x4000_0000 | libc::SYS_read, 0, errno(libc::EPERM)),
        ] {
            assert_eq!(verdict(call, argument), expected, "{call} {argument:#x}");
        }
        let eperm = errno(libc::EPERM);
        for (mode, expected) in [
            (0, allow),
            (libc::FALLOC_FL_KEEP_SIZE, eperm),
            (
                libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
                allow,
            ),
            (libc::FALLOC_FL_ZERO_RANGE, allow),
            (
                libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE,
                eperm,
            ),
            (libc::FALLOC_FL_COLLAPSE_RANGE, eperm),
        ] {
            let found = verdict_of(libc::SYS_fallocate, [7, mode as u64, 0]);
            assert_eq!(found, expected, "fallocate {mode:#x}");
        }
        for &request in REQUESTS {
            // The kernel looks at the lower half alone.
            for upper in [0, 1 << 32] {
                let found = verdict_of(libc::SYS_ioctl, [7, upper | u64::from(request), 0]);
                assert_eq!(found, eperm, "ioctl {request:#x}");
            }
        }
        // TUNSETOFFLOAD, which QEMU needs
        assert_eq!(verdict_of(libc::SYS_ioctl, [7, 0x4004_54d0, 0]), allow);
        let option = |level: i32, name: i32| {
            verdict_of(libc::SYS_setsockopt, [7, level as u64, name as u64])
        };
        assert_eq!(option(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER), eperm);
        assert_eq!(option(libc::SOL_SOCKET, libc::SO_ATTACH_BPF), eperm);
        assert_eq!(option(libc::SOL_SOCKET, libc::SO_REUSEADDR), allow);
        assert_eq!(option(libc::IPPROTO_TCP, libc::SO_ATTACH_FILTER), allow);
    }
}
