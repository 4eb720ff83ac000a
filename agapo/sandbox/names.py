"""Which names programs and tests use and define, and which classes their set-up takes from the reference solution."""

import ast
import builtins
import symtable
from collections.abc import Iterator


def parses(source: str) -> bool:
    """Whether a text is Python."""
    return next(_trees(source), None) is not None


def called(*sources: str) -> set[str]:
    """Return the names that are called; texts that are not Python call none."""
    calls = (node.func for tree in _trees(*sources) for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {function.id for function in calls if isinstance(function, ast.Name)}


def bound(*sources: str) -> set[str]:
    """Return the names that are given a meaning."""
    return {name for tree in _trees(*sources) for node in ast.walk(tree) for name in _bound_by(node)}


def free(source: str) -> set[str]:
    """Return the names that a program uses and neither it nor Python defines; none where it is no Python."""
    tables = _tables(source)
    used = {
        symbol.get_name()
        for table in tables
        for symbol in table.get_symbols()
        if symbol.is_referenced() and (symbol.is_global() or table is tables[0])
    }
    return used - given(source) - set(dir(builtins))


def given(source: str) -> set[str]:
    """Return the names that are there once a program has run."""
    tables = _tables(source)
    return {
        symbol.get_name()
        for table in tables
        for symbol in table.get_symbols()
        if (symbol.is_assigned() or symbol.is_imported()) and (table is tables[0] or symbol.is_declared_global())
    }


def _tables(source: str) -> list[symtable.SymbolTable]:
    try:
        tables = [symtable.symtable(source, "program", "exec")]
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # the sandbox says so
        return []
    for table in tables:
        tables += table.get_children()
    return tables


def records(solution: str, setup: str) -> list[str]:
    """Return the classes that a set-up makes objects of and only the reference solution defines (a tree's `Node`).

    Of those only records, which do no more than hold values: others could be what the exercise asks for.
    """
    wanted = called(setup) - bound(setup)
    classes = [node for tree in _trees(solution) for node in tree.body if isinstance(node, ast.ClassDef)]
    return [ast.unparse(node) for node in classes if node.name in wanted and _is_record(node)]


def handed_functions(setup: str, *tests: str) -> list[str]:
    """Return, as text, the functions that tests hand to the program and define themselves: it cannot be handed those.

    Those of the set-up it can, since the set-up runs on the program's side as well.
    """
    found: list[str] = []
    own = bound(setup, *tests) | set(dir(builtins))
    for tree in _trees(*tests):
        defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
        for call in (call for call in calls if isinstance(call.func, ast.Name) and call.func.id not in own):
            values = [*call.args, *(named.value for named in call.keywords)]
            is_own = (isinstance(value, ast.Lambda) or getattr(value, "id", None) in defined for value in values)
            found += [ast.unparse(value) for value, own_value in zip(values, is_own, strict=True) if own_value]
    return found


def _trees(*sources: str) -> Iterator[ast.Module]:
    for source in sources:
        try:
            yield ast.parse(source)
        except (SyntaxError, ValueError):  # the sandbox says so
            continue


def _bound_by(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.alias):
        yield node.asname or node.name.partition(".")[0]
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id


def _is_record(node: ast.ClassDef) -> bool:
    plain = (ast.Assign, ast.AnnAssign, ast.Expr, ast.Pass)
    rest = [item for item in node.body if not isinstance(item, plain)]
    return not node.bases and all(isinstance(item, ast.FunctionDef) and item.name == "__init__" for item in rest)
