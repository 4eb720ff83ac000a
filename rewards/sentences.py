"""How many sentences does a text have?

    punkt_sentences    IFEval's count, that of NLTK's Punkt for English (Kiss and Strunk, 2006): numbers compare
    count_sentences    as a reader counts, in English, Spanish or Korean: for rows that IFEval does not have

Punkt's decisions are made here from short lists of words; its trained model knows some ten thousand words of English
that begin sentences, which matter only behind abbreviations and initials.
"""

import re
from itertools import pairwise, zip_longest

_WORD = re.compile(r"\w")

# --- Punkt ---

_CUTS = "()[]{}\"';:*@!?"
"""What may follow the end of a sentence without a space."""
_NUMBER = re.compile(r"-?[.,]?\d[\d,.-]*\.?")
_INITIAL = re.compile(r"[^\W\d]\.")
_ENDS_WITHIN = re.compile(r"[?!].|\w\.[()\[\]{}\"';:*]")
_CLOSING = re.compile(r"[\"')\]}]+?(?:\s+|(?=--)|$)")
_SHORT = """
    a.a a.c a.d a.g a.h a.m a.m.e a.s a.t adm ala ariz aug ave b.f b.v bros c c.v calif cie co col colo conn corp
    cos ct d d.c d.h d.w dec dr e e.f e.h e.l e.m f f.g f.j feb fla fri ft g g.d g.f g.k ga gen h h.c h.f h.m ill
    inc j.b j.c j.j j.k j.p j.r jan jr k kan ky l l.a l.f l.p lt ltd m m.b.a m.j maj messrs mich minn mr mrs ms n
    n.c n.d n.h n.j n.m n.v n.y nev nov oct ok okla ore p p.m pa ph.d prof r r.a r.h r.i r.j r.k r.t rep reps s s.a
    s.c s.g s.p.a s.s sen sep sept sr st sw t t.j tenn tues u.k u.n u.s u.s.a u.s.s.r v va vs vt w w.c w.r w.va w.w
    wash wed wis yr
"""
"""Abbreviations and, without their full stops, initials of the newspapers that Punkt was trained on."""
_STARTERS = """
    according although among both but despite even he however i if in indeed instead it many meanwhile moreover most
    nevertheless nonetheless nor sales separately similarly since so some the there these they this though thus
    under when while yet therefore her here together hence given enter your finally assuming adding suppose
    currently user please which provide note create consider using furthermore develop yesterday including without
    try unfortunately think through between regular overall throughout depending being initially otherwise define
    considering whether specifically ultimately remember ensure
"""
"""Words that begin a sentence even behind an abbreviation."""
_COMMON = """
    a after all also an and another any are as at be because before can could do during each every everyone find
    first for four from further good great half have his how its just keep know last later let list make mark my new
    next no none now of on once one only open order other our out over people point read remember see set she show
    start still that their them then three to today too total two use very was we what where who why will with would
    you
"""
"""Words that are no names: behind a single letter they begin a sentence."""
_ABBREVIATIONS, _BEGINNINGS = frozenset(_SHORT.split()), frozenset(_STARTERS.split())
_NO_NAMES = _BEGINNINGS | frozenset(_COMMON.split())


def punkt_sentences(text: str) -> int:
    """Return the number of sentences that NLTK's English Punkt finds.

    The end of a line ends none; the number of a list's item, `1.`, is one.
    """
    words = list(re.finditer(r"\S+", text))
    starts = [0]
    for word, following in zip_longest(words, words[1:]):
        end = _sentence_end(word[0], following[0] if following else "")
        if end:
            starts.append(following.start() if following and end == len(word[0]) else word.start() + end)
    pieces = [text[start:end].strip() for start, end in pairwise([*starts, len(text)])]
    return sum(bool(piece if not number else _CLOSING.sub("", piece, count=1)) for number, piece in enumerate(pieces))


def _sentence_end(word: str, following: str) -> int:
    """Return where in a word a sentence ends, 0 where none does. Only the last sign of a word can."""
    for end in range(len(word), 0, -1):
        after = word[end : end + 1] or following
        if word[end - 1] in ".?!" and (end == len(word) or after in _CUTS) and after:
            return end if word[end - 1] != "." or _ends(word[:end], after) else 0
    return 0


def _ends(head: str, following: str) -> bool:
    """Is the full stop at the end of `head` a sentence's?"""
    token = head[1 + max(map(head.rfind, _CUTS)) :].lower()
    if head[-len(token) - 1 : -len(token)] == "'":
        token = "'" + token
    short = token[:-1] in _ABBREVIATIONS or token[:-1].rpartition("-")[2] in _ABBREVIATIONS
    following_word = re.split(rf"[{re.escape(_CUTS)},.]", following)[0]
    is_initial, begins = bool(_INITIAL.fullmatch(token)), following[:1].isupper()
    if _ENDS_WITHIN.search(following):  # Punkt looks for an end in both words together
        return True
    if token.endswith("..") or (short and not is_initial):
        return begins and following_word.lower() in _BEGINNINGS
    if is_initial or _NUMBER.fullmatch(token):
        named = is_initial and begins and following_word.lower() not in _NO_NAMES
        return not short and not named and not following[:1].islower() and following[:1] not in ";:,.!?"
    return not short


# --- as a reader counts ---

_END = re.compile(r"[.!?…。！？]+[\"'”’)\]»*_]*(?=\s|$)|(?<=[다요죠까네])[ \t]*(?=\n|$)")
_ABBREVIATION = re.compile(
    r"(?:\b(?:mr|mrs|ms|dr|prof|sr|sra|jr|st|vs|etc|e\.g|i\.e|p\.s|p\.p\.s|no|vol|fig|inc|ltd|co|approx|dept|est|gen|rep|"
    r"sen|rev|hon|capt|col|lt|sgt|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|u\.s|u\.k|a\.m|p\.m|ud|uds|ee|pág|núm)"
    r"|(?:^|[\s.(])(?-i:[A-Z])|(?-i:[A-Z]{2}\.[A-Z]{2})|(?:^|\n)\s*\d{1,3})\.$",
    re.IGNORECASE,
)
_MAY_END = {"etc", "inc", "ltd", "co", "p.m", "a.m", "u.s", "u.k"}


def count_sentences(text: str) -> int:
    """Return the number of sentences, in English, Spanish or Korean.

    A full stop ends none behind an abbreviation, an initial, or the number of a list item, nor inside a number.
    """
    count = start = 0
    for end in _END.finditer(text):
        before = text[max(start, end.start() - 12) : end.start() + 1]
        if text[end.start() : end.start() + 2].rstrip() in (".", ".*") and _is_abbreviated(before, text[end.end() :]):
            continue
        count += bool(_WORD.search(text, start, end.end()))
        start = end.end()
    return count + bool(_WORD.search(text, start))


def _is_abbreviated(before: str, after: str) -> bool:
    found = _ABBREVIATION.search(before)
    if not found:
        return False
    following = after.lstrip()[:1]
    ends = found[0].strip(" .(\n").lower() in _MAY_END
    return not (ends and (following.isupper() or not following))
