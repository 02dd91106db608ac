"""What our own source never does, read from its syntax trees: load a pickle, run code of a model's, evaluate text."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    path
    for package in ROOT.iterdir()
    if package.is_dir() and not package.name.startswith((".", "tests", "results", "docs", "joulebed"))
    for path in package.rglob("*.py")
)
PICKLERS = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "jsonpickle", "shelve", "marshal", "yaml"}
CALLS = {"eval", "exec", "compile", "__import__"}
UNPICKLE = {"read_pickle", "to_pickle", "load_model", "mktemp", "extractall"}
LOADERS = ("from_pretrained", "LLM", "EngineArgs", "AsyncEngineArgs")
SHELLS = {("os", "system"), ("os", "popen"), ("subprocess", "getoutput"), ("subprocess", "getstatusoutput")}
# The experiment's own file is Python, and is run on purpose: see docs/security.md.
RUNS_A_CONFIGURATION = {
    "orchestrator/config_loader.py",
    "orchestrator/experiment_runner/design_reader.py",  # in a process of its own
    "orchestrator/experiment_runner/fingerprint.py",  # compiles to a tree, and only writes a pickle: its sum is wanted
}


def faults(text: str) -> Iterator[str]:
    """What a source does that it must not, one line each."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (f"imports {each.name}" for each in node.names if each.name.partition(".")[0] in PICKLERS)
        elif isinstance(node, ast.ImportFrom):
            if (node.module or "").partition(".")[0] in PICKLERS:
                yield f"imports from {node.module}"
        elif isinstance(node, ast.Call):
            yield from _call_faults(node)


def _call_faults(call: ast.Call) -> Iterator[str]:
    keywords = {each.arg: each.value for each in call.keywords}
    owner, name = _name(call.func)
    if not owner and name in CALLS:
        yield f"calls {name}"
    if name in UNPICKLE or (owner, name) in SHELLS:
        yield f"calls {owner}.{name}"
    if owner == "torch" and name == "load" and not _is(keywords.get("weights_only"), True):
        yield "calls torch.load without weights_only=True"
    for keyword, safe in (("trust_remote_code", False), ("allow_pickle", False), ("shell", False), ("verify", True)):
        if keyword in keywords and not _is(keywords[keyword], safe) and not _is_checked_elsewhere(keywords[keyword]):
            yield f"gives {keyword} another value than {safe}"


def _is_checked_elsewhere(node: ast.expr) -> bool:
    """A context of certificates that is shared: `test_http_client.py` looks at what it demands."""
    return isinstance(node, ast.Call) and _name(node.func) == ("", "_certificates")


def _name(function: ast.expr) -> tuple[str, str]:
    if isinstance(function, ast.Name):
        return "", function.id
    if isinstance(function, ast.Attribute):
        return (function.value.id if isinstance(function.value, ast.Name) else "?"), function.attr
    return "?", "?"


def _is(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "import joblib.externals",
        "from dill import loads",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "polars.read_pickle(path)",
        "AutoModel.from_pretrained(x, trust_remote_code=True)",
        "AutoModel.from_pretrained(x, trust_remote_code=flag)",
        "eval(text)",
        "os.system(line)",
        "subprocess.run(line, shell=True)",
        "httpx.Client(verify=False)",
    ],
)
def test_the_reader_finds_what_must_not_be(text: str) -> None:
    assert list(faults(text))


@pytest.mark.parametrize(
    "text", ["import json", "torch.load(path, weights_only=True)", "f(trust_remote_code=False)", "re.compile(x)"]
)
def test_the_reader_lets_the_rest_be(text: str) -> None:
    assert not list(faults(text))


def test_no_source_of_ours_loads_a_pickle_or_runs_a_models_code() -> None:
    assert len(SOURCES) > 100
    found = {
        name: told
        for path in SOURCES
        if (name := str(path.relative_to(ROOT))) not in RUNS_A_CONFIGURATION
        and (told := list(faults(path.read_text(encoding="utf-8"))))
    }
    assert found == {}


@pytest.mark.parametrize("path", sorted((ROOT / "testbed/engines").glob("*.py")), ids=lambda path: path.stem)
def test_every_loader_of_models_refuses_their_code(path: Path) -> None:
    """transformers and vLLM run a repository's own code when asked to: each call says that it does not."""
    loaders = [
        call
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and _name(call.func)[1] in LOADERS and _name(call.func)[0] != "GenerationConfig"
    ]
    assert loaders or path.stem not in ("vllm_engine", "vllm_front")
    for call in loaders:
        told = {each.arg: each.value for each in call.keywords}
        assert _is(told.get("trust_remote_code"), False), ast.unparse(call)


def test_the_token_is_compared_in_constant_time_only() -> None:
    tree = ast.parse((ROOT / "testbed/http_guard.py").read_text(encoding="utf-8"))
    compared = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Compare)]
    assert not [text for text in compared if "_token" in text]
    calls = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert [text for text in calls if text.startswith("hmac.compare_digest(") and "self._token" in text]
