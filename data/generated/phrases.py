"""Sentences with their translations, composed of small tables: who, when, where, what."""

from random import Random
from typing import NamedTuple

from data.generated.facts import Named
from data.generated.korean import with_particles


class Sentence(NamedTuple):
    """A sentence in the three languages, and the words it is made of."""

    text: Named
    words: tuple[Named, ...]


_WHO = (
    Named("The teacher", "선생님", "La profesora"),
    Named("My brother", "제 남동생", "Mi hermano"),
    Named("The doctor", "의사", "El médico"),
    Named("Our neighbour", "우리 이웃", "Nuestra vecina"),
    Named("The student", "학생", "El estudiante"),
    Named("The engineer", "기술자", "La ingeniera"),
    Named("The farmer", "농부", "El agricultor"),
    Named("My grandmother", "우리 할머니", "Mi abuela"),
    Named("The fisherman", "어부", "El pescador"),
    Named("The nurse", "간호사", "La enfermera"),
)
_WHEN = (
    Named("every morning", "매일 아침", "todas las mañanas"),
    Named("on Mondays", "월요일마다", "los lunes"),
    Named("in summer", "여름에", "en verano"),
    Named("in the evening", "저녁에", "por la tarde"),
    Named("at weekends", "주말에", "los fines de semana"),
    Named("in winter", "겨울에", "en invierno"),
    Named("after lunch", "점심 식사 후에", "después de comer"),
    Named("before work", "출근 전에", "antes del trabajo"),
)
_WHERE = (
    Named("at home", "집에서", "en casa"),
    Named("at school", "학교에서", "en la escuela"),
    Named("in the park", "공원에서", "en el parque"),
    Named("at the library", "도서관에서", "en la biblioteca"),
    Named("in the garden", "정원에서", "en el jardín"),
    Named("at the station", "역에서", "en la estación"),
    Named("by the sea", "바닷가에서", "junto al mar"),
    Named("in the office", "사무실에서", "en la oficina"),
)
_WHAT = (
    Named("reads a book", "책을 읽습니다", "lee un libro"),
    Named("drinks coffee", "커피를 마십니다", "bebe café"),
    Named("writes a letter", "편지를 씁니다", "escribe una carta"),
    Named("learns Korean", "한국어를 배웁니다", "aprende coreano"),
    Named("eats an apple", "사과를 먹습니다", "come una manzana"),
    Named("listens to music", "음악을 듣습니다", "escucha música"),
    Named("meets a friend", "친구를 만납니다", "se encuentra con un amigo"),
    Named("draws a picture", "그림을 그립니다", "hace un dibujo"),
    Named("repairs a bicycle", "자전거를 고칩니다", "repara una bicicleta"),
    Named("sells flowers", "꽃을 팝니다", "vende flores"),
)


def draw_sentence(draw: Random) -> Sentence:
    """Draw one of 6400 sentences."""
    words = who, what, where, when = tuple(draw.choice(table) for table in (_WHO, _WHAT, _WHERE, _WHEN))
    return Sentence(
        Named(
            f"{who.en} {what.en} {where.en} {when.en}.",
            with_particles(f"{who.ko}은(는) {when.ko} {where.ko} {what.ko}."),
            f"{who.es} {what.es} {where.es} {when.es}.",
        ),
        words,
    )
