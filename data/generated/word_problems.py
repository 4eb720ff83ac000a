"""Math word problems in English, Korean and Spanish, each with two or three ways to the answer.

shop      so many things at a price, with a coupon      the change from a note
trip      two stretches at two speeds                   the whole distance
tanks     a tank fills and leaks                        the time until it is full
ages      a sum and a difference                        the older one's age
"""

from collections.abc import Callable, Mapping
from random import Random

from data.generated.korean import with_particles
from data.generating import Item, Response

Numbers = dict[str, int]

_NAMES = {
    "en": ("Ann", "Ben", "Clara", "David", "Emma", "Frank", "Grace", "Hugo"),
    "ko": ("민수", "지영", "서준", "하은", "도윤", "수빈", "현우", "유진"),
    "es": ("Ana", "Luis", "Marta", "Pedro", "Sofía", "Javier", "Elena", "Diego"),
}
_BOX = {
    "en": "Put the answer within \\boxed{}.",
    "ko": "답은 \\boxed{} 안에 쓰세요.",
    "es": "Escribe la respuesta dentro de \\boxed{}.",
}
_SAY = {
    "en": "The answer is \\boxed{{{answer}}}.",
    "ko": "답은 \\boxed{{{answer}}}입니다.",
    "es": "La respuesta es \\boxed{{{answer}}}.",
}


def item(language: str, draw: Random) -> Item:
    """Draw a word problem."""
    kind = draw.choice(list(_DRAWS))
    question, *ways = _TEXTS[kind][language]
    name, other = draw.sample(_NAMES[language], 2)
    about = {**_DRAWS[kind](draw), "name": name, "other": other}
    said = _SAY[language].format(**about)
    thoughts = [with_particles(way.format(**about)) for way in ways]
    return Item(
        question=f"{with_particles(question.format(**about))} {_BOX[language]}",
        responses=tuple(Response(said, thought, f"{thought} {said}") for thought in thoughts),
        domain="math",
        task=kind,
        language=language,
        columns={"answer": str(about["answer"])},
    )


