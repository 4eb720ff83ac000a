"""Scenes of a user and an agent with tools, in English, Korean and Spanish, played in a `World`.

    weather     one call                          order      three calls that build on each other
    compare     two calls at once                 number     a wrong order number, an error, the right one
    percent     a wrong expression, an error      cancel     a call; or the rules refuse, and the agent explains
    address     what is missing is asked back     event      an overlap, another hour is agreed on
    file        a wrong path, a look around       chat       no tool is needed

A turn with a mistake has `train: false`: the model should learn to recover, not to err.
"""

import json
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from data.generated.korean import with_particles
from data.generated.tool_texts import TEXTS, THOUGHTS
from data.generated.tool_world import CITIES, DAYS, REASONS, World

Allowed = Callable[[str], bool]
"""Whether a scene with this key is of the split."""


class NoScene(Exception):
    """The world has nothing of the split for this scene."""


class Talk:
    """The messages so far, and the world that calls act on."""

    def __init__(self, world: World, language: str, draw: Random, *, thinks: bool) -> None:
        """Start without messages; `thinks` gives the agent's turns a thinking."""
        self.world, self.language, self.draw, self.thinks = world, language, draw, thinks
        self.messages: list[dict[str, Any]] = []

    def user(self, key: str, **about: Any) -> None:
        """Add a turn of the user's, one of the texts of `key`."""
        self.messages.append({"role": "user", "content": self._text(key, about)})

    def say(self, key: str, **about: Any) -> None:
        """Add an answer of the agent's."""
        self._assistant("answer", {"content": self._text(key, about)})

    def call(self, thought: str, name: str, *, train: bool = True, **arguments: Any) -> dict[str, Any]:
        """Add a call and its result, which is returned."""
        return self.calls(thought, (name, arguments), train=train)[0]

    def calls(self, thought: str, *calls: tuple[str, dict[str, Any]], train: bool = True) -> list[dict[str, Any]]:
        """Add calls made at once, and their results, which are returned."""
        made = [{"name": name, "arguments": arguments} for name, arguments in calls]
        self._assistant(thought, {"content": "", "tool_calls": made, **({} if train else {"train": False})})
        results = [self.world.call(name, arguments) for name, arguments in calls]
        self.messages += [{"role": "tool", "content": json.dumps(result, ensure_ascii=False)} for result in results]
        return results

    def _assistant(self, thought: str, turn: dict[str, Any]) -> None:
        thinking = {"reasoning_content": THOUGHTS[thought][self.language]} if self.thinks else {}
        self.messages.append({"role": "assistant", **turn, **thinking})

    def _text(self, key: str, about: Mapping[str, Any]) -> str:
        return with_particles(self.draw.choice(TEXTS[key][self.language]).format(**about))

    def pick(self, candidates: list[Any], key: Callable[[Any], str], allowed: Allowed) -> Any:
        """Draw one of the candidates whose key is of the split. Raises NoScene where there is none."""
        for candidate in self.draw.sample(candidates, len(candidates)):
            if allowed(key(candidate)):
                return candidate
        raise NoScene


def _weather(talk: Talk, allowed: Allowed) -> None:
    pairs = [(city, day) for city in CITIES for day in DAYS]
    city, day = talk.pick(pairs, lambda pair: f"weather {pair}", allowed)
    talk.user("weather", city=city, day=_word(talk, day))
    found = talk.call("look_up", "get_weather", city=city, day=day)
    talk.say("weather_is", city=city, sky=_word(talk, found["sky"]), celsius=found["celsius"], day=_word(talk, day))


def _word(talk: Talk, word: str) -> str:
    return TEXTS[word][talk.language][0]


def _compare(talk: Talk, allowed: Allowed) -> None:
    pairs = [(one, other, day) for one in CITIES for other in CITIES for day in DAYS if one < other]
    one, other, day = talk.pick(pairs, lambda pair: f"compare {pair}", allowed)
    talk.user("compare", one=one, other=other, day=_word(talk, day))
    first, second = talk.calls(
        "both", ("get_weather", {"city": one, "day": day}), ("get_weather", {"city": other, "day": day})
    )
    if first["celsius"] == second["celsius"]:
        talk.say("as_warm", one=one, other=other, celsius=first["celsius"])
        return
    warm, cold = sorted((first, second), key=lambda found: -found["celsius"])
    talk.say("warmer", one=warm["city"], other=cold["city"], warm=warm["celsius"], cold=cold["celsius"])


def _percent(talk: Talk, allowed: Allowed) -> None:
    share, amount, extra = talk.draw.randint(2, 95), talk.draw.randint(20, 900), talk.draw.randint(1, 99)
    if not allowed(f"percent {share} {amount} {extra}"):
        raise NoScene
    talk.user("percent", share=share, amount=amount, extra=extra)
    if talk.draw.random() < 0.4:
        talk.call("work_out", "calculate", train=False, expression=f"{share}% of {amount} + {extra}")
    found = talk.call("expression", "calculate", expression=f"{share} / 100 * {amount} + {extra}")
    talk.say("value", value=found["value"])


