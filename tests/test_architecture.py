"""The rules of the tree: who imports whom, what an import costs, what lies where."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "fastcodec"

# Folder of fastcodec -> the folders it may import, besides itself. Imports go down only.
MAY_IMPORT = {
    "kernels": set(),
    "ops": {"kernels"},
    "layers": {"ops"},
    "io": set(),
    "codecs": {"layers", "ops", "io"},
    "lm": {"layers", "ops", "io"},
    "train": {"codecs", "layers", "ops", "io"},
    "cli": {"codecs", "lm", "train", "layers", "ops", "io"},
}
TOP = "(top)"  # the package itself: `import fastcodec`
# Modules right under fastcodec/; the compiled one is known by its stub.
TOP_MODULES = {path.stem: path for path in PACKAGE.glob("*.py*") if path.stem != "__init__"}
# csrc/*: what binds and picks the kernels; kernels/*: what ops/snake.py declares beside snake.
NOT_OPS = {"register", "isa", "table", "register_cuda", "snake_backward"}


def python_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))  # which does not follow the link fastcodec/kernels


PACKAGE_FILES = python_files(PACKAGE)
KERNEL_FILES = sorted((ROOT / "kernels").glob("**/*.py"))
ALL_FILES = [
    *PACKAGE_FILES,
    *KERNEL_FILES,
    *python_files(ROOT / "tests"),
    *python_files(ROOT / "benchmarks"),
    ROOT / "setup.py",
]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported(path: Path) -> Iterator[str]:
    """Every dotted name that ``path`` imports, anywhere in it, relative ones resolved."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *filter(None, [node.module])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def part(dotted: str) -> str | None:
    """Which part of fastcodec a dotted name belongs to: a folder, a top module, or the top."""
    head, _, rest = dotted.partition(".")
    if head != "fastcodec":
        return None
    first = rest.partition(".")[0]
    return first if first in TOP_MODULES or first in MAY_IMPORT else TOP


def parts_imported(path: Path) -> set[str]:
    return {found for name in imported(path) if (found := part(name)) is not None}


def leaves() -> set[str]:
    """The top modules that import only one another: everybody may use them."""
    found = {name: parts_imported(path) for name, path in TOP_MODULES.items()}
    while upward := {name for name, uses in found.items() if not uses <= set(found)}:
        for name in upward:
            del found[name]
    return set(found)


def test_every_folder_has_a_rule() -> None:
    folders = {path.relative_to(PACKAGE).parts[0] for path in PACKAGE.glob("*/**/*.py")}
    assert folders <= set(MAY_IMPORT), "say in MAY_IMPORT what the new folder may import"


@pytest.mark.parametrize("path", PACKAGE_FILES, ids=name_of)
def test_imports_go_down(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    uses = parts_imported(path) - {own}
    if own == "__init__":
        wrong = uses & {"cli", "train"}  # the public names, and nothing that needs an extra
    elif own in MAY_IMPORT:
        below = leaves() if own != "cli" else {TOP, *TOP_MODULES}
        wrong = uses - MAY_IMPORT[own] - below
    else:
        wrong = uses & {"cli"} if own != "__main__" else set()
    assert not wrong, f"{name_of(path)} imports from {', '.join(sorted(wrong))}"


def test_kernels_know_nothing_of_fastcodec() -> None:
    for path in KERNEL_FILES:
        assert parts_imported(path) <= {"kernels"}, name_of(path)


@pytest.mark.parametrize("path", ALL_FILES, ids=name_of)
def test_nobody_imports_the_wrong_tree(path: Path) -> None:
    heads = {name.partition(".")[0] for name in imported(path)}
    assert "kernels" not in heads, "PyPI has a package `kernels`; import fastcodec.kernels"
    own = path.relative_to(ROOT).parts[0]
    assert not heads & ({"tests", "benchmarks", "setup"} - {own})


def test_kernels_is_seen_through_the_link() -> None:
    link = PACKAGE / "kernels"
    assert link.is_symlink() and link.readlink() == Path("../kernels")
    assert (ROOT / "kernels").is_dir()
    assert not list((ROOT / "kernels").rglob("__init__.py")), "it would hide PyPI's `kernels`"


@pytest.mark.parametrize(
    "pattern",
    ["csrc/cpu/*.cpp", "csrc/cuda/*.cu", "kernels/*.py", "benchmarks/ops/*.py", "tests/ops/*.py"],
)
def test_every_stem_is_an_op(pattern: str) -> None:
    ops = {path.stem for path in (PACKAGE / "ops").glob("[!_]*.py")}
    assert ops, "fastcodec/ops holds no op"
    aside = ("_", "glue_")  # glue_*.cpp: the torch side of the kernels, some ops a file
    files = [path for path in ROOT.glob(pattern) if not path.stem.startswith(aside)]
    stems = {path.stem.removeprefix("test_") for path in files if path.stem != "conftest"}
    about_all = {"contract", "op"} if pattern.startswith("tests/") else NOT_OPS
    assert stems - about_all <= ops


IMPORT_ALONE = """
import re, sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

def plain(name):
    return re.sub(r"[-_.]+", "-", name.lower())

def closure(name, seen):
    if name not in seen:
        seen.add(name)
        try:
            lines = requires(name) or []
        except PackageNotFoundError:  # required on another platform only
            lines = []
        for line in lines:
            if "extra ==" not in line:
                closure(plain(re.match(r"[\\w.-]+", line)[0]), seen)
    return seen

allowed = closure("torch", closure("numpy", {"fastcodec"}))
owners = packages_distributions()
hidden = {name for name in owners if not {plain(o) for o in owners[name]} & allowed}

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hide())
import fastcodec
assert "soundfile" in hidden and "torch" not in hidden
"""


def test_import_needs_torch_and_numpy_only(tmp_path: Path) -> None:
    """Every other package is hidden, but for those that torch and numpy require themselves."""
    run = subprocess.run(
        [sys.executable, "-c", IMPORT_ALONE], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


def test_import_does_not_load_the_extras(tmp_path: Path) -> None:
    """Loading them at once would cost everybody the seconds that only their users should pay."""
    code = "import sys, fastcodec; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    extras = "huggingface_hub matplotlib rich safetensors soundfile soxr tflite typer"
    assert not set(extras.split()) & set(run.stdout.split())


def test_no_path_of_a_machine_in_the_tree() -> None:
    ignored = [".git", *(ROOT / ".gitignore").read_text().replace("/\n", "\n").split()]
    machine = re.compile(r"(?<![\w.~$)}-])/(?:home|root|tmp|work|Users)/")
    found = []
    for path in sorted(ROOT.rglob("*")):
        names = path.relative_to(ROOT).parts
        if not path.is_file() or any(fnmatch(name, rule) for name in names for rule in ignored):
            continue
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        found += [f"{name_of(path)}:{i}" for i, line in enumerate(lines, 1) if machine.search(line)]
    assert not found