def _shop(draw: Random) -> Numbers:
    count, price, coupon = draw.randint(2, 12), draw.randint(3, 40), draw.randint(2, 5)
    cost = count * price - coupon
    note = -(-count * price // 100) * 100
    return {
        "count": count,
        "price": price,
        "coupon": coupon,
        "gross": count * price,
        "cost": cost,
        "note": note,
        "without": note - count * price,
        "answer": note - cost,
    }


def _trip(draw: Random) -> Numbers:
    hours, speed, more, faster = draw.randint(2, 9), draw.randint(20, 90), draw.randint(2, 9), draw.randint(5, 40)
    first, second = hours * speed, more * (speed + faster)
    return {
        "hours": hours,
        "speed": speed,
        "more": more,
        "faster": faster,
        "quick": speed + faster,
        "first": first,
        "second": second,
        "all": hours + more,
        "base": (hours + more) * speed,
        "extra": more * faster,
        "answer": first + second,
    }


def _tank(draw: Random) -> Numbers:
    leak, minutes = draw.randint(2, 9), draw.randint(5, 60)
    gain = draw.randint(2, 12)
    return {
        "inflow": gain + leak,
        "leak": leak,
        "gain": gain,
        "volume": gain * minutes,
        "filled": (gain + leak) * minutes,
        "lost": leak * minutes,
        "answer": minutes,
    }


def _ages(draw: Random) -> Numbers:
    younger, gap = draw.randint(3, 60), draw.randint(2, 30)
    total = 2 * younger + gap
    return {
        "sum": total,
        "gap": gap,
        "double": total + gap,
        "half": total - gap,
        "younger": younger,
        "answer": younger + gap,
    }


_DRAWS: Mapping[str, Callable[[Random], Numbers]] = {"shop": _shop, "trip": _trip, "tank": _tank, "ages": _ages}

_TEXTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "shop": {
        "en": (
            "{name} buys {count} books at {price} euros each, has a coupon for {coupon} euros, and pays with {note} "
            "euros. How many euros of change does {name} get?",
            "The books cost {count} * {price} = {gross}. With the coupon it is {gross} - {coupon} = {cost}. "
            "The change is {note} - {cost} = {answer}.",
            "Without the coupon the change would be {note} - {count} * {price} = {without}. The coupon adds {coupon}: "
            "{without} + {coupon} = {answer}.",
        ),
        "ko": (
            "{name}은(는) 한 권에 {price}천 원인 책을 {count}권 사면서 {coupon}천 원 쿠폰을 쓰고 "
            "{note}천 원을 냈습니다. 거스름돈은 몇 천 원인가요?",
            "책값은 {count} * {price} = {gross}이다. 쿠폰을 쓰면 {gross} - {coupon} = {cost}이다. "
            "거스름돈은 {note} - {cost} = {answer}이다.",
            "쿠폰이 없다면 거스름돈은 {note} - {count} * {price} = {without}이다. 쿠폰 {coupon}을(를) 더하면 "
            "{without} + {coupon} = {answer}이다.",
        ),
        "es": (
            "{name} compra {count} libros a {price} euros cada uno, tiene un cupón de {coupon} euros y paga con {note} "
            "euros. ¿Cuántos euros de cambio recibe?",
            "Los libros cuestan {count} * {price} = {gross}. Con el cupón son {gross} - {coupon} = {cost}. "
            "El cambio es {note} - {cost} = {answer}.",
            "Sin el cupón el cambio sería {note} - {count} * {price} = {without}. El cupón suma {coupon}: "
            "{without} + {coupon} = {answer}.",
        ),
    },
    "trip": {
        "en": (
            "{name} drives {hours} hours at {speed} km/h and then {more} hours at a speed {faster} km/h higher. "
            "How many kilometres does {name} drive?",
            "First {hours} * {speed} = {first} km. Then at {speed} + {faster} = {quick} km/h: {more} * {quick} = "
            "{second} km. Together {first} + {second} = {answer} km.",
            "At {speed} km/h the {all} hours would give {all} * {speed} = {base} km. The last {more} hours add "
            "{more} * {faster} = {extra} km: {base} + {extra} = {answer} km.",
        ),
        "ko": (
            "{name}은(는) 시속 {speed}km로 {hours}시간 달린 뒤, 시속 {faster}km만큼 더 빠르게 {more}시간 달렸습니다. "
            "모두 몇 km를 달렸나요?",
            "처음에는 {hours} * {speed} = {first}km이다. 다음 속력은 {speed} + {faster} = {quick}이므로 "
            "{more} * {quick} = {second}km이다. 합하면 {first} + {second} = {answer}km이다.",
            "{all}시간을 모두 시속 {speed}km로 달리면 {all} * {speed} = {base}km이다. 뒤의 {more}시간에 "
            "{more} * {faster} = {extra}km를 더 달렸으므로 {base} + {extra} = {answer}km이다.",
        ),
        "es": (
            "{name} conduce {hours} horas a {speed} km/h y luego {more} horas a una velocidad {faster} km/h mayor. "
            "¿Cuántos kilómetros recorre?",
            "Primero {hours} * {speed} = {first} km. Después, a {speed} + {faster} = {quick} km/h: {more} * {quick} = "
            "{second} km. En total {first} + {second} = {answer} km.",
            "A {speed} km/h, las {all} horas darían {all} * {speed} = {base} km. Las últimas {more} horas suman "
            "{more} * {faster} = {extra} km: {base} + {extra} = {answer} km.",
        ),
    },
    "tank": {
        "en": (
            "A tank of {volume} litres is empty. {inflow} litres a minute flow in and {leak} litres a minute leak out. "
            "After how many minutes is it full?",
            "Each minute {inflow} - {leak} = {gain} litres stay. {volume} / {gain} = {answer} minutes.",
            "Let t be the minutes: {inflow} * t - {leak} * t = {volume}, so {gain} * t = {volume} and t = {answer}.",
            "Try t = {answer}: {inflow} * {answer} = {filled} flow in, {leak} * {answer} = {lost} leak out, and "
            "{filled} - {lost} = {volume}. It is full exactly then.",
        ),
        "ko": (
            "{volume}리터들이 빈 물통에 1분에 {inflow}리터씩 물이 들어오고 {leak}리터씩 샙니다. "
            "몇 분 뒤에 가득 차나요?",
            "1분에 {inflow} - {leak} = {gain}리터씩 남는다. {volume} / {gain} = {answer}분이다.",
            "t분이라고 하면 {inflow} * t - {leak} * t = {volume}이다. {gain} * t = {volume}이므로 t = {answer}이다.",
            "t = {answer}을(를) 넣어 본다. {inflow} * {answer} = {filled}리터가 들어오고 "
            "{leak} * {answer} = {lost}리터가 새므로 {filled} - {lost} = {volume}리터이다. 이때 가득 찬다.",
        ),
        "es": (
            "Un depósito de {volume} litros está vacío. Entran {inflow} litros por minuto y se pierden {leak} litros "
            "por minuto. ¿Al cabo de cuántos minutos está lleno?",
            "Cada minuto quedan {inflow} - {leak} = {gain} litros. {volume} / {gain} = {answer} minutos.",
            "Sea t el tiempo: {inflow} * t - {leak} * t = {volume}, luego {gain} * t = {volume} y t = {answer}.",
            "Probamos t = {answer}: entran {inflow} * {answer} = {filled}, se pierden {leak} * {answer} = {lost}, y "
            "{filled} - {lost} = {volume}. Justo entonces está lleno.",
        ),
    },
    "ages": {
        "en": (
            "{name} and {other} are {sum} years old together. {name} is {gap} years older. How old is {name}?",
            "Twice {name}'s age is {sum} + {gap} = {double}, so {name} is {double} / 2 = {answer}.",
            "{other} is ({sum} - {gap}) / 2 = {half} / 2 = {younger}. {name} is {younger} + {gap} = {answer}.",
            "Let x be {name}'s age: x + (x - {gap}) = {sum}, so 2 * x = {double} and x = {answer}.",
        ),
        "ko": (
            "{name}와(과) {other}의 나이를 더하면 {sum}살이고, {name}이(가) {gap}살 더 많습니다. "
            "{name}은(는) 몇 살인가요?",
            "{name} 나이의 두 배는 {sum} + {gap} = {double}이므로 {double} / 2 = {answer}살이다.",
            "{other}은(는) ({sum} - {gap}) / 2 = {half} / 2 = {younger}살이다. "
            "{name}은(는) {younger} + {gap} = {answer}살이다.",
            "{name}의 나이를 x라고 하면 x + (x - {gap}) = {sum}이다. 2 * x = {double}이므로 x = {answer}이다.",
        ),
        "es": (
            "{name} y {other} suman {sum} años. {name} tiene {gap} años más. ¿Cuántos años tiene {name}?",
            "El doble de la edad de {name} es {sum} + {gap} = {double}, así que tiene {double} / 2 = {answer}.",
            "{other} tiene ({sum} - {gap}) / 2 = {half} / 2 = {younger}. {name} tiene {younger} + {gap} = {answer}.",
            "Sea x la edad de {name}: x + (x - {gap}) = {sum}, luego 2 * x = {double} y x = {answer}.",
        ),
    },
}
"""By kind and language: the question, then the ways to the answer."""
