"""Runs model-written programs against tests, in containers of their own (Linux).

    trusted process ──job──► judge's container ──calls, by value──► candidate's container
                    ◄──one result a test──      ◄──plain values────

The tests and the expected values stay in the judge's container; the candidate's has the program and nothing else, so
there is nothing in its process to read, patch or lie to. Each job gets new processes, forked from ones that have
Python loaded and killed in the end. `docs/sandbox.md` says what this protects from, and what not.

Deliberately left out: programs of several processes (fork and exec fail), packages beyond the standard library, and
languages other than Python.
"""

from agapo.sandbox.container import Limits
from agapo.sandbox.executor import Job, LocalExecutor, Outcome, Result, SandboxUnavailable, problem
from agapo.sandbox.remote import RemoteExecutor

__all__ = ["Job", "Limits", "LocalExecutor", "Outcome", "RemoteExecutor", "Result", "SandboxUnavailable", "problem"]
