"""Scripts that print the same in the sandbox as where a person runs them, given two lines."""

GIVEN = "one\ntwo\n"

SCRIPTS = {
    # --- ways to end ---
    "exit": "print(1)\nexit()\nprint(2)",
    "exit with a status": "print(1)\nexit(0)\nprint(2)",
    "quit": "print(1)\nquit()\nprint(2)",
    "exit in a function": "def main():\n    print(1)\n    exit()\nmain()\nprint(2)",
    "sys.exit with a text": "import sys\nprint(1)\nsys.exit('done')",
    "raise SystemExit": "print(1)\nraise SystemExit",
    "os._exit": "import os\nprint(1, flush=True)\nos._exit(0)",
    "os._exit loses what is in the buffer": "import os\nprint(1, flush=True)\nprint(2)\nos._exit(0)",
    "atexit": "import atexit\natexit.register(print, 'bye')\nprint('hi')",
    "atexit that writes all output": """
import atexit, io, os, sys
buffer = io.BytesIO()
sys.stdout.write = lambda text: buffer.write(text.encode())
atexit.register(lambda: os.write(1, buffer.getvalue()))
print(input())
""",
    "main guard": "def main():\n    print(input())\nif __name__ == '__main__':\n    main()",
    # --- ways to read and write ---
    "lines of stdin": "import sys\nfor line in sys.stdin: print(line.strip())",
    "bytes of stdin": "import sys\nprint(sys.stdin.buffer.read().split())",
    "input as a shorter name": "import sys\ninput = sys.stdin.readline\nprint(input(), input())",
    "input to its end": "while True:\n    try: print(input())\n    except EOFError: break",
    "fileinput": "import fileinput\nprint(list(fileinput.input()))",
    "open(0)": "print(*open(0))",
    "/dev/stdin": "print(open('/dev/stdin').read())",
    "/dev/stdin as stdin": "import sys\nsys.stdin = open('/dev/stdin')\nprint(input())",
    "/dev/stdin as a path": "from pathlib import Path\nprint(Path('/dev/stdin').read_text().split())",
    "/dev/stdout": "with open('/dev/stdout', 'w') as out: out.write('x')",
    "/dev/null": "import os\nprint(1, file=open(os.devnull, 'w'))\nprint(2)",
    "stdin by its other name": "import sys\nsys.__stdout__.write(sys.__stdin__.read())",
    "os.read": "import os\nprint(os.read(0, 100))",
    "stdin wrapped": """
import codecs, sys
sys.stdin = codecs.getreader('utf-8')(sys.stdin.buffer)
print(sys.stdin.readline())
""",
    "stdout wrapped": """
import io, sys
sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='utf-8')
print('é')
""",
    "stdout of one's own": """
import io, os, sys
class Out:
    kept = io.BytesIO()
    def write(self, text): self.kept.write(text.encode())
    def flush(self): os.write(1, self.kept.getvalue()); self.kept = io.BytesIO()
sys.stdout = Out()
print(input())
""",
    "stdout closed": "import sys\nprint(1)\nsys.stdout.close()",
    "a file left open": "out = open(1, 'w', closefd=False)\nout.write('x')",
    "names of the streams": """
import sys
print(sys.stdin.name, sys.stdout.name, sys.stdin.isatty(), sys.stdin.encoding)
""",
    # --- what is known of the program ---
    "sys.argv": "import sys\nprint(len(sys.argv), sys.argv[1:])",
    "argparse": """
import argparse
p = argparse.ArgumentParser()
p.add_argument('--n', default=3)
print(p.parse_args())
""",
    "__file__": "import os\nprint(__file__.endswith('.py'), os.path.isabs(os.path.abspath(__file__)))",
    "its own source": "import inspect\ndef f(): return 1\nprint(inspect.getsource(f))",
    "its own module": """
import __main__, sys
x = 3
print(__main__.x, sys.modules[__name__].x, __doc__, __spec__)
""",
    "its globals": "print(sorted(name for name in globals() if name[0] != '_'), 'heapq' in dir(__builtins__))",
    "pickle": "import pickle\nclass A: x = 1\nprint(pickle.loads(pickle.dumps(A())).x)",
    "help": "print(callable(help), 'Python' in str(copyright))",
    "an undefined name": "try: print(Counter)\nexcept NameError: print('none')",
    # --- the standard library ---
    "asyncio": """
import asyncio
async def m():
    print(await asyncio.gather(asyncio.sleep(0.01, 1)))
asyncio.run(m())
""",
    "asyncio and threads": "import asyncio\nprint(asyncio.run(asyncio.to_thread(abs, -3)))",
    "an event loop": """
import asyncio
loop = asyncio.new_event_loop()
print(loop.run_until_complete(asyncio.sleep(0, 5)))
""",
    "zoneinfo": """
from datetime import *
from zoneinfo import ZoneInfo
print(datetime(2024, 7, 1, tzinfo=ZoneInfo('Asia/Seoul')))
""",
    "tzset": "import os, time\nos.environ['TZ'] = 'Asia/Seoul'\ntime.tzset()\nprint(time.tzname)",
    "socket pair": """
import socket
a, b = socket.socketpair()
a.settimeout(1)
a.send(b'x')
print(b.recv(1))
""",
    "threads": "import threading\nt = threading.Thread(target=print, args=(1,))\nt.start()\nt.join()",
    "a timer that nobody waits for": "import threading\nthreading.Timer(0.05, print, ('x',)).start()",
    "a pool": """
from concurrent.futures import *
with ThreadPoolExecutor() as e: print(list(e.map(abs, [1, -2])))
""",
    "a pool that nobody shuts down": """
from concurrent.futures import *
e = ThreadPoolExecutor(2)
print(list(e.map(abs, [1, -2])))
""",
    "multiprocessing's pool of threads": """
from multiprocessing.pool import ThreadPool
with ThreadPool(2) as p: print(p.map(abs, [-1]))
""",
    "multiprocessing.dummy": """
from multiprocessing.dummy import Pool
with Pool(2) as p: print(p.map(abs, [-1]))
""",
    "multiprocessing's locks": """
import multiprocessing as mp
with mp.Lock(), mp.RLock() as held: print(mp.Semaphore(3).get_value(), held)
lock, pair = mp.Lock(), mp.Semaphore(2)
print(lock.acquire(), lock.acquire(timeout=0.01), lock.acquire(False))
print(pair.acquire(), pair.acquire(), pair.acquire(False))
try: mp.RLock().release()
except AssertionError: print('not mine')
lock.release()
try: lock.release()
except ValueError: print('free')
q = mp.Queue()
q.put('x')
print(q.get())
""",
    "no second process, as an ordinary error": """
import subprocess, sys
try: print(subprocess.run([sys.executable, '-c', '']).returncode and 'failed')
except OSError: print(0)
""",
    "a stack as large as it gets": """
import resource
resource.setrlimit(resource.RLIMIT_STACK, (-1, -1))
print(1)
""",
    "deep recursion": """
import sys
sys.setrecursionlimit(10**6)
def f(n): return n and 1 + f(n - 1)
print(f(100000))
""",
    "deep recursion in a thread": """
import sys, threading
sys.setrecursionlimit(10**6)
threading.stack_size(2**27)
def f(n): return n and 1 + f(n - 1)
threading.Thread(target=lambda: print(f(50000))).start()
""",
    "temporary files": """
import tempfile
with tempfile.TemporaryFile() as f:
    f.write(b'x')
    f.seek(0)
    print(f.read())
""",
    "temporary folders": """
import os, tempfile
with tempfile.TemporaryDirectory() as d:
    print(os.listdir(d))
""",
    "sqlite3": "import sqlite3\nprint(sqlite3.connect(':memory:').execute('select 1 + 1').fetchall())",
    "decimal": "from decimal import *\ngetcontext().prec = 50\nprint(Decimal(1) / 3)",
    "random with a seed": "import random\nrandom.seed(7)\nprint(random.random(), random.sample(range(99), 3))",
    "locale": """
import locale
locale.setlocale(locale.LC_ALL, 'C.UTF-8')
print(locale.format_string('%d', 5))
""",
    "an alarm": """
import signal, time
signal.signal(14, lambda *a: print('got'))
signal.setitimer(0, 0.02)
time.sleep(0.1)
""",
    "unittest": """
import unittest
class T(unittest.TestCase):
    def test(self): pass
unittest.main(exit=False)
print(1)
""",
    "doctest": """
import doctest
def f():
    '''
    >>> f()
    1
    '''
    return 1
print(doctest.testmod())
""",
}
