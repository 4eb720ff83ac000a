"""The card beside a model's weights, and how it gets to the hub: no place on this machine is told.

The hub is a server on this machine that answers as the hub does.
"""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from agapo import hub
from agapo.errors import UserError
from agapo.recipe import RLRecipe, load_recipe
from agapo.stages import export
from agapo.stages.export import export_model
from agapo.stages.running.start import keep_start
from agapo.tracking import RunDirectory, write_json_atomic, write_model_card
from agapo.tracking.lineage import lineage_of
from agapo.tracking.model_card import checkpoint_card, hub_name

CACHED = "/home/someone/.cache/huggingface/hub/models--Qwen--Qwen3-0.6B/snapshots/c1899de2"


def finished_run(project: Path, start: str, template: str = "{{ messages }}") -> Path:
    """A finished RL run of a project with its own data, the card written as a run writes it."""
    content = {
        "steps": 3,
        "run": {"output": str(project / "outputs"), "name": "mine"},
        "model": {"path": start},
        "rollout": {"stop": ["/end"]},
        "data": {
            "source": "data.files:prompts",
            "path": str(project / "rows/train.jsonl"),
            "args": {
                "own": "/secret/x",
                "options": f"--files=/secret/x/rows:/secret/y/z --own {project}/rows/a file:///secret/z/w",
                "kept": "a/b/c https://some.org/a/b ./a/b </think> /end",
            },
        },
        "reward": {"terms": [{"name": "answer", "function": "rewards.math_answer:score"}]},
    }
    path = project / "mine.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content))
    recipe = load_recipe(RLRecipe, path)
    with RunDirectory.open(recipe, path) as run:
        keep_start(run, start)
        run.hf.mkdir()
        (run.hf / "config.json").write_text("{}")
        (run.hf / "chat_template.jinja").write_text(template)
        summary = {"stage": "rl", "finished": True, "steps": 3, "recipe": str(path), "seed": 0}
        write_model_card(run, recipe, summary | {"lineage": lineage_of(start), "exported": None})
        write_json_atomic(run.summary, summary)
        return run.path


@pytest.mark.parametrize(
    ("start", "name"),
    [("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B"), (CACHED, "Qwen/Qwen3-0.6B"), ("/models/of/mine", None)],
)
def test_a_card_names_its_base_and_no_place_on_this_machine(start: str, name: str | None, tmp_path: Path) -> None:
    card = (finished_run(tmp_path / "project", start) / "hf/README.md").read_text()
    _, front, body = card.split("---\n", 2)
    assert yaml.safe_load(front).get("base_model") == name
    assert hub_name(start) == name
    assert f"1. `{name or 'mine'}`" in body
    assert "data, data.files:prompts: `data.files:prompts` from `rows/train.jsonl`" in body
    recipe = yaml.safe_load(body.split("```yaml\n")[1].split("```")[0])
    assert recipe["model"]["path"] == (name or "mine")
    args = {
        "own": "x",
        "options": "--files=rows:z --own rows/a file://w",
        "kept": "a/b/c https://some.org/a/b ./a/b </think> /end",
    }
    assert (recipe["run"]["output"], recipe["data"]["args"]) == ("outputs", args)
    assert recipe["rollout"]["stop"] == ["/end"]
    for place in (str(tmp_path), "/home/", "/secret", "/models", "/project"):
        assert place not in card


@pytest.mark.parametrize("template", ["{{ messages }}", "{% if enable_thinking %}<think>{% endif %}"])
def test_a_card_asks_for_thinking_only_where_the_template_can_switch_it(template: str, tmp_path: Path) -> None:
    card = (finished_run(tmp_path, "a/b", template) / "hf/README.md").read_text()
    assert 'messages = [{"role": "user", "content": "..."}]' in card
    assert ("enable_thinking=True, return_dict=True" in card) == ("thinking" in template)
    assert ("# enable_thinking=False" in card) == ("thinking" in template)


def test_a_name_of_the_hub_may_have_two_strokes() -> None:
    assert hub_name("/x/models--me--my--model/snapshots/1") == "me/my--model"


