"""Which rollout actors move to another host: after one has died and come back, all of them may be on the others."""

from collections import Counter
from collections.abc import Mapping, Sequence


def moves(where: Sequence[str], room: Mapping[str, int]) -> list[tuple[int, str]]:
    """Return (an actor's number, the host that it is to move to) until no host has two actors more than it could have.

    `where` [actors] is each actor's host, `room` the actors that each host could take besides.
    """
    hosts, left = list(where), dict(room)
    found: list[tuple[int, str]] = []
    while True:
        counts = Counter(hosts)
        target = min((host for host in left if left[host] > 0), key=lambda host: (counts[host], host), default=None)
        source = max(counts, key=lambda host: (counts[host], host), default=None)
        if target is None or source is None or counts[source] - counts[target] < 2:
            return found
        number = max(number for number, host in enumerate(hosts) if host == source)
        hosts[number] = target
        left[target] -= 1
        left[source] = left.get(source, 0) + 1
        found.append((number, target))
