"""Tables of facts in English, Korean and Spanish, for the generators."""

from typing import NamedTuple


class Named(NamedTuple):
    """A name in the three languages."""

    en: str
    ko: str
    es: str


class Country(NamedTuple):
    """A country, its capital and its continent."""

    name: Named
    capital: Named
    continent: str
    """A key of `CONTINENTS`."""


class Element(NamedTuple):
    """A chemical element."""

    symbol: str
    number: int
    """Of protons."""
    name: Named


CONTINENTS = {
    "Europe": Named("Europe", "유럽", "Europa"),
    "Asia": Named("Asia", "아시아", "Asia"),
    "Africa": Named("Africa", "아프리카", "África"),
    "North America": Named("North America", "북아메리카", "América del Norte"),
    "South America": Named("South America", "남아메리카", "América del Sur"),
    "Oceania": Named("Oceania", "오세아니아", "Oceanía"),
}

_COUNTRIES = """
France|프랑스|Francia|Paris|파리|París|Europe
Germany|독일|Alemania|Berlin|베를린|Berlín|Europe
Italy|이탈리아|Italia|Rome|로마|Roma|Europe
Spain|스페인|España|Madrid|마드리드|Madrid|Europe
Portugal|포르투갈|Portugal|Lisbon|리스본|Lisboa|Europe
Greece|그리스|Grecia|Athens|아테네|Atenas|Europe
Poland|폴란드|Polonia|Warsaw|바르샤바|Varsovia|Europe
Austria|오스트리아|Austria|Vienna|빈|Viena|Europe
Sweden|스웨덴|Suecia|Stockholm|스톡홀름|Estocolmo|Europe
Norway|노르웨이|Noruega|Oslo|오슬로|Oslo|Europe
Denmark|덴마크|Dinamarca|Copenhagen|코펜하겐|Copenhague|Europe
Finland|핀란드|Finlandia|Helsinki|헬싱키|Helsinki|Europe
Ireland|아일랜드|Irlanda|Dublin|더블린|Dublín|Europe
Hungary|헝가리|Hungría|Budapest|부다페스트|Budapest|Europe
Iceland|아이슬란드|Islandia|Reykjavik|레이캬비크|Reikiavik|Europe
South Korea|대한민국|Corea del Sur|Seoul|서울|Seúl|Asia
Japan|일본|Japón|Tokyo|도쿄|Tokio|Asia
China|중국|China|Beijing|베이징|Pekín|Asia
India|인도|India|New Delhi|뉴델리|Nueva Delhi|Asia
Thailand|태국|Tailandia|Bangkok|방콕|Bangkok|Asia
Vietnam|베트남|Vietnam|Hanoi|하노이|Hanói|Asia
Mongolia|몽골|Mongolia|Ulaanbaatar|울란바토르|Ulán Bator|Asia
Nepal|네팔|Nepal|Kathmandu|카트만두|Katmandú|Asia
Iraq|이라크|Irak|Baghdad|바그다드|Bagdad|Asia
Egypt|이집트|Egipto|Cairo|카이로|El Cairo|Africa
Kenya|케냐|Kenia|Nairobi|나이로비|Nairobi|Africa
Morocco|모로코|Marruecos|Rabat|라바트|Rabat|Africa
Ghana|가나|Ghana|Accra|아크라|Acra|Africa
Senegal|세네갈|Senegal|Dakar|다카르|Dakar|Africa
Ethiopia|에티오피아|Etiopía|Addis Ababa|아디스아바바|Adís Abeba|Africa
Canada|캐나다|Canadá|Ottawa|오타와|Ottawa|North America
Mexico|멕시코|México|Mexico City|멕시코시티|Ciudad de México|North America
Cuba|쿠바|Cuba|Havana|아바나|La Habana|North America
Costa Rica|코스타리카|Costa Rica|San José|산호세|San José|North America
Argentina|아르헨티나|Argentina|Buenos Aires|부에노스아이레스|Buenos Aires|South America
Brazil|브라질|Brasil|Brasília|브라질리아|Brasilia|South America
Chile|칠레|Chile|Santiago|산티아고|Santiago|South America
Peru|페루|Perú|Lima|리마|Lima|South America
Colombia|콜롬비아|Colombia|Bogotá|보고타|Bogotá|South America
Uruguay|우루과이|Uruguay|Montevideo|몬테비데오|Montevideo|South America
Australia|호주|Australia|Canberra|캔버라|Canberra|Oceania
New Zealand|뉴질랜드|Nueva Zelanda|Wellington|웰링턴|Wellington|Oceania
"""
_ELEMENTS = """
H|1|hydrogen|수소|hidrógeno
He|2|helium|헬륨|helio
Li|3|lithium|리튬|litio
C|6|carbon|탄소|carbono
N|7|nitrogen|질소|nitrógeno
O|8|oxygen|산소|oxígeno
F|9|fluorine|플루오린|flúor
Ne|10|neon|네온|neón
Na|11|sodium|나트륨|sodio
Mg|12|magnesium|마그네슘|magnesio
Al|13|aluminium|알루미늄|aluminio
Si|14|silicon|규소|silicio
P|15|phosphorus|인|fósforo
S|16|sulfur|황|azufre
Cl|17|chlorine|염소|cloro
Ar|18|argon|아르곤|argón
K|19|potassium|칼륨|potasio
Ca|20|calcium|칼슘|calcio
Ti|22|titanium|타이타늄|titanio
Fe|26|iron|철|hierro
Ni|28|nickel|니켈|níquel
Cu|29|copper|구리|cobre
Zn|30|zinc|아연|zinc
Br|35|bromine|브로민|bromo
Ag|47|silver|은|plata
Sn|50|tin|주석|estaño
I|53|iodine|아이오딘|yodo
Au|79|gold|금|oro
Hg|80|mercury|수은|mercurio
Pb|82|lead|납|plomo
"""
_OPPOSITES = """
hot|cold|뜨겁다|차갑다|caliente|frío
big|small|크다|작다|grande|pequeño
high|low|높다|낮다|alto|bajo
fast|slow|빠르다|느리다|rápido|lento
light|dark|밝다|어둡다|claro|oscuro
new|old|새롭다|오래되다|nuevo|viejo
full|empty|가득 차다|비다|lleno|vacío
rich|poor|부유하다|가난하다|rico|pobre
strong|weak|강하다|약하다|fuerte|débil
long|short|길다|짧다|largo|corto
wet|dry|젖다|마르다|mojado|seco
easy|difficult|쉽다|어렵다|fácil|difícil
open|closed|열리다|닫히다|abierto|cerrado
clean|dirty|깨끗하다|더럽다|limpio|sucio
near|far|가깝다|멀다|cerca|lejos
wide|narrow|넓다|좁다|ancho|estrecho
"""
_WEEKDAYS = """
Monday|월요일|lunes
Tuesday|화요일|martes
Wednesday|수요일|miércoles
Thursday|목요일|jueves
Friday|금요일|viernes
Saturday|토요일|sábado
Sunday|일요일|domingo
"""
_MONTHS = """
January|1월|enero
February|2월|febrero
March|3월|marzo
April|4월|abril
May|5월|mayo
June|6월|junio
July|7월|julio
August|8월|agosto
September|9월|septiembre
October|10월|octubre
November|11월|noviembre
December|12월|diciembre
"""
_UNITS = """
kilometres|킬로미터|kilómetros|metres|미터|metros|1000
metres|미터|metros|centimetres|센티미터|centímetros|100
centimetres|센티미터|centímetros|millimetres|밀리미터|milímetros|10
kilograms|킬로그램|kilogramos|grams|그램|gramos|1000
litres|리터|litros|millilitres|밀리리터|mililitros|1000
hours|시간|horas|minutes|분|minutos|60
minutes|분|minutos|seconds|초|segundos|60
days|일|días|hours|시간|horas|24
weeks|주|semanas|days|일|días|7
"""


def _lines(table: str) -> list[list[str]]:
    return [line.split("|") for line in table.strip().splitlines()]


COUNTRIES = tuple(Country(Named(*row[:3]), Named(*row[3:6]), row[6]) for row in _lines(_COUNTRIES))
ELEMENTS = tuple(Element(symbol, int(number), Named(*names)) for symbol, number, *names in _lines(_ELEMENTS))
OPPOSITES = tuple((Named(*row[0::2]), Named(*row[1::2])) for row in _lines(_OPPOSITES))
WEEKDAYS = tuple(Named(*row) for row in _lines(_WEEKDAYS))
MONTHS = tuple(Named(*row) for row in _lines(_MONTHS))
UNITS = tuple((Named(*row[:3]), Named(*row[3:6]), int(row[6])) for row in _lines(_UNITS))
"""(large unit, small unit, how many small ones make a large one)."""
