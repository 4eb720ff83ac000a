"""Units, scale words and directions behind (or before) a number, as the compared answers write them.

A unit matters only where both answers have one: 5 km is not 5 m, and 25 cents are a quarter of a dollar. Nouns that
are no units ("5 apples") say nothing. Scale words multiply: 2 dozen is 24.
"""

import re
from fractions import Fraction
from typing import NamedTuple

# dimension, size, names. Months and years are no number of days; £ may be written "pounds", which weigh too.
_TABLE = """
length 1 m meter metre metro 米 미터
length 1000 km kilometer kilometre kilómetro kilometro 公里 千米 킬로미터
length 1/100 cm centimeter centimetre centímetro centimetro 厘米 센티미터
length 1/1000 mm millimeter millimetre milímetro milimetro 毫米 밀리미터
length 1/1000000 µm μm micrometer micron
length 1/1000000000 nm nanometer
length 254/10000 in inch inches pulgada
length 3048/10000 ft foot feet
length 9144/10000 yd yard yarda
length 1609344/1000 mi mile milla
mass 1 g gram gramme gramo 克 그램
mass 1000 kg kilogram kilo kilogramme kilogramo 公斤 千克 킬로그램
mass 1/1000 mg milligram miligramo
mass 1000000 tonne tonelada
mass 90718474/100 ton
mass 45359237/100000 lb pound libra
mass 45359237/1600000 oz ounce onza
time 1 s sec second segundo 秒 초
time 1/1000 ms millisecond
time 60 min minute minuto 分钟 분
time 3600 h hr hour hora 小时 시간
time 86400 day día dia 天 日 일
time 604800 wk week semana 周 주
month 1 month mes meses 个月 개월
month 12 yr year año 年 년
month 120 decade década
month 1200 century centuries siglo
volume 1/1000 l L liter litre litro 升 리터
volume 1/1000000 ml mL milliliter millilitre cc mililitro 毫升 밀리리터
volume 3785411784/1000000000000 gal gallon
volume 946352946/1000000000000 qt quart
volume 473176473/1000000000000 pt pint
volume 2365882365/10000000000000 cup
area 40468564224/10000000 acre
area 10000 ha hectare hectárea
usd 1 $ dollar usd buck dólar dolar 달러 美元
usd 1/100 ¢ cent centavo penny pennies
eur 1 € eur euro
gbp 1 £ gbp pound
jpy 1 ¥ jpy yen 円 엔
cny 1 ¥ cny rmb yuan 元 块
krw 1 ₩ krw won 원
inr 1 ₹ inr rs rupee
mxn 1 peso
degree 1 degree deg grado 도 度 °
radian 1 radian rad radián
celsius 1 ℃ celsius centigrade degree °
fahrenheit 1 ℉ fahrenheit degree °
kelvin 1 kelvin K
force 1 N newton
energy 1 J joule
energy 1000 kJ kilojoule
power 1 W watt
power 1000 kW kilowatt
voltage 1 V volt
current 1 A ampere amp
frequency 1 Hz hertz
pressure 1 Pa pascal
data 1 bit
data 8 byte
speed 1609344/3600000 mph
speed 1000/3600 kph kmh kmph
"""
_MONEY = {"usd", "eur", "gbp", "jpy", "cny", "krw", "inr", "mxn"}
_PARTS = {"volume": (("length", 3),), "area": (("length", 2),), "speed": (("length", 1), ("time", -1))}
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}