class Hub(HTTPServer):
    """Answers what `create_repo` and `upload_folder` ask, and keeps what it was sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.made: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.tokens: set[str | None] = set()
        self.private = True


class Answers(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        sent = self.rfile.read(length) if length else self._chunked()
        self.server.tokens.add(self.headers.get("Authorization"))
        if self.headers.get("Authorization") != "Bearer right":
            self._answer({"error": "Invalid username or password."}, 401)
        elif self.path.endswith("/repos/create"):
            self.server.made.append(json.loads(sent))
            self._answer({"url": f"http://127.0.0.1:{self.server.server_port}/me/mine", "name": "me/mine", "id": "1"})
        elif "/preupload/" in self.path:
            files = [{"path": file["path"], "uploadMode": "regular"} for file in json.loads(sent)["files"]]
            self._answer({"files": [{**file, "shouldIgnore": False, "oid": None} for file in files]})
        elif "/commit/" in self.path:
            for line in map(json.loads, sent.decode().splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            place = f"http://127.0.0.1:{self.server.server_port}/me/mine"
            self._answer({"commitUrl": f"{place}/commit/1", "commitOid": "1"})
        else:
            self._answer({})

    def do_GET(self) -> None:
        self._answer({"id": "me/mine", "sha": "0", "siblings": [], "private": self.server.private})

    def _chunked(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, content: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{found.server_port}")
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setenv("HF_TOKEN", "right")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{found.server_port}")
        hub.missing_way.cache_clear()
        yield found
        hub.missing_way.cache_clear()
        found.shutdown()
        thread.join()


def test_the_model_of_a_finished_run_is_pushed_with_its_card(
    server: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished_run(tmp_path, "Qwen/Qwen3-0.6B")
    export_model(run, None, None, "me/mine", private=True)
    assert server.made == [{"name": "mine", "organization": "me", "visibility": "private"}]
    assert server.files == {path.name: path.read_bytes() for path in (run / "hf").iterdir()}
    said = " ".join(capsys.readouterr().out.split())
    assert said == f"Pushed {run}/hf to http://127.0.0.1:{server.server_port}/me/mine"


@pytest.mark.parametrize(("token", "name"), [("wrong", "me/mine"), ("right", "no/such/name")])
def test_what_the_hub_refuses_is_one_line_with_the_mend(
    token: str, name: str, server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UserError, match=rf"--push {name}: the hub refuses it \(.*hf auth login") as refused:
        export_model(finished_run(tmp_path, "Qwen/Qwen3-0.6B"), None, None, name, private=False)
    assert "\n" not in str(refused.value)
    assert not server.files


def test_what_should_be_private_is_not_sent_to_a_public_repository(server: Hub, tmp_path: Path) -> None:
    server.private = False
    run = finished_run(tmp_path, "Qwen/Qwen3-0.6B")
    with pytest.raises(
        UserError, match=r"--push me/mine: --private, but http\S+/me/mine is a public repository already"
    ):
        export_model(run, None, None, "me/mine", private=True)
    assert not server.files
    export_model(run, None, None, "me/mine", private=False)
    assert server.files


def test_only_the_same_step_of_the_same_run_is_pushed_again(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished_run(tmp_path, "Qwen/Qwen3-0.6B")
    monkeypatch.setattr(export, "read_checkpoint", lambda _: SimpleNamespace(state={"step": 3}))
    monkeypatch.setattr(export, "steps_of", lambda _: {3: run / "checkpoints/3"})
    for folder in (run / "exports/step-000003", tmp_path / "other"):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    with pytest.raises(UserError, match="step-000003: is there already"):
        export_model(run, 3, None, "me/mine", private=False)
    for folder in (run / "exports/step-000003", tmp_path / "other"):
        (folder / "README.md").write_text(checkpoint_card(run, load_recipe(RLRecipe, run / "recipe.yaml"), 3))
    with pytest.raises(UserError, match="other: is there already"):
        export_model(run, 3, tmp_path / "other", "me/mine", private=False)
    assert not server.files
    export_model(run, 3, None, "me/mine", private=False)
    assert set(server.files) == {"config.json", "README.md"}


def test_without_a_way_to_the_hub_nothing_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"--push me/mine: HF_HUB_OFFLINE is set; the model is in .*/hf"):
        export_model(finished_run(tmp_path, "Qwen/Qwen3-0.6B"), None, None, "me/mine", private=False)
