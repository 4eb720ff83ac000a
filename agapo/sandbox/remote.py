"""The sandbox on another machine, for clusters where no container can be made: a small protocol over HTTP.

    GET  /v1/health   → 200 {"problem": null}, or what keeps it from running programs
    POST /v1/run      {"job": {the fields of Job}, "limits": {the fields of Limits}} → 200 {the fields of Outcome}

Errors are `{"error": text}` with status 400 (a request that is none), 401 (a wrong token), 413 (too large) and 503 (no
container). Where AGAPO_EXECUTOR_TOKEN is set, on both sides, requests carry `Authorization: Bearer TOKEN`.
`agapo executor` is a server of it.
"""

import hmac
import ipaddress
import json
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from agapo.errors import UserError
from agapo.sandbox.container import Limits
from agapo.sandbox.executor import Job, LocalExecutor, Outcome, Result, SandboxUnavailable, problem

TOKEN = "AGAPO_EXECUTOR_TOKEN"
_ATTEMPTS = 3
_PAUSE_S = 0.5
_SLACK_S = 30.0
"""Beyond a program's own limit of time: queueing at the server."""
_MAX_REQUEST = 64 << 20


class RemoteExecutor:
    """Runs jobs at a server; may be used by several threads."""

    def __init__(self, url: str, limits: Limits | None = None):
        self.limits = limits or Limits()
        self._url = url.rstrip("/")

    def run(self, job: Job) -> Outcome:
        """Run a job. Raises SandboxUnavailable when the server cannot be reached, or has no container."""
        reason = ""
        for attempt in range(_ATTEMPTS):
            try:
                return _outcome_of(self._ask("/v1/run", {"job": asdict(job), "limits": asdict(self.limits)}))
            except (OSError, ValueError, KeyError, TypeError) as error:
                reason = _reason(error)
            threading.Event().wait(_PAUSE_S * 2**attempt)
        raise SandboxUnavailable(f"executor {self._url}: {reason}")

    def problem(self) -> str | None:
        """Return why the server cannot run programs, in one line, or None."""
        try:
            found = self._ask("/v1/health", None).get("problem")
        except (OSError, ValueError, AttributeError) as error:
            return f"the executor at {self._url} does not answer ({_reason(error)})"
        return f"the executor at {self._url} has none: {found}" if found else None

    def _ask(self, path: str, body: Any) -> Any:
        headers = {"Content-Type": "application/json"}
        if os.environ.get(TOKEN):
            headers["Authorization"] = f"Bearer {os.environ[TOKEN]}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, headers)
        with urllib.request.urlopen(request, timeout=self.limits.wall_s + _SLACK_S) as answer:
            return json.load(answer)


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        try:
            return f"status {error.code}: {json.load(error)['error']}"
        except (ValueError, KeyError, TypeError):
            return f"status {error.code}"
    return f"{type(error).__name__}: {error}"


def _outcome_of(content: Mapping[str, Any]) -> Outcome:
    results = [Result(bool(result["passed"]), str(result["detail"])) for result in content["results"]]
    return Outcome(results, content["ended"], str(content["detail"]))


def serve(host: str, port: int, slots: int) -> ThreadingHTTPServer:
    """Return a server that runs at most `slots` programs at once; `serve_forever` starts it.

    Raises UserError where it would take programs from other machines without a token.
    """
    if not _is_loopback(host) and not os.environ.get(TOKEN):
        raise UserError(f"--host {host}: other machines could run programs here; set {TOKEN} on both sides first")
    try:
        server = _Server((host, port), _Handler)
    except OSError as error:
        raise UserError(f"--port {port}: cannot listen on {host} ({error.strerror})") from None
    server.free = threading.BoundedSemaphore(slots)
    return server


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    free: threading.BoundedSemaphore


class _Handler(BaseHTTPRequestHandler):
    """Each connection has a thread, which makes its own containers."""

    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        if self.path == "/v1/health" and self._is_allowed():
            self._answer(200, {"problem": problem()})
        elif self.path != "/v1/health":
            self._answer(404, {"error": "no such path"})

    def do_POST(self) -> None:
        if self.path != "/v1/run":
            self._answer(404, {"error": "no such path"})
        elif self._is_allowed():
            self._run()

    def _run(self) -> None:
        assert isinstance(self.server, _Server)
        size = int(self.headers.get("Content-Length") or 0)
        if size > _MAX_REQUEST:
            self._answer(413, {"error": f"more than {_MAX_REQUEST} bytes"})
            return
        try:
            request = json.loads(self.rfile.read(size))
            job, limits = Job(**request["job"]), Limits(**request["limits"])
        except (ValueError, KeyError, TypeError) as error:
            self._answer(400, {"error": f"{type(error).__name__}: {error}"})
            return
        with self.server.free, LocalExecutor(limits) as executor:
            try:
                self._answer(200, asdict(executor.run(job)))
            except SandboxUnavailable as error:
                self._answer(503, {"error": str(error)})

    def _is_allowed(self) -> bool:
        wanted = f"Bearer {os.environ[TOKEN]}" if os.environ.get(TOKEN) else ""
        if not wanted or hmac.compare_digest(self.headers.get("Authorization") or "", wanted):
            return True
        self._answer(401, {"error": f"set {TOKEN} to the server's token"})
        return False

    def _answer(self, status: int, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a run has thousands of requests."""
