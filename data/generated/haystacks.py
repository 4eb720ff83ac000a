"""Long contexts in English, Korean and Spanish: filler of varied sentences, needles to hide in it, small documents.

Filler holds no digits and none of the words that needles and documents use. Lengths are in words: what stands between
spaces (in Korean, eojeol).
"""

from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import NamedTuple

from data.generated.korean import with_particles

_FILLER: Mapping[str, tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "en": (
        "{time} {who} {what} {where}.",
        (
            "Early in the morning", "After the rain", "On quiet evenings", "During the festival", "In late autumn",
            "Before the bells rang", "Every other week", "When the tide was low", "At the end of summer", "Around noon",
            "While the others slept", "As usual",
        ),
        (
            "the baker", "an old sailor", "the twins", "a patient gardener", "the schoolteacher", "two painters",
            "the blacksmith's daughter", "a travelling musician", "the ferryman", "some children", "the beekeeper",
            "a retired judge", "the night watchman", "her uncle", "the weavers", "a shy student",
        ),
        (
            "carried baskets of apples", "repaired a broken fence", "told long stories", "watched the swallows",
            "sold woollen blankets", "looked for lost sheep", "sang half-forgotten songs", "drew maps in the sand",
            "shared warm bread", "gathered dry branches", "argued about the weather", "polished brass lamps",
            "planted young trees", "wrote letters to friends",
        ),
        (
            "near the old mill", "by the river", "behind the chapel", "on the hill", "at the market", "along the coast",
            "under the chestnut tree", "in the narrow lane", "beside the well", "across the meadow",
            "in front of the inn", "at the edge of the forest", "close to the harbour", "on the wooden bridge",
        ),
    ),
    "ko": (
        "{time} {who}은(는) {where} {what}.",
        (
            "이른 아침에", "비가 그친 뒤", "조용한 저녁마다", "축제 기간에", "늦가을이면", "종이 울리기 전에",
            "한 주 걸러", "썰물 때면", "여름이 끝날 무렵", "정오 무렵", "모두가 잠든 사이", "늘 그렇듯이",
        ),
        (
            "빵집 주인", "늙은 뱃사람", "쌍둥이 남매", "부지런한 정원사", "학교 선생님", "화가 두 사람",
            "대장장이의 딸", "떠돌이 악사", "나룻배 사공", "동네 아이들", "벌 치는 농부", "은퇴한 판사", "야간 "
            "경비원", "그의 삼촌",
            "베 짜는 사람들", "수줍은 학생",
        ),
        (
            "사과 바구니를 날랐다", "부서진 울타리를 고쳤다", "긴 이야기를 들려주었다", "제비를 바라보았다",
            "양털 담요를 팔았다", "잃어버린 양을 찾았다", "반쯤 잊힌 노래를 불렀다", "모래 위에 지도를 그렸다",
            "따뜻한 빵을 나누었다", "마른 가지를 모았다", "날씨를 두고 다투었다", "놋쇠 등잔을 닦았다",
            "어린 나무를 심었다", "친구에게 편지를 썼다",
        ),
        (
            "낡은 방앗간 곁에서", "강가에서", "예배당 뒤에서", "언덕 위에서", "장터에서", "바닷가를 따라",
            "밤나무 아래에서", "좁은 골목에서", "우물가에서", "들판 건너편에서", "주막 앞에서", "숲 어귀에서",
            "항구 근처에서", "나무다리 위에서",
        ),
    ),
    "es": (
        "{time} {who} {what} {where}.",
        (
            "Por la mañana temprano", "Después de la lluvia", "En las tardes tranquilas", "Durante la fiesta",
            "A finales de otoño", "Antes de que sonaran las campanas", "Cada dos semanas", "Con la marea baja",
            "Al final del verano", "Hacia el mediodía", "Mientras los demás dormían", "Como siempre",
        ),
        (
            "el panadero", "un viejo marinero", "la gemela", "un jardinero paciente", "la maestra", "el pintor",
            "la hija del herrero", "un músico ambulante", "el barquero", "una niña", "el apicultor",
            "una jueza jubilada", "el vigilante nocturno", "su tío", "la tejedora", "un estudiante tímido",
        ),
        (
            "llevaba cestas de manzanas", "reparaba una valla rota", "contaba largas historias",
            "miraba las golondrinas", "vendía mantas de lana", "buscaba ovejas perdidas", "cantaba canciones "
            "casi olvidadas",
            "dibujaba mapas en la arena", "compartía pan caliente", "recogía ramas secas", "discutía sobre el tiempo",
            "pulía lámparas de latón", "plantaba árboles jóvenes", "escribía cartas a sus amigos",
        ),
        (
            "cerca del viejo molino", "junto al río", "detrás de la capilla", "en la colina", "en el mercado",
            "a lo largo de la costa", "bajo el castaño", "en el callejón", "al lado del pozo", "al otro lado del prado",
            "delante de la posada", "al borde del bosque", "cerca del puerto", "sobre el puente de madera",
        ),
    ),
}  # fmt: skip
"""By language: the sentence, then its times, people, actions and places (30,000 sentences)."""

