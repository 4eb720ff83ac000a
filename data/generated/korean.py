"""Korean particles: which form follows a word depends on whether its last syllable ends in a consonant."""

import re

_FORMS = {
    "은(는)": ("은", "는"),
    "이(가)": ("이", "가"),
    "을(를)": ("을", "를"),
    "와(과)": ("과", "와"),
    "(으)로": ("으로", "로"),
    "이(라)": ("이라", "라"),
    "이(야)": ("이야", "야"),
    "(이)": ("이", ""),
}
"""What a template says: (after a consonant, after a vowel)."""
_PARTICLE = re.compile("([가-힣A-Za-z0-9])([)'\"’”」%]*)(" + "|".join(map(re.escape, _FORMS)) + ")")
_CLOSED_DIGITS, _CLOSED_LETTERS = "013678", "lmnrLMNR"
"""Read aloud, they end in a consonant: 영, 일, 삼, 육, 칠, 팔; 엘, 엠, 엔, 알."""


def with_particles(text: str) -> str:
    """Return the text with each `은(는)`, `이(가)`, … in the form that fits the word before it.

    >>> with_particles("물은(는) 차이(가) 아니다")
    '물은 차가 아니다'
    """
    return _PARTICLE.sub(lambda found: found[1] + found[2] + _form(found[1], found[3]), text)


def _form(last: str, particle: str) -> str:
    closed, opened = _FORMS[particle]
    if particle == "(으)로" and (_final(last) == 8 or last in "178lrLR"):  # ㄹ takes 로
        return opened
    return closed if _final(last) else opened


def _final(character: str) -> int:
    """Return the number of the final consonant, 0 where there is none."""
    if "가" <= character <= "힣":
        return (ord(character) - ord("가")) % 28
    return int(character in _CLOSED_DIGITS or character in _CLOSED_LETTERS)
