"""The system-call filter: what a Python program needs to compute, and nothing else (seccomp, Linux).

An allow list: opening and reading what is mounted, memory, time, threads. What is not on it fails with EPERM, among
it fork and execve (a candidate is one process, so it can leave nothing behind), sockets other than a socket pair,
ptrace, kill, mount, unshare, keyctl, bpf, io_uring, memfd_create and System V shared memory.

Reference: seccomp(2); the numbers are those of the kernel's headers, `asm/unistd_64.h` and `asm-generic/unistd.h`.
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterable

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE3 = {"x86_64": 435, "aarch64": 435}
_IOCTL = {"x86_64": 16, "aarch64": 29}
_PRCTL = {"x86_64": 157, "aarch64": 167}
_FCNTL = {"x86_64": 72, "aarch64": 25}
_TGKILL = {"x86_64": 234, "aarch64": 131}
_PRLIMIT = {"x86_64": 302, "aarch64": 261}
_CLONE_THREAD = 0x10000
_HARMLESS_IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX: what `open`, `isatty` and `asyncio` ask."""
_SIGNALLING_FCNTLS = (8, 10, 15)
"""F_SETOWN, F_SETSIG, F_SETOWN_EX: they have the kernel signal whom one likes."""
_HARMLESS_PRCTLS = (15, 16, 0x53564D41)
"""PR_SET_NAME, PR_GET_NAME, PR_SET_VMA (names of threads and of memory areas)."""

# name x86_64 aarch64; a dash where an architecture lacks the call.
_ALLOWED = """
read 0 63; write 1 64; readv 19 65; writev 20 66
pread64 17 67; pwrite64 18 68; preadv 295 69; pwritev 296 70
open 2 -; openat 257 56; close 3 57; close_range 436 436
stat 4 -; fstat 5 80; lstat 6 -; newfstatat 262 79
statx 332 291; lseek 8 62; mmap 9 222; mprotect 10 226
munmap 11 215; brk 12 214; mremap 25 216; madvise 28 233
msync 26 227; rt_sigaction 13 134; rt_sigprocmask 14 135; rt_sigreturn 15 139
rt_sigtimedwait 128 137; rt_sigpending 127 136; sigaltstack 131 132; access 21 -
faccessat 269 48; faccessat2 439 439; pipe 22 -; pipe2 293 59
socketpair 53 199; select 23 -; pselect6 270 72; poll 7 -
ppoll 271 73; epoll_create 213 -; epoll_create1 291 20; epoll_ctl 233 21
epoll_wait 232 -; epoll_pwait 281 22; eventfd2 290 19; dup 32 23
dup2 33 -; dup3 292 24; nanosleep 35 101
clock_nanosleep 230 115; clock_gettime 228 113; clock_getres 229 114; gettimeofday 96 169
time 201 -; times 100 153; alarm 37 -; setitimer 38 103
getitimer 36 102; pause 34 -; getpid 39 172; getppid 110 173
gettid 186 178; getuid 102 174; geteuid 107 175; getgid 104 176
getegid 108 177; getgroups 115 158; getresuid 118 148; getresgid 120 150
getpgrp 111 -; getpgid 121 155; getsid 124 156; getrandom 318 278
futex 202 98; set_robust_list 273 99; get_robust_list 274 100; rseq 334 293
sched_yield 24 124; sched_getaffinity 204 123; sched_getparam 143 121; sched_getscheduler 145 120
getcpu 309 168; membarrier 324 283; exit 60 93; exit_group 231 94
getcwd 79 17; chdir 80 49; fchdir 81 50; mkdir 83 -
mkdirat 258 34; rmdir 84 -; unlink 87 -; unlinkat 263 35
rename 82 -; renameat 264 38; renameat2 316 276; truncate 76 45
ftruncate 77 46; chmod 90 -; fchmod 91 52; fchmodat 268 53
getdents64 217 61; readlink 89 -; readlinkat 267 78; symlink 88 -
symlinkat 266 36; link 86 -; linkat 265 37; fsync 74 82
fdatasync 75 83; flock 73 32; utimensat 280 88; umask 95 166
uname 63 160; getrlimit 97 163; getrusage 98 165
sysinfo 99 179; wait4 61 260; waitid 247 95
arch_prctl 158 -; set_tid_address 218 96; restart_syscall 219 128; statfs 137 43
fstatfs 138 44; recvfrom 45 207; sendto 44 206; recvmsg 47 212
sendmsg 46 211; shutdown 48 210; getsockname 51 204; getsockopt 55 209
setsockopt 54 208
"""

