"""The way to the hub is looked for once; without one nothing is tried, and one line names the model and the mend."""

import os
import socket
import threading
from collections.abc import Iterator

import huggingface_hub.constants
import pytest

from agapo.errors import UserError
from agapo.hub import missing_way
from agapo.model.loading import load_config, load_tokenizer
from agapo.recipe.rollout import RolloutConfig, rollout_warnings
from data.files import _from_hub

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    # Set first, so that it is put back whatever the test leaves.
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    missing_way.cache_clear()
    yield
    missing_way.cache_clear()


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub where nothing listens, found out by a free port that is given back."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")


@pytest.mark.usefixtures("nowhere")
def test_no_way_is_one_line_with_the_model_and_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("nothing is tried again"))
    for load, what in ((load_config, "model"), (load_tokenizer, "tokenizer")):
        with pytest.raises(UserError) as caught:
            load("nobody/no-such-model")
        assert str(caught.value) == (
            f"model.path: cannot load the {what} 'nobody/no-such-model' (there is no way to 127.0.0.1, and it is not "
            "in the cache); check the name and the network, or download it and give its folder"
        )
    assert huggingface_hub.constants.HF_HUB_OFFLINE is True
    assert os.environ["HF_HUB_OFFLINE"] == "1"


@pytest.mark.usefixtures("nowhere")
def test_no_way_to_a_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("nothing is tried again"))
    with pytest.raises(UserError, match=r"cannot load 'nobody/none' from the hub \(there is no way to 127.0.0.1, and"):
        list(_from_hub("nobody/none", None, "train", False))


def test_a_hub_that_answers_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert missing_way() == ""
    assert huggingface_hub.constants.HF_HUB_OFFLINE is False


def test_the_users_word_and_a_proxy_spare_the_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("was looked for"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert missing_way() == ""
    missing_way.cache_clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    assert missing_way() == ""


def test_a_name_that_is_never_found_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agapo.hub.PATIENCE_S", 0.05)
    found = threading.Event()

    def look_up(*_: object, **__: object) -> None:
        found.wait()
        raise OSError

    monkeypatch.setattr(socket, "create_connection", look_up)
    assert missing_way() == "there is no way to huggingface.co"
    found.set()


@pytest.mark.parametrize(("top_p", "warned"), [(1.0, False), (0.95, True)])
def test_another_support_is_said(top_p: float, warned: bool) -> None:
    found = rollout_warnings(RolloutConfig(top_p=top_p))
    assert [text.split(":")[0] for text in found] == (["rollout.top_p 0.95"] if warned else [])
