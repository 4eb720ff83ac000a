"""World knowledge: a hundred facts, each asked in several ways in three languages.

A model of this size can only know what it was taught. So every fact is in the training questions, and what is held
out is the way of asking: a (fact, wording, language) of a test question is in no training question.
"""

import random
from collections.abc import Mapping, Sequence

from data.tiny_domains.tasks import LANGUAGES, Task, ask, boxed, gold_text

_CAPITALS = """
France/Paris/프랑스/파리/Francia/París Spain/Madrid/스페인/마드리드/España/Madrid Italy/Rome/이탈리아/로마/Italia/Roma
Germany/Berlin/독일/베를린/Alemania/Berlín Korea/Seoul/한국/서울/Corea/Seúl Japan/Tokyo/일본/도쿄/Japón/Tokio
China/Beijing/중국/베이징/China/Pekín Peru/Lima/페루/리마/Perú/Lima Chile/Santiago/칠레/산티아고/Chile/Santiago
Greece/Athens/그리스/아테네/Grecia/Atenas Russia/Moscow/러시아/모스크바/Rusia/Moscú
Portugal/Lisbon/포르투갈/리스본/Portugal/Lisboa Austria/Vienna/오스트리아/빈/Austria/Viena
Poland/Warsaw/폴란드/바르샤바/Polonia/Varsovia Norway/Oslo/노르웨이/오슬로/Noruega/Oslo
Kenya/Nairobi/케냐/나이로비/Kenia/Nairobi Ireland/Dublin/아일랜드/더블린/Irlanda/Dublín
Turkey/Ankara/튀르키예/앙카라/Turquía/Ankara Iran/Tehran/이란/테헤란/Irán/Teherán
Colombia/Bogota/콜롬비아/보고타/Colombia/Bogotá Ecuador/Quito/에콰도르/키토/Ecuador/Quito
Hungary/Budapest/헝가리/부다페스트/Hungría/Budapest
"""
_ANIMALS = """
crow/bird/까마귀/새/cuervo/ave owl/bird/올빼미/새/búho/ave duck/bird/오리/새/pato/ave
salmon/fish/연어/물고기/salmón/pez shark/fish/상어/물고기/tiburón/pez tuna/fish/참치/물고기/atún/pez
ant/insect/개미/곤충/hormiga/insecto bee/insect/벌/곤충/abeja/insecto moth/insect/나방/곤충/polilla/insecto
cow/mammal/소/포유류/vaca/mamífero horse/mammal/말/포유류/caballo/mamífero whale/mammal/고래/포유류/ballena/mamífero
bear/mammal/곰/포유류/oso/mamífero snake/reptile/뱀/파충류/serpiente/reptil lizard/reptile/도마뱀/파충류/lagarto/reptil
"""
_COLOURS = """
snow/white/눈/하얀색/nieve/blanco milk/white/우유/하얀색/leche/blanco salt/white/소금/하얀색/sal/blanco
coal/black/석탄/검은색/carbón/negro night/black/밤/검은색/noche/negro blood/red/피/빨간색/sangre/rojo
roses/red/장미/빨간색/rosas/rojo tomatoes/red/토마토/빨간색/tomates/rojo grass/green/풀/초록색/hierba/verde
leaves/green/잎/초록색/hojas/verde sky/blue/하늘/파란색/cielo/azul sea/blue/바다/파란색/mar/azul
lemons/yellow/레몬/노란색/limones/amarillo bananas/yellow/바나나/노란색/plátanos/amarillo
"""
_OPPOSITES = """
big/small/크다/작다/grande/pequeño high/low/높다/낮다/alto/bajo long/short/길다/짧다/largo/corto
bright/dark/밝다/어둡다/claro/oscuro fast/slow/빠르다/느리다/rápido/lento heavy/light/무겁다/가볍다/pesado/ligero
open/close/열다/닫다/abrir/cerrar buy/sell/사다/팔다/comprar/vender wide/narrow/넓다/좁다/ancho/estrecho
easy/hard/쉽다/어렵다/fácil/difícil strong/weak/강하다/약하다/fuerte/débil hot/cold/덥다/춥다/caliente/frío
"""


