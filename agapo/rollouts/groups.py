"""Single responses become groups."""

from collections.abc import Iterable, Sequence

from agapo.rollouts.engine import Engine, Piece, PromptRequest, Request, SamplingParams, resumed
from agapo.schema import Group, Response


class GroupAssembly:
    """The groups of a call, as far as their responses are there."""

    def __init__(self, requests: Sequence[PromptRequest], params: SamplingParams):
        """`requests`: the prompts of the call; a response's `id.number` is its prompt's place in them."""
        self._params = params
        self._requests: dict[int, PromptRequest] = {}
        self._whole: set[int] = set()
        self._found: dict[int, dict[int, Piece]] = {}
        self._paused: dict[int, dict[int, Piece]] = {}
        self._count = 0
        self.expect(requests)

    def expect(self, requests: Sequence[PromptRequest]) -> range:
        """Take more prompts; return their places."""
        places = range(self._count, self._count + len(requests))
        self._requests |= zip(places, requests, strict=True)
        self._count = places.stop
        return places

    def missing(self, number: int, *, whole_group: bool = False) -> list[Request]:
        """Return the requests of a prompt's responses that are not there yet; or of all of them, from the start.

        A paused response goes on where it is.
        """
        if number in self._whole and not whole_group:
            return []
        found = {} if whole_group else self._found.get(number, {})
        paused = {} if whole_group else self._paused.get(number, {})
        requests = self._requests[number].responses(self._params, number)
        return [
            resumed(request, paused[index]) if index in paused else request
            for index, request in enumerate(requests)
            if index not in found
        ]

    def keep(self, piece: Piece) -> None:
        """Take as much as there is of a response, paused, or finished in a group that is not whole yet."""
        if piece.id.number not in self._whole:
            kept = self._paused if piece.finish == "paused" else self._found
            kept.setdefault(piece.id.number, {})[piece.id.index] = piece

    def pieces(self, number: int) -> list[Piece]:
        """Return what there is of a prompt's responses: finished ones, and as much as is kept of paused ones."""
        return list((self._paused.get(number, {}) | self._found.get(number, {})).values())

    def add(self, piece: Piece) -> Group | None:
        """Take a finished response; return its group where that has become whole, once."""
        number = piece.id.number
        if number in self._whole or number not in self._requests:
            return None
        found = self._found.setdefault(number, {})
        found[piece.id.index] = piece
        if len(found) < self._params.group_size:
            return None
        self._whole.add(number)
        request = self._requests[number]
        responses = tuple(_response(found[index]) for index in range(self._params.group_size))
        del self._found[number]
        self._paused.pop(number, None)
        return Group(prompt=request.prompt, prompt_ids=request.prompt_ids, responses=responses)

    def count_missing(self, number: int) -> int:
        """Return how many of a prompt's responses are not there yet."""
        return 0 if number in self._whole else self._params.group_size - len(self._found.get(number, ()))

    def is_whole(self, number: int) -> bool:
        """Whether the group of a prompt has been given out."""
        return number in self._whole

    def forget(self, numbers: Iterable[int]) -> None:
        """Let go of what is kept of whole groups; they are not asked for again."""
        for number in numbers:
            self._requests.pop(number, None)
            self._whole.discard(number)


def _response(piece: Piece) -> Response:
    assert piece.finish != "paused", "a paused response is gone on with before it is part of a group"
    return Response(piece.segments, piece.text, piece.finish)


def sample_groups(engine: Engine, requests: Sequence[PromptRequest], params: SamplingParams) -> list[Group]:
    """Return one group of `params.group_size` responses a request, in order, all sampled together by this engine."""
    assembly = GroupAssembly(requests, params)
    engine.add([item for number in range(len(requests)) for item in assembly.missing(number)], params)
    groups: dict[int, Group] = {}
    while engine.busy:
        for piece in engine.step():
            if group := assembly.add(piece):
                groups[piece.id.number] = group
    return [groups[number] for number in range(len(requests))]
