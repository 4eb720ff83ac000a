"""Single responses become groups."""

from collections.abc import Sequence

from agapo.rollouts.engine import Engine, Piece, PromptRequest, Request, SamplingParams
from agapo.schema import Group, Response


class GroupAssembly:
    """The groups of a call, as far as their responses are there."""

    def __init__(self, requests: Sequence[PromptRequest], params: SamplingParams):
        """`requests`: the prompts of the call; a response's `id.number` is its prompt's place in them."""
        self._requests, self._params = requests, params
        self._found: dict[int, dict[int, Piece]] = {}
        self._whole: set[int] = set()

    def missing(self, number: int, *, whole_group: bool = False) -> list[Request]:
        """Return the requests of a prompt's responses that are not there yet; or of all of its responses."""
        found = {} if whole_group else self._found.get(number, {})
        wanted = [] if number in self._whole and not whole_group else range(self._params.group_size)
        requests = self._requests[number].responses(self._params, number)
        return [requests[index] for index in wanted if index not in found]

    def add(self, piece: Piece) -> Group | None:
        """Take a finished response; return its group where that has become whole, once."""
        number = piece.id.number
        if number in self._whole:
            return None
        found = self._found.setdefault(number, {})
        found[piece.id.index] = piece
        if len(found) < self._params.group_size:
            return None
        self._whole.add(number)
        request = self._requests[number]
        responses = tuple(_response(self._found[number][index]) for index in range(self._params.group_size))
        del self._found[number]
        return Group(prompt=request.prompt, prompt_ids=request.prompt_ids, responses=responses)

    def count_missing(self, number: int) -> int:
        """Return how many of a prompt's responses are not there yet."""
        return 0 if number in self._whole else self._params.group_size - len(self._found.get(number, ()))

    def is_whole(self, number: int) -> bool:
        """Whether the group of a prompt has been given out."""
        return number in self._whole


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
