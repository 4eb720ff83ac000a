"""Programs that cheat or destroy. Each defines `f`, whose only test is `assert candidate(3) == EXPECTED`.

An attack succeeds when the program scores 1. What it could read the expected value from (the parent's environment, a
file on the host, a server on loopback) holds it, so that looking there would do.
"""

CANARY = "AGAPO_TEST_CANARY"
"""Environment variable of the parent, and the start of the name of a file in the host's /tmp, that hold the value."""

ATTACKS = {
    # --- exhausting the machine ---
    "fork bomb": "import os\nwhile True:\n    os.fork()",
    "fork bomb, errors ignored": """
import os
def f(x):
    while True:
        try: os.fork()
        except OSError: pass
""",
    "thread bomb": """
import threading, time
threading.stack_size(65536)
def f(x):
    while True: threading.Thread(target=time.sleep, args=(1000,)).start()
""",
    "memory bomb": "def f(x):\n    return len(bytearray(1 << 40))",
    "memory bomb, step by step": "def f(x):\n    a = []\n    while True: a.append(bytearray(1 << 20))",
    "memory bomb over children": """
import multiprocessing
def eat(n):
    a = []
    while True: a.append(bytearray(1 << 20))
def f(x):
    with multiprocessing.Pool(8) as pool: pool.map(eat, range(8))
""",
    "memory in pipes": """
import os
def f(x):
    ends = []
    while True:
        r, w = os.pipe(); os.set_blocking(w, False); ends.append(r)
        try:
            while True: os.write(w, bytes(65536))
        except BlockingIOError: pass
""",
    "memory in files": """
import os
def f(x):
    while True: os.write(os.memfd_create("x"), bytes(1 << 20))
""",
    "endless loop": "def f(x):\n    while True: pass",
    "endless loop while loading": "while True: pass",
    "endless loop that ignores signals": """
import signal
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
def f(x):
    while True: pass
""",
    "endless sleep": "import time\ndef f(x):\n    while True: time.sleep(1000)",
    "endless output": "import sys\ndef f(x):\n    while True: sys.stdout.write('x' * 65536)",
    "endless output to every descriptor": """
import os
def f(x):
    while True:
        for number in range(64):
            try: os.write(number, b'{' * 65536)
            except OSError: pass
""",
    "endless result": "def f(x):\n    while True: yield x",
    "huge result": "def f(x):\n    return 'x' * (1 << 29)",
    "deep result": "def f(x):\n    a = []\n    for _ in range(10**5): a = [a]\n    return a",
    "deep recursion": "import sys\nsys.setrecursionlimit(10**9)\ndef f(x):\n    return f(x + 1)",
    "deep recursion on a stack without bounds": """
import functools, resource, sys
resource.setrlimit(resource.RLIMIT_STACK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
sys.setrecursionlimit(10**9)
class A:
    def __repr__(self): return repr(self)
def f(x): return repr(A())
""",
    "huge integer": "def f(x):\n    return 9 ** 9 ** 9",
    "filling /tmp": """
def f(x):
    n = 0
    while True:
        with open(f'/tmp/{n}', 'wb') as file: file.write(bytes(1 << 20))
        n += 1
""",
    "filling /tmp with empty files": "def f(x):\n    n = 0\n    while True: open(f'/tmp/{n}', 'w'); n += 1",
    "huge program": "x = '" + "y" * (2 << 20) + "'",
    # --- the file system ---
    "deleting files": """
import os, shutil
def f(x):
    for path in ('/tmp', '/usr', '/sandbox', '/lib', os.path.expanduser('~'), '/'): shutil.rmtree(path, True)
    return 0
""",
    "writing outside /tmp": """
def f(x):
    for path in ('/etc/agapo', '/usr/lib/agapo', '/sandbox/inside/judge.py', '/agapo', '/dev/shm/agapo'):
        try: open(path, 'w').write('x'); return %r
        except OSError: pass
""",
    "patching the judge's source": """
import inside.judge as judge
def f(x):
    open(judge.__file__, 'a').write('\\n_Judge.record = lambda *a: None\\n')
""",
    "reading /etc/shadow": "def f(x):\n    return (open('/etc/shadow').read(), %r)[1]",
    "reading the host's /tmp": """
import glob
def f(x):
    return [open(name).read() for name in glob.glob('/tmp/AGAPO*')][0]
""",
    "reading the home directory": """
import os
def f(x):
    found = [name for root in ('/root', '/home', '/work') for name in os.listdir(root) if name != '.pyenv']
    return %r if found else None
""",
    "making a device": """
import os, stat
def f(x):
    os.mknod('/tmp/d', stat.S_IFBLK | 0o600, os.makedev(254, 0))
    return %r
""",
    "symbolic link out of /tmp": """
import os
def f(x):
    os.symlink('/proc/1/root', '/tmp/l')
    return (os.listdir('/tmp/l'), %r)[1]
""",
    "leaving a file for the next program": """
import os
open('/tmp/left', 'w').write('x')
os.chmod('/tmp', 0o000) if os.access('/tmp', os.W_OK) and os.stat('/tmp').st_uid == os.getuid() else None
def f(x): return 0
""",
    "reading what an earlier program left": """
import os
def f(x): return %r if os.listdir('/tmp') else None
""",
    # --- other processes ---
    "reading /proc of others": """
import os
def f(x):
    for name in os.listdir('/proc'):
        try:
            for item in open(f'/proc/{name}/environ').read().split('\\0'):
                if item.startswith('AGAPO_TEST_CANARY='): return item.split('=', 1)[1]
        except OSError: pass
""",
    "the parent's environment": "import os\ndef f(x):\n    return os.environ['AGAPO_TEST_CANARY']",
    "mounting /proc": """
import ctypes
def f(x):
    if ctypes.CDLL(None).mount(b'proc', b'/tmp', b'proc', 0, None) == 0: return %r
""",
    "killing the parent": """
import os, signal
def f(x):
    for pid in (os.getppid(), 1, -1, 0):
        try: os.kill(pid, signal.SIGKILL)
        except OSError: pass
    return 0
""",
    "killing the fork server by thread id": """
import ctypes, os
def f(x):
    libc = ctypes.CDLL(None)
    for pid in range(1, 100):
        if pid != os.getpid() and libc.syscall(234, pid, pid, 9) == 0: return %r
""",
    "killing the fork server by an owner signal": """
import fcntl, os, signal, socket
def f(x):
    a, b = socket.socketpair()
    for pid in (1, 2, os.getppid()):
        fcntl.fcntl(a, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(a, fcntl.F_SETOWN, pid)
        fcntl.fcntl(a, fcntl.F_SETFL, os.O_ASYNC)
        b.send(b'x')
    return %r
""",
    "ptrace": """
import ctypes, os
def f(x):
    libc = ctypes.CDLL(None)
    if any(libc.ptrace(request, os.getppid(), 0, 0) == 0 for request in (16, 0x4206)): return %r
""",
    "reading another process's memory": """
import ctypes
class Vector(ctypes.Structure): _fields_ = [('base', ctypes.c_void_p), ('length', ctypes.c_size_t)]
def f(x):
    buffer = ctypes.create_string_buffer(8)
    local, remote = Vector(ctypes.addressof(buffer), 8), Vector(0x400000, 8)
    for pid in range(1, 50):
        if ctypes.CDLL(None).process_vm_readv(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0) == 8: return %r
""",
    "leaving a daemon behind": """
import os, time
def f(x):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            while True: time.sleep(1)
    return %r
""",
    "running another program": """
import subprocess
def f(x):
    subprocess.Popen(['/bin/sleep', '1000'])
    return %r
""",
    "exec": "import os\nos.execv('/bin/true', ['true'])",
    "new namespaces": "import ctypes\ndef f(x):\n    return %r if ctypes.CDLL(None).unshare(0x10000000) == 0 else None",
    "becoming root": "import os\ndef f(x):\n    os.setuid(0)\n    return %r",
    "input and output rings": """
import ctypes
def f(x):
    return %r if ctypes.CDLL(None).syscall(425, 8, bytes(120)) >= 0 else None
""",
    "32-bit system calls": """
import ctypes, mmap
code = bytes([0xb8, 20, 0, 0, 0, 0xcd, 0x80, 0xc3])  # mov eax, getpid; int 0x80; ret
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(code)
def f(x):
    if ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))() > 0: return %r
""",
    "shared memory for the next program": """
import ctypes
def f(x):
    return %r if ctypes.CDLL(None).shmget(77, 4096, 0o1666) >= 0 else None
""",
    # --- the network ---
    "asking a server on loopback": """
import socket
def f(x):
    with socket.create_connection(('127.0.0.1', PORT), timeout=1) as server: return server.recv(100).decode()
""",
    "asking a server outside": """
import socket
def f(x):
    with socket.create_connection(('1.1.1.1', 53), timeout=1): return %r
""",
    "a server by its socket in the file system": """
import socket
def f(x):
    with socket.socket(socket.AF_UNIX) as s:
        for path in ('/run/docker.sock', '/var/run/docker.sock', '\\0agapo'):
            try: s.connect(path); return %r
            except FileNotFoundError: pass
""",
    "talking to the kernel": """
import socket
def f(x):
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
    return %r
""",
    # --- cheating the tests ---
    "leaving before the tests": "import sys\nsys.exit(0)",
    "leaving at once before the tests": "import os\nos._exit(0)",
    "leaving in a test": "import os\ndef f(x):\n    os._exit(0)",
    "leaving in a test, politely": "def f(x):\n    raise SystemExit(0)",
    "raising what a test might swallow": "def f(x):\n    raise StopIteration",
    "a lying __eq__": """
class Everything:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
def f(x): return Everything()
""",
    "a lying string": """
class Text(str):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    __hash__ = str.__hash__
def f(x): return Text('')
""",
    "a lying class": """
class Meta(type):
    def __eq__(self, other): return True
    __hash__ = type.__hash__
class f(metaclass=Meta):
    def __init__(self, x): pass
    def __new__(cls, x): return cls
""",
    "a class that says it is Python's": """
class Meta(type):
    def __eq__(self, other): return True
    def __hash__(self): return hash(str)
class Text(metaclass=Meta):
    __name__ = 'str'
    def __eq__(self, other): return True
def f(x): return Text
""",
    "a lying __bool__ and comparison": """
class Yes:
    def __bool__(self): return True
    def __getattr__(self, name): return lambda *a: True
    __lt__ = __gt__ = __le__ = __ge__ = __eq__ = __contains__ = lambda *a: True
f = lambda x: Yes()
""",
    "patching builtins": """
import builtins
builtins.bool = builtins.all = builtins.any = lambda *a: True
builtins.AssertionError = type('AssertionError', (Exception,), {})
def bool(x): return True
def __assert__(*a): pass
def f(x): return 1
""",
    "patching unittest": """
import unittest
unittest.TestCase.assertEqual = lambda *a: None
unittest.TestCase.run = lambda *a: None
def check(candidate): pass
def f(x): return 1
""",
    "patching the wire": """
from inside import wire
wire.encode = lambda value, handle: {'h': 0}
wire.decode = lambda content, handle: None
def f(x): return 1
""",
    "forging results on the wire": """
import os, json, struct
def f(x):
    for message in ({'passed': True, 'detail': ''}, {'finished': True}, {'broken': 'x'}, {'value': True}):
        content = json.dumps(message).encode()
        for number in range(3, 64):
            try: os.write(number, struct.pack('>I', len(content)) + content)
            except OSError: pass
    os._exit(0)
""",
    "answering with a bomb": """
import os, struct
def f(x):
    for number in range(3, 64):
        try:
            os.write(number, struct.pack('>I', 8 << 20) + b'[' * 65000)
            while True: os.write(number, b'[' * 65000)
        except OSError: pass
""",
    "a value that is evaluated": """
from inside import wire
wire.encode = lambda value, handle: {'T': 'eval'}
def f(x): return 1
""",
    "leaving without waiting, as scripts may": "import os, atexit\natexit.register(lambda: os._exit(0))\nos._exit(0)",
    "a link that does not wait": """
import fcntl, os, struct, termios
def f(x):
    for number in range(64):
        try: fcntl.ioctl(number, 0x5421, struct.pack('i', 1))
        except OSError: pass
    return 0
""",
    "unknown and malformed values": """
from inside import wire
wire.encode = lambda value, handle: {'h': -1, 'd': 3}
def f(x): return 1
""",
    "expected values through frames": """
import sys, gc
def f(x):
    frame, found = sys._getframe(), []
    while frame:
        found += [v for v in (*frame.f_locals.values(), *frame.f_globals.values()) if isinstance(v, str)]
        frame = frame.f_back
    return next((v for v in found if v.startswith('EXPECTED-')), None)
""",
    "expected values through gc": """
import gc
def f(x):
    for item in gc.get_objects():
        values = item.values() if type(item) is dict else item if type(item) in (list, tuple) else ()
        for value in list(values):
            if type(value) is str and value.startswith('EXPECTED-'): return value
""",
    "expected values through the memory": """
import ctypes, gc, re
def f(x):
    strings = [r for item in gc.get_objects() for r in gc.get_referents(item) if type(r) is str and len(r) < 200]
    for pool in {id(text) & ~0x3fff for text in strings}:  # Python's allocator has pools of 16 KiB
        found = re.search(rb'EXPECTED-[0-9a-f]{11}', ctypes.string_at(pool, 0x4000))
        if found: return found[0].decode()
""",
    "expected values through files": """
import os
def f(x):
    for root, _, names in os.walk('/'):
        if root.startswith(('/usr', '/lib', '/root')): continue
        for name in names:
            try:
                text = open(os.path.join(root, name), errors='ignore').read(1 << 20)
                if 'EXPECTED-' in text: return text[text.index('EXPECTED-'):][:20]
            except OSError: pass
""",
    "expected values by asking again": """
def f(x):
    import inside.candidate as c
    return getattr(c, '_last_expected', None) or [o for o in vars(c).values() if isinstance(o, str)]
""",
}
