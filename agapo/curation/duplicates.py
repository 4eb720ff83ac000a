"""Rows that came before: exactly, or nearly. Both remember digests and signatures only, no rows."""

import hashlib
import json
import re
from typing import Any

import numpy as np

from agapo.curation.minhash import PLACES, signature, similarity
from agapo.curation.report import Finding
from agapo.curation.text import asked, normalised, response

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_BANDS, _BAND_PLACES = 16, 4
"""Rows that agree in all four places of one of 16 bands are compared: 99.98 % of those with a similarity of 0.8, 99 %
with 0.7, 89 % with 0.6."""
_QUESTION, _RESPONSE = 1, 2


def digest(*texts: str) -> bytes:
    """Return 16 bytes that tell lists of texts apart."""
    return hashlib.sha256(json.dumps(texts).encode()).digest()[:16]


class ExactDuplicates:
    """Finds rows with the same tools, mode and turns as an earlier one, but for case and spacing."""

    def __init__(self) -> None:
        self._places: dict[bytes, str] = {}

    def __call__(self, row: dict[str, Any], place: str) -> Finding | None:
        """Return where the row came before, or None; then it is remembered."""
        turns = [{name: normalised(v) if isinstance(v, str) else v for name, v in t.items()} for t in row["messages"]]
        about = {"tools": row.get("tools"), "mode": row.get("mode"), "turns": turns}
        key = digest(json.dumps(about, sort_keys=True, default=str))
        if key in self._places:
            return Finding("same row again", self._places[key])
        self._places[key] = place
        return None


class NearDuplicates:
    """Finds rows whose question and whose response are both nearly those of an earlier one that was kept.

    Both, since questions about one long document are alike, and so are many answers. The question is the turns before
    the last, without the system's. For both together, the sets of n-grams of question and response are united (their
    similarity is at least the lower one of the two), and rows that agree in a band of that signature are compared.
    """

    def __init__(self, least: float, *, same_numbers: bool) -> None:
        self._least, self._same_numbers = least, same_numbers
        self._places: list[str] = []
        self._signatures = np.empty((64, 2, PLACES), dtype=np.uint32)
        self._buckets: dict[int, list[int]] = {}

    def __call__(self, row: dict[str, Any], place: str) -> Finding | None:
        """Return the row that this one is nearly the same as, or None; then it is remembered."""
        question = asked(row)
        both = np.stack([signature(question, _QUESTION), signature("\n".join(response(row)), _RESPONSE)])
        numbers = ",".join(_NUMBER.findall(question)) if self._same_numbers else ""
        keys = _band_keys(both.min(axis=0), digest(str(row.get("mode")), numbers))
        known = sorted({index for key in keys for index in self._buckets.get(key, ())})
        if known:
            alike = similarity(both, self._signatures[known]).min(axis=-1)
            best = int(alike.argmax())
            if alike[best] >= self._least:
                return Finding("nearly the same row", f"{self._places[known[best]]} ({alike[best]:.2f})")
        self._remember(both, keys, place)
        return None

    def _remember(self, both: np.ndarray, keys: list[int], place: str) -> None:
        index = len(self._places)
        if index == len(self._signatures):
            self._signatures = np.concatenate([self._signatures, np.empty_like(self._signatures)])
        self._signatures[index] = both
        self._places.append(place)
        for key in keys:
            self._buckets.setdefault(key, []).append(index)


def _band_keys(united: np.ndarray, about: bytes) -> list[int]:
    bands = united[: _BANDS * _BAND_PLACES].reshape(_BANDS, _BAND_PLACES)
    return [hash((number, band.tobytes(), about)) for number, band in enumerate(bands)]