_PLACES = {
    "en": ("Lisbon", "Oslo", "Cairo", "Lima", "Kyoto", "Dakar", "Vienna", "Quito", "Turin", "Perth", "Gdansk", "Busan"),
    "ko": ("서울", "부산", "오슬로", "리마", "교토", "빈", "대구", "전주", "카이로", "강릉", "토리노", "목포"),
    "es": (
        "Lisboa",
        "Oslo",
        "El Cairo",
        "Lima",
        "Kioto",
        "Dakar",
        "Viena",
        "Quito",
        "Turín",
        "Sevilla",
        "Bilbao",
        "Busan",
    ),
}
_COLOURS = {
    "en": ("red", "blue", "green", "white", "silver", "golden", "amber", "violet"),
    "ko": ("빨간", "파란", "초록", "하얀", "은빛", "금빛", "호박색", "보라색"),
    "es": ("rojo", "azul", "verde", "blanco", "plateado", "dorado", "gris", "violeta"),
}
_THINGS = {
    "en": ("vault", "archive", "locker", "laboratory", "cabinet", "server", "gate", "elevator"),
    "ko": ("금고", "서고", "사물함", "연구실", "보관함", "서버", "출입문", "승강기"),
    "es": ("archivo", "almacén", "armario", "laboratorio", "cofre", "servidor", "portón", "ascensor"),
}
_NEEDLES = {
    "en": (
        "The access code of the {colour} {thing} in {place} is {code}.",
        "What is the access code of the {colour} {thing} in {place}?",
    ),
    "ko": (
        "{place}에 있는 {colour} {thing}의 출입 번호는 {code}이다.",
        "{place}에 있는 {colour} {thing}의 출입 번호는 무엇입니까?",
    ),
    "es": (
        "El código de acceso del {thing} {colour} de {place} es {code}.",
        "¿Cuál es el código de acceso del {thing} {colour} de {place}?",
    ),
}


class Needle(NamedTuple):
    """A sentence to hide, the question it answers, and the answer."""

    sentence: str
    question: str
    code: str


def draw_needle(language: str, draw: Random) -> Needle:
    """Draw a needle, one of 770 questions a language, with a code of five digits."""
    sentence, question = _NEEDLES[language]
    about = {
        "place": draw.choice(_PLACES[language]),
        "colour": draw.choice(_COLOURS[language]),
        "thing": draw.choice(_THINGS[language]),
    }
    code = str(draw.randint(10_000, 99_999))
    return Needle(with_particles(sentence.format(code=code, **about)), question.format(**about), code)


def filler(language: str, draw: Random) -> Iterator[str]:
    """Yield sentences without end; neighbours differ."""
    form, times, people, actions, places = _FILLER[language]
    last = ""
    while True:
        words = {
            "time": draw.choice(times),
            "who": draw.choice(people),
            "what": draw.choice(actions),
            "where": draw.choice(places),
        }
        sentence = with_particles(form.format(**words))
        if sentence != last:
            yield sentence
        last = sentence


def count_words(text: str) -> int:
    """Return how many words stand between spaces."""
    return len(text.split())


def haystack(language: str, length: int, hidden: Mapping[float, str], draw: Random) -> str:
    """Return a context of at most `length` words (short of it by less than a sentence) with sentences hidden in it.

    `hidden` maps places, from 0 (the start) to 1 (the end), to sentences.
    """
    room = length - sum(map(count_words, hidden.values()))
    sentences, words = [], 0
    for sentence in filler(language, draw):
        words += count_words(sentence)
        if words > room:
            break
        sentences.append(sentence)
    count = len(sentences)
    for place, sentence in sorted(hidden.items(), reverse=True):
        sentences.insert(round(place * count), sentence)
    return paragraphs(sentences)


def paragraphs(sentences: Sequence[str], size: int = 6) -> str:
    """Return sentences in paragraphs of `size`."""
    return "\n\n".join(" ".join(sentences[start : start + size]) for start in range(0, len(sentences), size))


# --- documents of which two answer a question together ---