# --- the filter, as classic BPF ---

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_KILL, _ALLOW, _FAIL = 0x80000000, 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT, _SECOND_ARGUMENT = 0, 4, 16, 24
_X32 = 0x40000000


def is_supported() -> bool:
    """Whether there is a table for this processor."""
    return platform.machine() in _ARCHITECTURES


def allowed_numbers(machine: str) -> dict[str, int]:
    """Return the numbers of the calls that are allowed whatever their arguments."""
    column = 1 if machine == "x86_64" else 2
    rows = (entry.split() for line in _ALLOWED.split("\n") for entry in line.split(";") if entry.strip())
    return {row[0]: int(row[column]) for row in rows if row[column] != "-"}


def program(machine: str, process: int) -> bytes:
    """Return the filter as `struct sock_filter`s; `process` is the one process that may be signalled."""
    steps = [_step(_LOAD, _ARCHITECTURE), _step(_EQUAL, _ARCHITECTURES[machine], 1, 0), _step(_RETURN, _KILL)]
    steps += [_step(_LOAD, _NUMBER), _step(_AT_LEAST, _X32, 0, 1), _step(_RETURN, _KILL)]
    for number in allowed_numbers(machine).values():
        steps += _when(number, [_step(_RETURN, _ALLOW)])
    thread = [_step(_LOAD, _FIRST_ARGUMENT), _step(_ANY_BIT, _CLONE_THREAD, 0, 1), _step(_RETURN, _ALLOW)]
    steps += _when(_CLONE[machine], [*thread, _step(_RETURN, _FAIL | errno.EPERM)])
    # glibc asks by clone3 first and falls back to clone, whose flags a filter can see.
    steps += _when(_CLONE3[machine], [_step(_RETURN, _FAIL | errno.ENOSYS)])
    steps += _when(_IOCTL[machine], _only(_SECOND_ARGUMENT, _HARMLESS_IOCTLS, errno.ENOTTY))
    steps += _when(_PRCTL[machine], _only(_FIRST_ARGUMENT, _HARMLESS_PRCTLS, errno.EPERM))
    steps += _when(_TGKILL[machine], _only(_FIRST_ARGUMENT, (process,), errno.EPERM))
    steps += _when(_PRLIMIT[machine], _only(_FIRST_ARGUMENT, (0, process), errno.EPERM))
    refused = [step for value in _SIGNALLING_FCNTLS for step in _when(value, [_step(_RETURN, _FAIL | errno.EPERM)])]
    steps += _when(_FCNTL[machine], [_step(_LOAD, _SECOND_ARGUMENT), *refused, _step(_RETURN, _ALLOW)])
    return b"".join([*steps, _step(_RETURN, _FAIL | errno.EPERM)])


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)


def _when(number: int, then: list[bytes]) -> list[bytes]:
    return [_step(_EQUAL, number, 0, len(then)), *then]


def _only(argument: int, values: Iterable[int], otherwise: int) -> list[bytes]:
    checks = [step for value in values for step in _when(value, [_step(_RETURN, _ALLOW)])]
    return [_step(_LOAD, argument), *checks, _step(_RETURN, _FAIL | otherwise)]


class _Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_char_p)]


def install() -> None:
    """Put the filter on this process, for good. Raises OSError."""
    steps = program(platform.machine(), os.getpid())
    libc = ctypes.CDLL(None, use_errno=True)
    own = _Filter(len(steps) // 8, steps)
    no_new_privileges = libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS, without which the kernel refuses
    if no_new_privileges or libc.prctl(22, 2, ctypes.byref(own), 0, 0):  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
        raise OSError(ctypes.get_errno(), f"seccomp: {os.strerror(ctypes.get_errno())}")
