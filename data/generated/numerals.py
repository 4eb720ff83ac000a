"""Numbers from 0 to 9999 in English, Korean (Sino-Korean) and Spanish words."""

_EN_SMALL = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_EN_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_KO_DIGITS = ("영", "일", "이", "삼", "사", "오", "육", "칠", "팔", "구")
_ES_SMALL = (
    "cero", "uno", "dos", "tres", "cuatro", "cinco", "seis", "siete", "ocho", "nueve", "diez", "once", "doce", "trece",
    "catorce", "quince", "dieciséis", "diecisiete", "dieciocho", "diecinueve", "veinte", "veintiuno", "veintidós",
    "veintitrés", "veinticuatro", "veinticinco", "veintiséis", "veintisiete", "veintiocho", "veintinueve",
)  # fmt: skip
_ES_TENS = ("", "", "", "treinta", "cuarenta", "cincuenta", "sesenta", "setenta", "ochenta", "noventa")
_ES_HUNDREDS = (
    "", "ciento", "doscientos", "trescientos", "cuatrocientos", "quinientos", "seiscientos", "setecientos",
    "ochocientos", "novecientos",
)  # fmt: skip


def in_words(number: int, language: str) -> str:
    """Return the number, 0 to 9999, in words: `en`, `ko` or `es`."""
    assert 0 <= number <= 9999
    return {"en": _english, "ko": _korean, "es": _spanish}[language](number)


def _english(number: int) -> str:
    if number < 20:
        return _EN_SMALL[number]
    if number < 100:
        return _EN_TENS[number // 10] + (f"-{_EN_SMALL[number % 10]}" if number % 10 else "")
    if number < 1000:
        rest = f" and {_english(number % 100)}" if number % 100 else ""
        return f"{_EN_SMALL[number // 100]} hundred{rest}"
    below = number % 1000
    rest = "" if not below else f" and {_english(below)}" if below < 100 else f" {_english(below)}"
    return f"{_EN_SMALL[number // 1000]} thousand{rest}"


def _korean(number: int) -> str:
    if number == 0:
        return _KO_DIGITS[0]
    words = ""
    for unit, name in ((1000, "천"), (100, "백"), (10, "십"), (1, "")):
        digit = number // unit % 10
        if digit:
            words += ("" if digit == 1 and name else _KO_DIGITS[digit]) + name
    return words


def _spanish(number: int) -> str:
    if number < 30:
        return _ES_SMALL[number]
    if number < 100:
        return _ES_TENS[number // 10] + (f" y {_ES_SMALL[number % 10]}" if number % 10 else "")
    if number == 100:
        return "cien"
    if number < 1000:
        return f"{_ES_HUNDREDS[number // 100]} {_spanish(number % 100) if number % 100 else ''}".strip()
    head = "mil" if number < 2000 else f"{_ES_SMALL[number // 1000]} mil"
    return f"{head} {_spanish(number % 1000) if number % 1000 else ''}".strip()
