"""A small world that tools act on: a shop's customers and orders, a calendar, the weather, a calculator, files.

Calls are really executed, so results fit each other, and a dialogue can be played again from the world's seed. A call
that is wrong (arguments, ids, rules) answers `{"error": …}` and changes nothing.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

Result = dict[str, Any]

TODAY = "2026-03-02"
CITIES = (
    "Lisbon", "Oslo", "Cairo", "Lima", "Kyoto", "Dakar", "Vienna", "Quito", "Turin", "Perth", "Busan", "Seoul",
    "Madrid", "Sevilla", "Bogota", "Denver", "Leeds", "Daegu", "Incheon", "Valencia", "Cusco", "Austin",
)  # fmt: skip
DAYS = ("today", "tomorrow", "saturday", "sunday")
REASONS = ("no longer needed", "ordered by mistake")
_SKIES = ("sunny", "cloudy", "rain", "snow", "fog")
_NAMES = (
    "ana",
    "ben",
    "chloe",
    "daniel",
    "eun",
    "felix",
    "grace",
    "hugo",
    "ines",
    "jun",
    "kai",
    "lucia",
    "minji",
    "noah",
)
_ITEMS = ("desk lamp", "wool scarf", "tea kettle", "backpack", "notebook", "headphones", "water bottle", "keyboard")
_STREETS = ("Mill Lane 4", "Harbour Road 12", "Oak Street 7", "Station Square 1", "Hill View 23", "Canal Walk 9")
_TITLES = ("dentist", "team meeting", "yoga class", "book club", "piano lesson", "code review", "lunch with Kim")
_FILES = ("notes", "budget", "minutes", "recipes", "contacts", "plan", "draft", "inventory")
_FOLDERS = ("home", "work", "archive", "shared")


def _tool(
    name: str, description: str, required: Mapping[str, Any], optional: Mapping[str, Any] | None = None
) -> Result:
    properties = {key: _property(about) for key, about in {**required, **(optional or {})}.items()}
    parameters = {"type": "object", "properties": properties, "required": list(required)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def _property(about: Any) -> Result:
    kind, description, *choices = about
    return {"type": kind, "description": description, **({"enum": list(choices[0])} if choices else {})}


_ORDER = ("string", "Order number with its mark, such as #W1234.")
_DATE = ("string", "Date, YYYY-MM-DD.")
TOOLS: tuple[Result, ...] = (
    _tool("find_customer", "Find a customer's id.", {"email": ("string", "The customer's e-mail address.")}),
    _tool("list_orders", "List a customer's order numbers.", {"customer_id": ("string", "The customer's id.")}),
    _tool("get_order", "Return an order: item, status, address, price.", {"order_id": _ORDER}),
    _tool(
        "cancel_order", "Cancel an order that is pending.", {"order_id": _ORDER, "reason": ("string", "Why.", REASONS)}
    ),
    _tool(
        "change_address",
        "Change the address of an order that is pending.",
        {"order_id": _ORDER, "address": ("string", "Street and number.")},
    ),
    _tool("list_events", "List the events of a day.", {"date": _DATE}),
    _tool(
        "add_event",
        "Add an event; refused where it overlaps with another.",
        {"title": ("string", "Title."), "date": _DATE, "hour": ("integer", "Hour it starts, 0 to 23.")},
        {"hours": ("integer", "Its length in hours; 1 if it is not given.")},
    ),
    _tool(
        "get_weather",
        "Return sky and temperature.",
        {"city": ("string", "City."), "day": ("string", "Day.", DAYS)},
    ),
    _tool(
        "calculate",
        "Work out an expression of numbers, + - * / and brackets.",
        {"expression": ("string", "Expression.")},
    ),
    _tool("list_files", "List the files of a folder.", {"folder": ("string", "Folder, such as home.")}),
    _tool("read_file", "Return a file's text.", {"path": ("string", "Folder and name, such as home/notes.txt.")}),
)
FUNCTIONS: Mapping[str, Result] = {tool["function"]["name"]: tool["function"] for tool in TOOLS}
_TYPES = {"string": str, "integer": int}


class World:
    """The state, made from a seed."""

    def __init__(self, seed: int) -> None:
        """Make the world; equal seeds make equal worlds."""
        draw = Random(f"tool_world/{seed}")
        self.seed = seed
        names = draw.sample(_NAMES, 5)
        numbers = iter(draw.sample(range(1000, 10_000), 30))
        self.customers = {f"{name}{draw.randint(10, 99)}@mail.example": f"C{next(numbers)}" for name in names}
        self.orders: dict[str, Result] = {}
        for customer in self.customers.values():
            for _ in range(draw.randint(1, 3)):
                self.orders[f"#W{next(numbers)}"] = {
                    "customer_id": customer,
                    "item": draw.choice(_ITEMS),
                    "status": draw.choice(("pending", "pending", "shipped", "delivered")),
                    "address": draw.choice(_STREETS),
                    "price": draw.randint(5, 180),
                }
        self.events = {
            f"2026-03-{draw.randint(3, 28):02}": [
                {"title": title, "hour": hour, "hours": 1}
                for title, hour in zip(draw.sample(_TITLES, 2), sorted(draw.sample(range(8, 19), 2)), strict=True)
            ]
            for _ in range(4)
        }
        names = [f"{draw.choice(_FOLDERS)}/{name}-{draw.randint(2000, 2025)}.txt" for name in draw.sample(_FILES, 5)]
        self.files = {name: f"{draw.choice(_ITEMS)}: {draw.randint(2, 400)}" for name in names}

    def call(self, name: str, arguments: Mapping[str, Any]) -> Result:
        """Execute a call and return its result, or `{"error": …}`."""
        if name not in FUNCTIONS:
            return {"error": f"no function {name}"}
        problem = _problem(FUNCTIONS[name]["parameters"], arguments)
        if problem:
            return {"error": problem}
        run: Callable[..., Result] = getattr(self, f"_{name}")
        return run(**arguments)

    def _find_customer(self, email: str) -> Result:
        found = self.customers.get(email)
        return {"customer_id": found} if found else {"error": f"no customer with {email}"}

    def _list_orders(self, customer_id: str) -> Result:
        found = [number for number, order in self.orders.items() if order["customer_id"] == customer_id]
        return {"orders": found} if found else {"error": f"no customer {customer_id}"}

    def _get_order(self, order_id: str) -> Result:
        if order_id not in self.orders:
            mend = "" if order_id.startswith("#W") else "; numbers look like #W1234"
            return {"error": f"no order {order_id}{mend}"}
        return {"order_id": order_id, **self.orders[order_id]}

    def _cancel_order(self, order_id: str, reason: str) -> Result:
        found = self._pending(order_id)
        if "error" not in found:
            self.orders[order_id]["status"] = "cancelled"
            return {"order_id": order_id, "status": "cancelled", "refund": found["price"]}
        return found

    def _change_address(self, order_id: str, address: str) -> Result:
        found = self._pending(order_id)
        if "error" not in found:
            self.orders[order_id]["address"] = address
            return {"order_id": order_id, "address": address}
        return found

    def _pending(self, order_id: str) -> Result:
        found = self._get_order(order_id)
        if "error" in found or found["status"] == "pending":
            return found
        return {"error": f"{order_id} is {found['status']}; only pending orders can be changed"}

    def _list_events(self, date: str) -> Result:
        return {"events": [dict(event) for event in self.events.get(date, [])]}

    def _add_event(self, title: str, date: str, hour: int, hours: int = 1) -> Result:
        for event in self.events.get(date, []):
            if hour < event["hour"] + event["hours"] and event["hour"] < hour + hours:
                end = event["hour"] + event["hours"]
                return {"error": f"overlaps with {event['title']}, {event['hour']}:00 to {end}:00"}
        self.events.setdefault(date, []).append({"title": title, "hour": hour, "hours": hours})
        return {"added": title, "date": date, "hour": hour, "hours": hours}

    def _get_weather(self, city: str, day: str) -> Result:
        if city not in CITIES:
            return {"error": f"no city {city}"}
        draw = Random(f"{self.seed}/{city}/{day}")
        return {"city": city, "day": day, "sky": draw.choice(_SKIES), "celsius": draw.randint(-5, 36)}

    def _calculate(self, expression: str) -> Result:
        try:
            value = _value(ast.parse(expression, mode="eval").body)
        except (SyntaxError, ValueError, ZeroDivisionError):
            return {"error": f"cannot read '{expression}'; use numbers, + - * / and brackets"}
        return {"value": int(value) if value == int(value) else round(value, 4)}

    def _list_files(self, folder: str) -> Result:
        found = sorted(path for path in self.files if path.startswith(f"{folder}/"))
        return {"files": found}

    def _read_file(self, path: str) -> Result:
        return (
            {"text": self.files[path]}
            if path in self.files
            else {"error": f"no file {path}; list_files shows a folder's"}
        )


def _problem(parameters: Mapping[str, Any], arguments: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the arguments of a call."""
    known = parameters["properties"]
    for name in parameters["required"]:
        if name not in arguments:
            return f"argument {name} is missing"
    for name, value in arguments.items():
        if name not in known:
            return f"unknown argument {name}"
        if type(value) is not _TYPES[known[name]["type"]]:
            return f"argument {name} should be of type {known[name]['type']}"
        if value not in known[name].get("enum", [value]):
            return f"argument {name} should be one of: {', '.join(known[name]['enum'])}"
    return None


_OPERATORS: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def _value(node: ast.AST) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    raise ValueError("no arithmetic")
