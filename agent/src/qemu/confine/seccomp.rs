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
fn conditional() -> Result<[(i64, Vec<SeccompRule>); 3], seccompiler::BackendError> {
    let rule = |operator, value: i64| {
        let value = value.unsigned_abs();
        let condition = SeccompCondition::new(0, SeccompCmpArgLen::Dword, operator, value)?;
        SeccompRule::new(vec![condition])
    };
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
    fn run(program: &[sock_filter], call: u32, argument: u64) -> u32 {
        let mut data = [0_u8; 64];
        data[..4].copy_from_slice(&call.to_le_bytes());
        data[4..8].copy_from_slice(&0xC000_003E_u32.to_le_bytes());
        data[16..24].copy_from_slice(&argument.to_le_bytes());
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
        let verdict = |call: i64, argument: i64| {
            let (call, argument) = (u32::try_from(call).unwrap(), argument as u64);
            let all = filters.iter().map(|f| run(f, call, argument));
            // The kernel takes the strictest: errors are below allowing.
            all.min().unwrap()
        };
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
    }
}