_PEOPLE = {
    "en": ("Ada Brook", "Tom Vale", "Nina Frost", "Carl Marsh", "Olga Reed", "Sam Birch", "Ivy Stone", "Max Holt"),
    "ko": ("김하준", "이서연", "박도현", "최지아", "정우진", "강수빈", "윤서아", "임건우"),
    "es": (
        "Ana Robles",
        "Luis Campo",
        "Marta Ríos",
        "Pablo Sierra",
        "Eva Prado",
        "Hugo Montes",
        "Inés Valle",
        "Raúl Nieto",
    ),
}
_FIRMS = {
    "en": (
        "Halden",
        "Corvus",
        "Brightwater",
        "Lindqvist",
        "Oakline",
        "Zephyr",
        "Marlow",
        "Tessera",
        "Fenwick",
        "Quarry",
    ),
    "ko": ("한빛", "새솔", "누리", "가람", "미르", "다온", "아라", "해오름", "푸른별", "온새미"),
    "es": (
        "Alborada",
        "Cierzo",
        "Tramontana",
        "Mirasol",
        "Rocafuerte",
        "Solana",
        "Bahía",
        "Lucero",
        "Encina",
        "Arrecife",
    ),
}
_TRADES = {
    "en": ("Shipping", "Textiles", "Optics", "Ceramics", "Robotics", "Foods"),
    "ko": ("해운", "섬유", "광학", "도자기", "로봇", "식품"),
    "es": ("Transportes", "Textiles", "Óptica", "Cerámica", "Robótica", "Alimentos"),
}
_FACTS = {
    "en": (
        "{who} works for {firm}.",
        "{firm} is based in {place}.",
        "In which city is the company based for which {who} works?",
    ),
    "ko": (
        "{who}은(는) {firm}에서 일한다.",
        "{firm}의 본사는 {place}에 있다.",
        "{who}이(가) 일하는 회사의 본사는 어느 도시에 있습니까?",
    ),
    "es": (
        "{who} trabaja para {firm}.",
        "{firm} tiene su sede en {place}.",
        "¿En qué ciudad tiene su sede la empresa para la que trabaja {who}?",
    ),
}
_DOCUMENT_WORDS = 80
"""A long context has about one document for so many words."""
_DOCUMENT = {"en": "Document", "ko": "문서", "es": "Documento"}


class Chain(NamedTuple):
    """A question that takes two documents, their facts, the answer, and the other answers that the context offers."""

    question: str
    facts: tuple[str, str]
    answer: str
    others: tuple[tuple[str, str], ...]
    """The facts of other people and firms."""
    rivals: tuple[str, ...]


def draw_chain(language: str, draw: Random, rivals: int = 3) -> Chain:
    """Draw a person, the firm that the person works for, and its city; and as many others as `rivals`."""
    people = draw.sample(_PEOPLE[language], rivals + 1)
    firms = [f"{name} {draw.choice(_TRADES[language])}" for name in draw.sample(_FIRMS[language], rivals + 1)]
    cities = draw.sample(_PLACES[language], rivals + 1)
    works, based, question = _FACTS[language]
    facts = [
        (
            with_particles(works.format(who=who, firm=firm)),
            with_particles(based.format(firm=firm, place=place)),
        )
        for who, firm, place in zip(people, firms, cities, strict=True)
    ]
    asked = with_particles(question.format(who=people[0]))
    return Chain(asked, facts[0], cities[0], tuple(facts[1:]), tuple(cities[1:]))


def documents(language: str, length: int, position: float, chain: Chain, draw: Random) -> str:
    """Return numbered documents of at most `length` words together (short of it by less than a sentence).

    The document that tells the city stands at `position`, the one that tells the firm at some other place; longer
    contexts have more documents without any fact.
    """
    facts = [chain.facts[0], *(fact for pair in chain.others for fact in pair)]
    facts += [""] * (length // _DOCUMENT_WORDS - len(facts) - 1)
    draw.shuffle(facts)
    facts.insert(round(position * len(facts)), chain.facts[1])
    share = [filler(language, draw) for _ in facts]
    texts = [[fact] if fact else [next(share[place])] for place, fact in enumerate(facts)]
    words = sum(count_words(text) for (text,) in texts) + 2 * len(facts)
    while True:
        place = min(range(len(texts)), key=lambda number: len(texts[number]))
        sentence = next(share[place])
        if (words := words + count_words(sentence)) > length:
            break
        texts[place].insert(draw.randint(0, len(texts[place])), sentence)
    return "\n\n".join(f"[{_DOCUMENT[language]} {n}]\n{' '.join(text)}" for n, text in enumerate(texts, start=1))
