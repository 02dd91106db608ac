"""The sum by which Experiment Runner knows a configuration again: MD5 of its pickled syntax tree, without line
numbers and doc strings.

The bytes depend on the Python that made them: the tree has other fields in every minor version. Run as a program, by
any Python from 3.8 on, it reads a configuration from standard input and prints the sum; dill, which Experiment
Runner pickles with, is used where that Python has it. Without dill the bytes are the same, but for `...` and complex
numbers in the configuration.
"""

import ast
import hashlib
import importlib
import pickle
import sys
from typing import Any

_PLACES = ("lineno", "col_offset", "end_lineno", "end_col_offset")


def fingerprint(source: str) -> "tuple[str, bool]":
    """Sum of a configuration's text as this Python makes it.

    Returns:
        32 hexadecimal digits, and whether they are Experiment Runner's for certain: False only without dill.
    """
    tree = compile(source, "config", "exec", flags=ast.PyCF_ONLY_AST, optimize=0)
    for node in ast.walk(tree):
        for place in _PLACES:
            if hasattr(node, place):
                setattr(node, place, 0)
        if isinstance(node, (ast.AsyncFunctionDef, ast.FunctionDef, ast.ClassDef, ast.Module)) and (
            ast.get_docstring(node) is not None
        ):
            node.body[0].value.value = ""  # type: ignore[attr-defined]
    is_special = any(
        isinstance(node, ast.Constant) and isinstance(node.value, (complex, type(...))) for node in ast.walk(tree)
    )
    dumps, is_exact = _dumps()
    return hashlib.md5(dumps(tree)).hexdigest(), is_exact or not is_special


def _dumps() -> Any:
    try:
        return importlib.import_module("dill").dumps, True
    except ImportError:
        return pickle.dumps, False


if __name__ == "__main__":
    print(*fingerprint(sys.stdin.buffer.read().decode("utf-8")))
