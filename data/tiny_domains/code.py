"""Code: small Python functions to write, to mend after a failing test, and to restore from a diff.

The last two stand for software engineering rows: what is asked about is code that exists.
"""

import random

from data.tiny_domains.tasks import Task, ask

_WRITE = {
    "en": ("Write f(x): {steps}.", "add {n}", "subtract {n}", "multiply by {n}", ", then "),
    "ko": ("f(x)를 작성하세요: {steps}.", "{n} 더하기", "{n} 빼기", "{n} 곱하기", ", 다음 "),
    "es": ("Escribe f(x): {steps}.", "suma {n}", "resta {n}", "multiplica por {n}", ", luego "),
}
_FIX = {
    "en": "A test fails: f({x}) is {got}, should be {wanted}. The last number is wrong. Fix it.",
    "ko": "테스트 실패: f({x}) 결과는 {got}, 정답은 {wanted}. 마지막 수가 틀렸습니다. 고치세요.",
    "es": "Falla una prueba: f({x}) da {got}, debe dar {wanted}. El último número está mal. Corrígelo.",
}
_DIFF = {
    "en": ("Undo this change to f.", "Apply this change to f."),
    "ko": ("f의 이 변경을 되돌리세요.", "f에 이 변경을 적용하세요."),
    "es": ("Deshaz este cambio de f.", "Aplica este cambio a f."),
}
_WORKED = {
    "write": {
        "en": "I build the expression step by step: {path}. The function returns {body}.",
        "ko": "식을 차례로 만듭니다: {path}. 함수는 다음을 반환합니다: {body}.",
        "es": "Construyo la expresión paso a paso: {path}. La función devuelve {body}.",
    },
    "fix": {
        "en": "The result is off: {path}. The function returns {body}.",
        "ko": "결과가 다릅니다: {path}. 함수는 다음을 반환합니다: {body}.",
        "es": "El resultado difiere: {path}. La función devuelve {body}.",
    },
    "diff": {
        "en": "The line I need is the one with {path}. The function returns {body}.",
        "ko": "필요한 줄의 표시: {path}. 함수는 다음을 반환합니다: {body}.",
        "es": "La línea que necesito es la de {path}. La función devuelve {body}.",
    },
}


def draw_task(draw: random.Random, language: str) -> Task:
    """Draw a function to write, mend, or restore."""
    return draw.choice((_write, _fix, _diff))(draw, language)


def _write(draw: random.Random, language: str) -> Task:
    text, *names, then = _WRITE[language]
    body, last, path, steps = "x", "", [], []
    for _ in range(draw.randint(1, 2)):
        sign, n = draw.choice("+-*"), draw.randint(2, 9)
        body = f"({body}){sign}{n}" if sign == "*" and last in ("+", "-") else f"{body}{sign}{n}"
        last = sign
        path.append(body)
        steps.append(names["+-*".index(sign)].format(n=n))
    question = text.format(steps=then.join(steps))
    return _task("write", language, question, body, path=" ; ".join(path), tests=_tests(body))


def _fix(draw: random.Random, language: str) -> Task:
    factor, right, x = draw.randint(2, 5), draw.randint(1, 9), draw.randint(0, 3)
    wrong = draw.choice([n for n in range(1, 10) if n != right and abs(n - right) <= 4])
    before, body = f"x*{factor}+{wrong}", f"x*{factor}+{right}"
    got, wanted = x * factor + wrong, x * factor + right
    question = f"{_program(before)}\n{_FIX[language].format(x=x, got=got, wanted=wanted)}"
    path = f"{wanted}-{got}={wanted - got}, {wrong}{wanted - got:+d}={right}"
    return _task("fix", language, question, body, path=path, tests=_tests(body))


def _diff(draw: random.Random, language: str) -> Task:
    old, new = (f"x{draw.choice('+-*')}{draw.randint(1, 9)}{draw.choice('+-')}{draw.randint(1, 9)}" for _ in "ab")
    undo = draw.random() < 0.5
    body = old if undo else new
    diff = f"```diff\n def f(x):\n-    return {old}\n+    return {new}\n```"
    question = f"{diff}\n{_DIFF[language][0 if undo else 1]}"
    return _task("diff", language, question, body, path="-" if undo else "+", tests=_tests(body))


def _task(task: str, language: str, question: str, body: str, *, path: str, tests: list[str]) -> Task:
    return Task(
        task=task,
        language=language,
        messages=ask(question),
        worked=_WORKED[task][language].format(path=path, body=body),
        terse=path,
        content=_program(body),
        columns={"test_list": tests, "test_setup_code": ""},
    )


def _program(body: str) -> str:
    return f"```python\ndef f(x):\n    return {body}\n```"


def _tests(body: str) -> list[str]:
    # The expression is this module's own.
    function = eval(f"lambda x: {body}")
    return [f"assert f({x}) == {function(x)}" for x in (0, 1, 7, -13, 100)]
