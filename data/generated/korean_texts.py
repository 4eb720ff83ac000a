"""Made-up Korean statutes, public notices and technical manuals, and the formats that a document can be written in.

A document is a title and numbered sections; a section is a heading, facts (label, value) and prose that states them.
The names, agencies and figures are invented.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import NamedTuple

from data.generated.korean import with_particles


class Section(NamedTuple):
    """An article, an item or a chapter."""

    name: str
    """제3조, 3번, 3장."""
    heading: str
    facts: tuple[tuple[str, str], ...]
    """(label, value)."""
    prose: str


class Kind(NamedTuple):
    """How documents of a kind are made up."""

    title: str
    numbering: str
    headings: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
    """Words that follow each other."""
    prose: str
    values: Mapping[str, Callable[[Random], str]]


_AGENCIES = (
    "환경관리청",
    "산업진흥원",
    "도로안전국",
    "수자원센터",
    "지역개발청",
    "식품안전원",
    "문화유산국",
    "에너지관리원",
)
_OFFICES = (
    "산업지원과",
    "주민복지과",
    "교통행정과",
    "환경정책과",
    "평생교육과",
    "건축허가과",
    "농업기술과",
    "세무관리과",
)

KINDS: Mapping[str, Kind] = {
    "statute": Kind(
        title="{0} {1} 관리에 관한 법률",
        numbering="제{}조",
        headings=(
            ("폐기물", "하천", "도로", "항만", "산림", "지하수", "소음", "식품", "화학물질", "문화재", "공원", "철도"),
            ("시설", "사업", "구역", "설비", "자료", "표지", "기금", "단체", "계획", "장비"),
            ("설치", "변경", "폐지", "승인", "등록", "점검", "양도", "공개", "조사", "위탁"),
        ),
        prose="{담당 기관}은(는) {heading}에 관한 신청을 받은 날부터 {처리 기한} 이내에 그 결과를 신청인에게 "
        "알려야 한다. "
        "관련 서류는 {보존 기간} 동안 보존하여야 하며, 이를 위반한 자에게는 {과태료 상한} 이하의 과태료를 부과한다.",
        values={
            "담당 기관": lambda draw: draw.choice(_AGENCIES),
            "처리 기한": lambda draw: f"{draw.randint(3, 90)}일",
            "보존 기간": lambda draw: f"{draw.randint(1, 30)}년",
            "과태료 상한": lambda draw: f"{draw.randint(5, 200) * 10}만원",
        },
    ),
    "notice": Kind(
        title="{0} {1} 시행 공고",
        numbering="{}번",
        headings=(
            (
                "청년",
                "중소기업",
                "농촌",
                "어르신",
                "다문화",
                "예비",
                "여성",
                "소상공인",
                "지역",
                "사회적",
                "디지털",
                "친환경",
            ),
            ("창업", "수출", "기술", "일자리", "문화", "주거", "건강", "돌봄", "관광", "전통시장"),
            ("지원", "교육", "상담", "바우처", "융자", "체험", "홍보", "인증", "컨설팅", "장학"),
        ),
        prose="{heading} 사업은 {모집 인원}을(를) 모집하고, 선정되면 {지원 금액}을(를) 지급한다. "
        "신청서는 {접수 마감}까지 {접수 부서}에 제출하여야 하며, 마감 뒤에는 받지 아니한다.",
        values={
            "모집 인원": lambda draw: f"{draw.randint(5, 300)}명",
            "지원 금액": lambda draw: f"{draw.randint(5, 300) * 10}만원",
            "접수 마감": lambda draw: f"{draw.randint(1, 12)}월 {draw.randint(1, 28)}일",
            "접수 부서": lambda draw: draw.choice(_OFFICES),
        },
    ),
    "manual": Kind(
        title="{0} {1} 장치 정비 지침서",
        numbering="{}장",
        headings=(
            ("전면", "후면", "상부", "하부", "좌측", "우측", "보조", "주", "외부", "내부", "예비", "중앙"),
            ("냉각", "구동", "제어", "윤활", "배기", "흡입", "가열", "전원", "유압", "여과"),
            ("펌프", "모터", "밸브", "기판", "베어링", "센서", "팬", "배관", "탱크", "스위치"),
        ),
        prose="{heading}의 정격 전압은 {정격 전압}이고 허용 온도는 {허용 온도}이다. "
        "고정 볼트는 {조임 토크}의 힘으로 조이고, {점검 주기}마다 상태를 확인하여 기록한다.",
        values={
            "정격 전압": lambda draw: f"{draw.randint(1, 80) * 6}V",
            "허용 온도": lambda draw: f"{draw.randint(30, 140)}도",
            "조임 토크": lambda draw: f"{draw.randint(5, 120)}뉴턴미터",
            "점검 주기": lambda draw: f"{draw.randint(2, 36)}개월",
        },
    ),
}


def draw_title(kind: str, draw: Random) -> str:
    """Return the title of a made-up document."""
    first, second, _ = KINDS[kind].headings
    return KINDS[kind].title.format(draw.choice(first), draw.choice(second))


def draw_sections(kind: str, draw: Random) -> Iterator[Section]:
    """Yield numbered sections with different headings, 1200 at most."""
    about = KINDS[kind]
    seen: set[str] = set()
    while len(seen) < 1200:
        heading = " ".join(draw.choice(words) for words in about.headings)
        if heading in seen:
            continue
        seen.add(heading)
        facts = {label: value(draw) for label, value in about.values.items()}
        prose = with_particles(about.prose.format(heading=heading, **facts))
        yield Section(about.numbering.format(len(seen)), heading, tuple(facts.items()), prose)


# --- formats ---


class Format(NamedTuple):
    """How a document is written: what is before, between and after its sections, and how one is written."""

    head: Callable[[str], str]
    section: Callable[[Section], str]
    join: str = "\n\n"
    tail: str = ""


def _plain(section: Section) -> str:
    return f"{section.name}({section.heading}) {section.prose}"


def _table_rows(section: Section) -> str:
    rows = [
        f"| {section.name} | {section.heading} | {label} | {value.replace('|', '/')} |"
        for label, value in section.facts
    ]
    return "\n".join(" ".join(row.split()) for row in rows)


def _json_object(section: Section) -> str:
    return json.dumps({"번호": section.name, "제목": section.heading, **dict(section.facts)}, ensure_ascii=False)


def _clauses(section: Section) -> str:
    lines = [f"  {mark} {label}: {value}" for mark, (label, value) in zip("①②③④⑤⑥", section.facts, strict=False)]
    return "\n".join((f"{section.name} {section.heading}", *lines))


def _questions(section: Section) -> str:
    asked = with_particles(
        "\n".join(f"문: {section.name} {section.heading}의 {label}은(는)?\n답: @" for label, _ in section.facts)
    )
    for _, value in section.facts:
        asked = asked.replace("@", value, 1)
    return asked


def _form(section: Section) -> str:
    lines = [f"   - {label} [ {value} ]" for label, value in section.facts]
    return "\n".join((f"□ {section.name} {section.heading}", *lines))


FORMATS: Mapping[str, Format] = {
    "plain": Format(lambda title: f"{title}\n\n", _plain),
    "table": Format(
        lambda title: f"# {title}\n\n| 번호 | 제목 | 항목 | 내용 |\n|---|---|---|---|\n", _table_rows, "\n"
    ),
    "json": Format(
        lambda title: f'{{"문서": {json.dumps(title, ensure_ascii=False)}, "항목": [\n', _json_object, ",\n", "\n]}"
    ),
    "clauses": Format(lambda title: f"【{title}】\n\n", _clauses),
    "qa": Format(lambda title: f"{title} 질의응답\n\n", _questions),
    "form": Format(lambda title: f"<서식> {title}\n\n", _form),
}


def render(title: str, sections: list[Section], form: str) -> str:
    """Return the document in one of `FORMATS`."""
    about = FORMATS[form]
    return about.head(title) + about.join.join(map(about.section, sections)) + about.tail