def _order(talk: Talk, allowed: Allowed) -> None:
    email = talk.pick(sorted(talk.world.customers), lambda found: f"order {found}", allowed)
    talk.user("order", email=email)
    customer = talk.call("find", "find_customer", email=email)["customer_id"]
    numbers = talk.call("then_orders", "list_orders", customer_id=customer)["orders"]
    found = talk.calls("each_order", *(("get_order", {"order_id": number}) for number in numbers))
    listed = "; ".join(f"{order['order_id']} ({order['item']}): {_word(talk, order['status'])}" for order in found)
    talk.say("orders_are", listed=listed)


def _number(talk: Talk, allowed: Allowed) -> None:
    number = talk.pick(sorted(talk.world.orders), lambda found: f"number {found}", allowed)
    talk.user("number", digits=number[2:])
    talk.call("look_up", "get_order", train=False, order_id=number[2:])
    found = talk.call("mark", "get_order", order_id=number)
    talk.say(
        "order_is", number=number, item=found["item"], status=_word(talk, found["status"]), address=found["address"]
    )


def _cancel(talk: Talk, allowed: Allowed) -> None:
    number = talk.pick(sorted(talk.world.orders), lambda found: f"cancel {found}", allowed)
    reason = talk.draw.choice(REASONS)
    talk.user("cancel", number=number, reason=_word(talk, reason))
    found = talk.call("do_it", "cancel_order", order_id=number, reason=reason)
    if "error" in found:
        status = talk.world.orders[number]["status"]
        talk.say("refused", number=number, status=_word(talk, status))
    else:
        talk.say("is_cancelled", number=number, refund=found["refund"])


def _address(talk: Talk, allowed: Allowed) -> None:
    pending = sorted(number for number, order in talk.world.orders.items() if order["status"] == "pending")
    number = talk.pick(pending, lambda found: f"address {found}", allowed)
    street = (
        f"{talk.draw.choice(('Elm Street', 'Lake Road', 'Market Square', 'Garden Lane'))} {talk.draw.randint(1, 99)}"
    )
    talk.user("address", number=number)
    talk.say("which_address", number=number)
    talk.user("new_address", street=street)
    talk.call("do_it", "change_address", order_id=number, address=street)
    talk.say("address_changed", number=number, street=street)


def _event(talk: Talk, allowed: Allowed) -> None:
    """The hour asked for is taken half of the time; the agent asks, and takes the hour that the user names."""
    date = talk.draw.choice(sorted(talk.world.events))
    title = talk.draw.choice(("haircut", "interview", "call with Ana", "training", "school visit"))
    busy = talk.world.events[date]
    taken = talk.draw.random() < 0.5
    hour = busy[0]["hour"] if taken else talk.draw.choice(_free(talk.world, date))
    if not allowed(f"event {title} {date} {hour}"):
        raise NoScene
    talk.user("event", title=title, date=date, hour=hour)
    found = talk.call("do_it", "add_event", title=title, date=date, hour=hour)
    if "error" in found:
        other = talk.draw.choice(_free(talk.world, date))
        talk.say("overlap", title=busy[0]["title"], hour=hour)
        talk.user("other_hour", hour=other)
        talk.call("other_hour", "add_event", title=title, date=date, hour=other)
        hour = other
    talk.say("event_added", title=title, date=date, hour=hour)


def _free(world: World, date: str) -> list[int]:
    taken = {event["hour"] + offset for event in world.events[date] for offset in range(event["hours"])}
    return [hour for hour in range(8, 20) if hour not in taken]


def _file(talk: Talk, allowed: Allowed) -> None:
    path = talk.pick(sorted(talk.world.files), lambda found: f"file {found}", allowed)
    folder, _, name = path.partition("/")
    talk.user("file", folder=folder, name=name.removesuffix(".txt"))
    if talk.draw.random() < 0.5:
        talk.call("look_up", "read_file", train=False, path=f"{folder}/{name.removesuffix('.txt')}")
    talk.call("look_around", "list_files", folder=folder)
    found = talk.call("read", "read_file", path=path)
    talk.say("file_says", path=path, text=found["text"])


def _chat(talk: Talk, allowed: Allowed) -> None:
    hours = talk.draw.randint(2, 400)
    topic = talk.draw.choice(("days_chat", "weeks_chat"))
    if not allowed(f"chat {topic} {hours}"):
        raise NoScene
    talk.user(topic, count=hours)
    talk.say(f"{topic}_is", count=hours, hours=24 * hours, days=7 * hours)


SCENES: Mapping[str, Callable[[Talk, Allowed], None]] = {
    "weather": _weather,
    "compare": _compare,
    "percent": _percent,
    "order": _order,
    "number": _number,
    "cancel": _cancel,
    "address": _address,
    "event": _event,
    "file": _file,
    "chat": _chat,
}
