"""A tiny OpenAI-compatible server on loopback, with programmable trouble: `python -m tests.fakes.openai_server`.

By default it judges: the reply ends with CORRECT where the reference answer stands in the response, by plain search.
"""

import argparse
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[[str], Any]
"""From the prompt to the reply's text, or to an HTTP status, or to raw bytes."""


def judging(prompt: str) -> str:
    """Correct where the reference answer is in the response; a score of the response's length."""
    response = re.search(r"=== (\w{16}) ===\n(.*)\n=== \1 ===", prompt, re.DOTALL)
    text = response[2] if response else ""
    if "SCORE: N" in prompt:
        return f"Fair enough.\nSCORE: {min(10, 1 + len(text) // 10)}"
    reference = re.search(r"Reference answer:\n(.*?)\n\n", prompt, re.DOTALL)
    right = bool(reference and reference[1].strip() and reference[1].strip().lower() in text.lower())
    return f"I compared them.\nVERDICT: {'CORRECT' if right else 'WRONG'}"


class FakeServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, reply: Reply = judging, port: int = 0, key: str = "", delay_s: float = 0.0):
        super().__init__(("127.0.0.1", port), _Handler)
        self.reply, self.key, self.delay_s = reply, key, delay_s
        self.prompts: list[str] = []
        self.running = self.most_running = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: FakeServer  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        self._answer(200, {"object": "list", "data": [{"id": "judge", "object": "model"}]}) if self._allowed() else None

    def do_POST(self) -> None:
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._allowed():
            return
        prompt = content["messages"][-1]["content"]
        with self._counted(prompt):
            time.sleep(self.server.delay_s)
            reply = self.server.reply(prompt)
        if isinstance(reply, bytes):
            self.wfile.write(reply)
        elif isinstance(reply, int):
            self._answer(reply, {"error": {"message": f"trouble, and your key is {self.server.key}"}})
        else:
            message = {"role": "assistant", "content": reply}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            self._answer(
                200, {"id": "x", "object": "chat.completion", "created": 0, "model": "judge", "choices": [choice]}
            )

    @contextmanager
    def _counted(self, prompt: str) -> Iterator[None]:
        with self.server.lock:
            self.server.prompts.append(prompt)
            self.server.running += 1
            self.server.most_running = max(self.server.most_running, self.server.running)
        yield
        with self.server.lock:
            self.server.running -= 1

    def _allowed(self) -> bool:
        if not self.server.key or self.headers.get("Authorization") == f"Bearer {self.server.key}":
            return True
        self._answer(401, {"error": {"message": "wrong key"}})
        return False

    def _answer(self, status: int, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if status == 429:
            self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serving(*args: Any, **kwargs: Any) -> Iterator[FakeServer]:
    server = FakeServer(*args, **kwargs)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    running = FakeServer(port=parser.parse_args().port)
    print(running.url, flush=True)
    running.serve_forever()