def _pairs(table: str, *, inverse: bool = False) -> dict[str, list[tuple[str, str]]]:
    """Return the (what is asked about, answer) of a table by language."""
    rows = [entry.split("/") for entry in table.split()]
    found = {lang: [(row[2 * at], row[2 * at + 1]) for row in rows] for at, lang in enumerate(LANGUAGES)}
    return {lang: [(y, x) for x, y in pairs] for lang, pairs in found.items()} if inverse else found


FACTS: Mapping[str, Mapping[str, Sequence[tuple[str, str]]]] = {
    "capital": _pairs(_CAPITALS),
    "country": _pairs(_CAPITALS, inverse=True),
    "animal": _pairs(_ANIMALS),
    "colour": _pairs(_COLOURS),
    "opposite": {lang: [*_pairs(_OPPOSITES)[lang], *_pairs(_OPPOSITES, inverse=True)[lang]] for lang in LANGUAGES},
}

_ASKED: Mapping[str, Mapping[str, tuple[str, str, str]]] = {
    "capital": {
        "en": ("What is the capital of {x}?", "Name the capital of {x}.", "The capital of {x} is {y}."),
        "ko": ("{x}의 수도는 어디입니까?", "{x}의 수도를 말해 보세요.", "{x}의 수도는 {y}입니다."),
        "es": ("¿Cuál es la capital de {x}?", "Nombra la capital de {x}.", "La capital de {x} es {y}."),
    },
    "country": {
        "en": ("{x} is the capital of which country?", "Name the country of {x}.", "{x} is the capital of {y}."),
        "ko": ("{x}의 나라는 어디입니까?", "{x}의 나라를 말해 보세요.", "{x}의 나라는 {y}입니다."),
        "es": ("¿De qué país es capital {x}?", "Nombra el país de {x}.", "{x} es la capital de {y}."),
    },
    "animal": {
        "en": ("What kind of animal is this: {x}?", "Name the class of {x}.", "The class of {x} is {y}."),
        "ko": ("{x}의 종류는 무엇입니까?", "{x}의 종류를 말해 보세요.", "{x}의 종류는 {y}입니다."),
        "es": ("¿Qué clase de animal es: {x}?", "Nombra la clase de {x}.", "La clase de {x} es {y}."),
    },
    "colour": {
        "en": ("What is the usual colour of {x}?", "Name the colour of {x}.", "The colour of {x} is {y}."),
        "ko": ("{x}의 색은 무엇입니까?", "{x}의 색을 말해 보세요.", "{x}의 색은 {y}입니다."),
        "es": ("¿Cuál es el color habitual de {x}?", "Nombra el color de {x}.", "El color de {x} es {y}."),
    },
    "opposite": {
        "en": ("What is the opposite of {x}?", "Name the opposite of {x}.", "The opposite of {x} is {y}."),
        "ko": ("{x}의 반대말은 무엇입니까?", "{x}의 반대말을 말해 보세요.", "{x}의 반대말은 {y}입니다."),
        "es": ("¿Cuál es el contrario de {x}?", "Nombra el contrario de {x}.", "El contrario de {x} es {y}."),
    },
}
"""Two ways to ask and the answer."""
_BEFORE = {
    "en": ("", "Quiz: ", "Please answer. ", "Hello! "),
    "ko": ("", "퀴즈: ", "답해 주세요. ", "안녕하세요! "),
    "es": ("", "Examen: ", "Responde, por favor. ", "¡Hola! "),
}
_WORKED = {
    "en": "The question is about {x}. I recall this fact: {statement}",
    "ko": "질문은 다음에 대한 것입니다: {x}. 기억나는 사실: {statement}",
    "es": "La pregunta trata de {x}. Recuerdo este dato: {statement}",
}


def draw_task(draw: random.Random, language: str) -> Task:
    """Draw a question about a fact."""
    relation = draw.choices(list(FACTS), weights=[len(facts["en"]) for facts in FACTS.values()])[0]
    x, y = draw.choice(FACTS[relation][language])
    first, second, statement = _ASKED[relation][language]
    question = draw.choice(_BEFORE[language]) + draw.choice((first, second)).format(x=x)
    return Task(
        task=relation,
        language=language,
        messages=ask(question),
        worked=_WORKED[language].format(x=x, statement=statement.format(x=x, y=y)),
        terse=f"{x}: {y}",
        content=statement.format(x=x, y=boxed(y)),
        columns=gold_text(y),
    )
