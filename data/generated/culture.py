"""Customs, schools, trades and places of the countries where English, Korean and Spanish are spoken.

Each line: what is asked about, the answer, and a word on why. Facts, not opinions; asked in one language each.
"""

from random import Random
from typing import NamedTuple

from data.generated.korean import with_particles


class Question(NamedTuple):
    """A question with one answer."""

    question: str
    answer: str
    thinking: str
    key: str


_TABLES = {
    "ko": """
추석에 빚어 먹는 반달 모양의 떡|송편|추석은 햇곡식으로 송편을 빚는 명절이다
설날에 어른께 드리는 큰절|세배|설날에는 웃어른께 세배를 한다
설날에 먹으며 한 살을 더한다고 하는 국|떡국|설날 아침에는 떡국을 먹는다
동짓날에 쑤어 먹는 죽|팥죽|동지에는 붉은 팥으로 죽을 쑨다
한글을 만든 조선의 임금|세종대왕|세종대왕이 1443년에 훈민정음을 만들었다
한글날의 날짜|10월 9일|훈민정음 반포를 기념하는 날이다
광복절의 날짜|8월 15일|1945년 8월 15일의 해방을 기념한다
거북선을 이끈 조선의 장군|이순신|이순신은 임진왜란 때 거북선을 이끌었다
대한민국에서 가장 높은 산|한라산|한라산은 제주도에 있고 높이는 1,947미터이다
대한민국에서 가장 큰 섬|제주도|제주도는 남해에 있는 화산섬이다
김치를 한꺼번에 많이 담그는 초겨울의 풍습|김장|겨울을 나려고 김장을 한다
아궁이의 열로 방바닥을 데우는 전통 난방|온돌|방바닥 아래의 돌을 데우는 방식이다
경주를 수도로 삼은 옛 나라|신라|신라의 수도는 서라벌, 지금의 경주이다
고등학교 3학년이 11월에 치르는 대학 입학 시험|수능|대학수학능력시험을 줄여 수능이라고 한다
초등학교에 다니는 햇수|6년|학제는 6-3-3-4이다
중학교에 다니는 햇수|3년|학제는 6-3-3-4이다
새 학년이 시작되는 달|3월|한국의 학년은 3월에 시작한다
조선소가 많은 남해안의 섬 도시|거제|거제에는 큰 조선소들이 있다
자동차 공장으로 이름난 동남쪽 광역시|울산|울산에는 큰 자동차 공장이 있다
큰 제철소가 있는 경상북도의 항구 도시|포항|포항에서는 1973년에 제철소가 쇳물을 뽑았다
전주를 대표하는 나물 비빔 음식|비빔밥|전주비빔밥이 이름나 있다
소리꾼이 북 장단에 맞추어 긴 이야기를 노래하는 공연|판소리|소리꾼과 고수가 함께 한다
우리나라의 나라꽃|무궁화|무궁화는 대한민국의 나라꽃이다
조선의 첫 임금|이성계|태조 이성계가 1392년에 조선을 세웠다
""",
    "es": """
el libro más famoso de Cervantes|Don Quijote|Cervantes publicó Don Quijote en 1605 y 1615
la fruta que se come al son de las campanadas de Nochevieja en España|uvas|Se comen doce uvas, una por campanada
el pintor del Guernica|Picasso|Picasso pintó el Guernica en 1937
el arquitecto de la Sagrada Familia|Gaudí|Gaudí dirigió la obra desde 1883
la ciudad de la Alhambra|Granada|La Alhambra domina la ciudad de Granada
la ciudad de las Fallas|Valencia|Las Fallas se celebran en Valencia en marzo
la montaña más alta de España|Teide|El Teide está en Tenerife y mide 3715 metros
el río más largo de la península ibérica|Tajo|El Tajo desemboca en Lisboa
la sopa fría de tomate de Andalucía|gazpacho|El gazpacho se hace con tomate, pepino y pimiento
la masa de maíz con la que se hacen los tacos|tortilla|La tortilla de maíz es la base del taco
la fiesta mexicana de principios de noviembre|Día de Muertos|Se celebra el 1 y el 2 de noviembre
la antigua ciudad inca sobre el valle del Urubamba|Machu Picchu|Machu Picchu está en Perú
la bebida de yerba que se comparte en Argentina y Uruguay|mate|El mate se toma con bombilla
el baile porteño nacido a orillas del Río de la Plata|tango|El tango nació en Buenos Aires y Montevideo
la autora chilena que ganó el Nobel en 1945|Gabriela Mistral|Fue la primera de América Latina en ganarlo
el autor de Cien años de soledad|García Márquez|Gabriel García Márquez la publicó en 1967
la pintora de Las dos Fridas|Frida Kahlo|Frida Kahlo lo pintó en 1939
el canal que une el Atlántico y el Pacífico en Centroamérica|canal de Panamá|Se abrió en 1914
el examen de acceso a la universidad en España que antes se llamaba Selectividad|PAU|Vuelve a llamarse PAU
los años que dura la educación primaria en España|seis|Va de los seis a los doce años
los cursos que tiene el Bachillerato en España|dos|Sigue a los cuatro cursos de la ESO
la ciudad gallega a la que lleva el Camino|Santiago de Compostela|El Camino termina en su catedral
el metal que más exporta Chile|cobre|Chile es el mayor productor de cobre del mundo
el aceite del que España es el mayor productor|aceite de oliva|La mayor parte viene de Jaén
""",
    "en": """
the author of Hamlet|Shakespeare|Shakespeare wrote it around 1600
the river that flows through London|Thames|The Thames flows through London to the North Sea
the longest river of Ireland|Shannon|The Shannon is 360 kilometres long
the highest mountain of Scotland|Ben Nevis|Ben Nevis is 1345 metres high
the date on which the United States celebrate independence|July 4|The declaration was adopted on July 4, 1776
the bird served at an American Thanksgiving dinner|turkey|Roast turkey is the traditional dish
the stone circle on Salisbury Plain|Stonehenge|Stonehenge stands in Wiltshire
the number of players of a cricket team|11|Each side has 11 players
the date of Saint Patrick's Day|March 17|It is Ireland's national day
the flower that recalls the dead of the First World War in Britain|poppy|Poppies grew on the fields of Flanders
the national park around Old Faithful|Yellowstone|Old Faithful is a geyser in Yellowstone
the river of the Grand Canyon|Colorado|The Colorado cut the canyon
the author of Pride and Prejudice|Jane Austen|Jane Austen published it in 1813
the largest reef, off the coast of Queensland|Great Barrier Reef|It is more than 2000 kilometres long
the people who first settled New Zealand|Maori|They came from Polynesia
the flightless bird that gives New Zealanders their nickname|kiwi|The kiwi lives only there
the month of Burns Night in Scotland|January|Burns Night is on 25 January
the last year of an American high school, as a student is called|senior|Freshman, sophomore, junior, senior
the exams that British pupils take at sixteen|GCSEs|A levels follow at eighteen
the number of states of the United States|50|Hawaii became the fiftieth in 1959
the American city known for its car industry|Detroit|Detroit is called Motor City
the river on which Liverpool lies|Mersey|Liverpool is at the mouth of the Mersey
the instrument with bag and pipes played in the Highlands|bagpipes|The Great Highland bagpipe is Scottish
the Welsh name of Wales|Cymru|Wales is Cymru in Welsh
""",
}
_ASK = {
    "ko": (
        "{}은(는)?",
        "퀴즈: {}은(는)?",
        "다음 설명에 맞는 답을 쓰세요: {}.",
        "무엇 또는 누구를 말하는지 쓰세요: {}.",
        "{}, 답은?",
        "{}을(를) 쓰세요.",
    ),
    "es": (
        "¿Qué o quién es {}?",
        "Adivina: {}.",
        "¿Cuál es la respuesta? Se busca {}.",
        "Pregunta de cultura: {}.",
        "Dime {}.",
        "Di cómo se llama o cuál es: {}.",
    ),
    "en": (
        "What or who is {}?",
        "Name {}.",
        "A quiz question: {}?",
        "Can you tell me {}?",
        "I am looking for {}. What is it?",
        "Please give me {}.",
    ),
}


def _rows(language: str) -> list[list[str]]:
    return [line.split("|") for line in _TABLES[language].strip().splitlines()]


ROWS = {language: _rows(language) for language in _TABLES}
"""By language: [what is asked about, the answer, why]."""


def draw_question(language: str, draw: Random) -> Question:
    """Draw a question; it is in one split, however it is asked."""
    asked, answer, why = draw.choice(ROWS[language])
    question = with_particles(draw.choice(_ASK[language]).format(asked))
    return Question(question, answer, f"{why}.", f"{language} {asked}")
