"""How alike two texts are, by small signatures of them (MinHash: Broder 1997).

The Jaccard similarity of two texts is |A ∩ B| / |A ∪ B| of their sets of character n-grams. The share of places at
which two signatures agree estimates it, with a standard deviation of at most 0.044 at 128 places.
"""

import numpy as np

from agapo.curation.text import normalised

PLACES = 128
_LETTERS, _SYLLABLES = 6, 3
"""Characters an n-gram; fewer where a character is a syllable or a word (Hangul, kana, Han)."""
_FIRST_SYLLABLE = 0x1100
_BLOCK = 8192
_ODD = np.uint64(0x9E3779B97F4A7C15)
_draw = np.random.Generator(np.random.PCG64(20250716))
_FACTORS = _draw.integers(1, 2**63, size=(PLACES, 1), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_TERMS = _draw.integers(0, 2**63, size=(PLACES, 1), dtype=np.uint64)


def ngrams(text: str) -> np.ndarray:
    """Return the distinct hashes (uint64) of a text's character n-grams, after `normalised`."""
    characters = np.frombuffer(normalised(text).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    dense = np.count_nonzero(characters >= _FIRST_SYLLABLE) * 3 > len(characters)
    size = max(1, min(_SYLLABLES if dense else _LETTERS, len(characters)))
    hashes = np.zeros(max(1, len(characters) - size + 1), dtype=np.uint64)
    for offset in range(size if len(characters) else 0):
        hashes = _mixed(hashes + characters[offset : offset + len(hashes)])
    return np.unique(hashes)


def _mixed(values: np.ndarray) -> np.ndarray:
    """Spread the bits of each value (the finaliser of splitmix64, shortened); overflow is meant."""
    values = (values ^ (values >> np.uint64(31))) * _ODD
    return values ^ (values >> np.uint64(29))


def signature(text: str, salt: int = 0) -> np.ndarray:
    """Return the signature [128] (uint32) of a text; texts of another `salt` have nothing in common."""
    hashes = _mixed(ngrams(text) + np.uint64(salt << 32))
    lowest = np.full(PLACES, 2**32 - 1, dtype=np.uint32)
    for start in range(0, len(hashes), _BLOCK):
        ranks = (hashes[start : start + _BLOCK] * _FACTORS + _TERMS) >> np.uint64(32)
        lowest = np.minimum(lowest, ranks.min(axis=1).astype(np.uint32))
    return lowest


def similarity(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the estimated Jaccard similarity, 0 to 1, of a signature [128] and others [..., 128]."""
    return (one == others).mean(axis=-1)