_SCALES = (
    {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
    | {"cien": 10**2, "mil": 10**3, "millón": 10**6, "millones": 10**6, "docena": 12, "lakh": 10**5, "crore": 10**7}
    | {"百": 10**2, "千": 10**3, "万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8}
    | {"백": 10**2, "천": 10**3, "만": 10**4, "억": 10**8, "조": 10**12}
)
_PERCENT = {"percent", "percentage", "pct", "퍼센트", "프로"}

_AXES = (
    ("above", "below"),
    ("up upward upwards higher", "down downward downwards lower deeper"),
    ("left leftward", "right rightward"),
    ("north", "south"),
    ("east", "west"),
    ("northeast", "southwest"),
    ("northwest", "southeast"),
    ("profit gain gained win won profits gains wins", "loss lost lose losses"),
    ("late", "early"),
    ("deposit deposits deposited", "withdrawal withdrawals withdrawn"),
    ("credit", "debt owed"),
    ("ad a.d. a.d ce c.e. c.e", "bc b.c. b.c bce b.c.e. b.c.e"),
    ("aboveground overground", "underground"),
    ("increase increased rise growth raise", "decrease decreased drop reduction decline fall"),
    (
        "more greater over extra longer taller heavier older faster surplus",
        "less fewer under shorter lighter younger slower short deficit",
    ),
    ("ahead after later", "behind before earlier ago"),
    ("a.m. a.m am", "p.m. p.m pm"),
    ("clockwise", "counterclockwise anticlockwise counter-clockwise"),
    ("odd", "even"),
    ("positive", "negative"),
    ("minimum least", "maximum most"),
)
_SIDES = {word: (axis, side) for axis, sides in enumerate(_AXES) for side in (0, 1) for word in sides[side].split()}

_NOT_NOUNS = frozenset(
    re.findall(
        r"\w+",
        "and or not no none never nor than if is are was when where for all any except but plus minus times mod modulo"
        " to sin cos tan csc cot log ln exp sqrt pi gcd lcm det infinity undefined impossible remainder base root roots"
        " y o si factorial squared cubed",
    )
)


class Unit(NamedTuple):
    """A dimension, as powers of its parts, and the size in the base unit."""

    dimension: frozenset[tuple[str, int]]
    size: Fraction


class Measure(NamedTuple):
    """What the words behind a number say: scale, per cent, the unit's readings (none, mostly one) and directions."""

    scale: Fraction = Fraction(1)
    is_percentage: bool = False
    units: tuple[Unit, ...] = ()
    directions: frozenset[tuple[int, int]] = frozenset()


def _table() -> dict[str, list[tuple[str, Fraction]]]:
    names: dict[str, list[tuple[str, Fraction]]] = {}
    for line in _TABLE.strip().splitlines():
        dimension, size, *words = line.split()
        for word in words:
            names.setdefault(word, []).append((dimension, Fraction(size)))
    return names


_NAMES = _table()
_TOKEN = re.compile(r"[^\W\d_](?:[^\W\d_]|[.'’-](?=[^\W\d_]))*\.?|\^ ?\{? ?-?\d ?\}?|[/%$€£¥₩₹¢°℃℉²³]|\\cdot|\*")


def measure(phrase: str) -> Measure:
    """Read the words and symbols that stand behind a number, such as `million dollars per year` or `m/s^2`."""
    tokens = _tokens(phrase)
    scale, is_percentage, position = Fraction(1), False, 0
    while position < len(tokens) and (factor := _SCALES.get(_singular(tokens[position], _SCALES))):
        scale, position = scale * factor, position + 1
    if position < len(tokens) and tokens[position].lower() in (*_PERCENT, "%"):
        is_percentage, position = True, position + 1
    position += position < len(tokens) and tokens[position].lower() in ("of", "de") and position > 0
    directions = frozenset(_SIDES[token.lower()] for token in tokens if token.lower() in _SIDES)
    units = () if is_percentage else _units(tokens[position:])
    return Measure(scale, is_percentage, units, directions)


def _tokens(phrase: str) -> list[str]:
    """Words and symbols; a Chinese or Korean scale parts from the unit behind it: 만원 is 만 and 원."""
    phrase = re.sub(r"\bper cent\b|\bpor ciento\b", "percent", phrase)
    found: list[str] = []
    for token in _TOKEN.findall(phrase):
        while len(token) > 1 and token[0] in _SCALES:
            found.append(token[0])
            token = token[1:]
        found.append(token if token.lower() in _SIDES else token.rstrip("."))
    return found


def _singular(word: str, known: object) -> str:
    """Return the form of a word that is in `known`, else the word: symbols as written, words in small letters."""
    small = word.lower() if len(word) > 2 else word
    plurals = () if known is _SCALES else (small.removesuffix("es"),)
    forms = (word, small, small.removesuffix("s"), *plurals)  # miles are no thousands in Spanish
    return next((form for form in forms if form in known), word)  # pyright: ignore[reportOperatorIssue]


def is_unit(word: str) -> bool:
    """Is this the name or the symbol of a unit, a scale or per cent?"""
    tokens = _tokens(word)
    if not tokens:
        return False
    first = tokens[0]
    known = (first.lower() in _PERCENT, _singular(first, _NAMES) in _NAMES, _singular(first, _SCALES) in _SCALES)
    return any(known) or first in ("%", "°") or first.lower() in ("square", "sq", "cubic", "cu", "unit", "units")


def is_silent(phrase: str) -> bool:
    """May the phrase stand behind a number without changing what is said, but for unit, scale and direction?"""
    words = [token.lower() for token in _TOKEN.findall(phrase)]
    return not any(word.rstrip(".") in _NOT_NOUNS for word in words)


def _units(tokens: list[str]) -> tuple[Unit, ...]:
    """Multiply the units that the tokens begin with; several readings where the first name has several."""
    factors = _factors(_temperatures(tokens))
    readings = len(_NAMES[factors[0][0]]) if factors else 0
    return tuple(_product(factors, reading) for reading in range(readings))


def _temperatures(tokens: list[str]) -> list[str]:
    """Read `degrees Celsius`, `° C` and `° F` as one name."""
    scales = {
        "c": "celsius",
        "celsius": "celsius",
        "centigrade": "celsius",
        "f": "fahrenheit",
        "fahrenheit": "fahrenheit",
    }
    if len(tokens) > 1 and _singular(tokens[0], _NAMES) in ("°", "degree", "deg") and tokens[1].lower() in scales:
        return [scales[tokens[1].lower()], *tokens[2:]]
    return tokens


def _factors(tokens: list[str]) -> list[tuple[str, int]]:
    """The names of units with their exponents, up to the first word that is none: square miles of forest is mi^2."""
    found: list[tuple[str, int]] = []
    sign = power = 1
    for token in tokens:
        name, small = _singular(token, _NAMES), token.lower()
        if name in _NAMES:
            found.append((name, sign * power))
            power = 1
        elif small in _POWERS:
            power = _POWERS[small]
        elif found and (exponent := _exponent(small)):
            found[-1] = (found[-1][0], sign * exponent)
        elif found and small in ("/", "per"):
            sign = -1
        elif not (found and small in ("\\cdot", "*")):
            break
    return found


def _exponent(token: str) -> int | None:
    """Read `^2`, `²` or `squared`."""
    if token.startswith("^"):
        return int(token.strip("^{} "))
    return {"²": 2, "squared": 2, "³": 3, "cubed": 3}.get(token)


def _product(factors: list[tuple[str, int]], reading: int) -> Unit:
    dimension: dict[str, int] = {}
    size = Fraction(1)
    for position, (name, exponent) in enumerate(factors):
        kinds = _NAMES[name]
        kind, factor = kinds[reading if position == 0 else 0]
        for base, count in _PARTS.get(kind, ((kind, 1),)):
            dimension[base] = dimension.get(base, 0) + count * exponent
        size *= factor**exponent
    return Unit(frozenset((base, count) for base, count in dimension.items() if count), size)


# --- two answers ---


def size_ratio(gold: Measure, found: Measure) -> Fraction | None:
    """How many gold units a found unit is; 1 where either has none that is known, None where they are unlike."""
    if not gold.units or not found.units:
        return Fraction(1)
    for one in gold.units:
        for other in found.units:
            if _money_only(one) == _money_only(other):
                return other.size / one.size if one.dimension == other.dimension else Fraction(1)
    return None


def _money_only(unit: Unit) -> frozenset[tuple[str, int]]:
    """$5 per hour is $5 where the question named the hour."""
    money = frozenset(part for part in unit.dimension if part[0] in _MONEY)
    return money or unit.dimension


def are_opposite(gold: Measure, found: Measure) -> bool:
    """Does one say left and the other right?"""
    sides = dict(gold.directions)
    return any(sides.get(axis, side) != side for axis, side in found.directions)
