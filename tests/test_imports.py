"""What is loaded when, who imports whom, and what happens beside other distributions of our names."""

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import detect
import watermark

FOLDERS = {module.__name__: Path(str(module.__file__)).parent for module in (watermark, detect)}
ROOT = FOLDERS["watermark"].parent

# Lets nothing be imported but the standard library, what is named after it, and what those need.
ONLY = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in ALLOWED and not top.startswith("_"):
            raise ModuleNotFoundError(f"blocked: {name}", name=name)

sys.meta_path.insert(0, Block())
"""


def python(code: str, *path: Path, options: tuple[str, ...] = ("-P",)) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter that looks for packages in ``path`` first."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))}
    command = [sys.executable, *options, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def works(code: str) -> str:
    done = python(code, ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


# --------------------------------------------------------------------------------------- what is loaded when


def test_the_keyed_core_needs_numpy_alone():
    word = watermark.prf_u32(watermark.SecretKey(bytes(range(32))), [3, 1, 4, 1], 5)
    works(f"""
ALLOWED = {{"numpy", "watermark"}}
{ONLY}
import numpy
import watermark
from watermark import DyetraceError, KeyRing, SecretKey, TenantKey, load_key, prf_u32
from watermark.schemes.gumbel import Gumbel
from watermark.schemes.green_list import GreenList
from watermark.schemes.tournament import Tournament
from watermark import prf

key = SecretKey(bytes(range(32)))
assert prf_u32(key, [3, 1, 4, 1], 5) == {word}
contexts = numpy.array([[1, 2]], dtype=numpy.uint32)
words = prf.words_rows(key.words[None], prf.nonces(contexts, None), 40)[0]
assert words[7] == prf_u32(key, [1, 2], 7)
for scheme in (Gumbel(), GreenList(), Tournament()):
    assert len(scheme.statistic(words)) == 40
""")


def test_the_spec_needs_msgspec_besides():
    works(f"""
ALLOWED = {{"numpy", "msgspec", "watermark"}}
{ONLY}
from watermark import SecretKey, WatermarkSpec, commit, load_spec, verify, write_spec
key = SecretKey.generate()
spec = WatermarkSpec(vocabulary_size=9, tokenizer="t", key_fingerprint=key.fingerprint)
verify(*commit(spec, key), spec, key)
""")


def test_importing_the_packages_loads_no_other():
    loaded = works("""
import sys
before = set(sys.modules)
import watermark, detect
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)))
""")
    assert loaded.split() == ["detect", "watermark"]


def test_the_hook_says_what_to_install_where_torch_is_missing():
    done = python(
        f"""
ALLOWED = {{"numpy", "msgspec", "watermark"}}
{ONLY}
from watermark import WatermarkConfig
""",
        ROOT,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "ImportError: WatermarkConfig needs torch: pip install 'dyetrace[model]'"


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["detect", "--help"], ["scan", "--help"], ["report", "verify", "--help"], ["--version"]],
)
def test_help_loads_nothing_heavy(arguments):
    output = works(f"""
import sys
sys.argv = ["dyetrace", *{arguments}]
from detect.cli.main import main
try:
    main()
except SystemExit as end:
    assert not end.code
print(*{{name.partition(".")[0] for name in sys.modules}})
""")
    loaded = output.splitlines()[-1].split()
    assert "click" in loaded
    heavy = [
        "torch",
        "transformers",
        "scipy",
        "pyarrow",
        "numba",
        "numpy",
        "tokenizers",
        "rich",
        "jinja2",
        "msgspec",
    ]
    assert not set(heavy) & set(loaded)


# ---------------------------------------------------------------------------------------- who imports whom


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of both packages, and of the contract that `lint-imports` holds them against."""
    for name, folder in FOLDERS.items():
        shutil.copytree(folder, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(tree: Path) -> subprocess.CompletedProcess[str]:
    """Hold a tree against its contract, as CI does."""
    code = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    command = [sys.executable, "-c", code, "--no-cache", "--no-logo"]
    return subprocess.run(command, capture_output=True, text=True, cwd=tree, env=os.environ | {"COLUMNS": "200"})


def test_the_contract_of_imports_holds(tree):
    done = lint(tree)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("file", "imported", "line", "said"),
    [
        ("watermark/spec.py", "detect.laws.level", "    import {}", "watermark.spec -> detect.laws.level"),
        (
            "detect/records/made.py",
            "detect.report.wording",
            "    import {}",
            "detect.records.made -> detect.report.wording",
        ),
        ("detect/corpus/scan.py", "detect.report.story", "import {}", "detect.corpus.scan -> detect.report.story"),
        (
            "detect/student/texts/served.py",
            "detect.student.endpoint",
            "    import {}",
            "served -> detect.student.endpoint",
        ),
        ("detect/laws/lattice.py", "detect.laws.tails", "    import {}", "No cycles are allowed in detect.laws"),
        ("detect/attic.py", "detect.laws.tails", "import {}", "attic"),
    ],
    ids=["watermark", "core to report", "at the top", "student", "circle", "no place"],
)
def test_the_contract_fails_on_a_back_arrow_even_within_a_function(tree, file, imported, line, said):
    """And on a room that has no place in it."""
    statement = line.format(imported)
    planted = f"\n\ndef _planted() -> None:\n{statement}\n" if statement.startswith(" ") else f"\n{statement}\n"
    with (tree / file).open("a") as stream:
        stream.write(planted)
    done = lint(tree)
    assert done.returncode == 1
    assert said in done.stdout


def test_the_documents_table_of_rooms_is_the_contracts():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract.get("containers") == ["detect"])
    contracted = [
        (floor, name) for floor, layer in enumerate(reversed(layers), 1) for name in sorted(re.split(r" [|:] ", layer))
    ]
    rows = re.findall(r"^\| (\d+) \| (`.*?) \|", (ROOT / "docs" / "house.md").read_text(), re.MULTILINE)
    documented = [(int(floor), name) for floor, row in rows for name in re.findall(r"`(\w+)/?`", row)]
    assert [floor for floor, _ in documented] == sorted(floor for floor, _ in documented)
    assert sorted(documented) == contracted


def test_ci_holds_the_code_against_the_contract():
    assert '"$venv/bin/lint-imports"' in (ROOT / ".ci" / "run").read_text()


# ------------------------------------------------------------------------------------- the public surface


def promised(module) -> dict[str, str]:
    """Name and home of what type checkers see: the imports under ``if TYPE_CHECKING``."""
    tree = ast.parse(Path(str(module.__file__)).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {str(alias.asname): str(node.module) for node in imports for alias in node.names}


@pytest.mark.parametrize("module", [watermark, detect], ids=lambda m: m.__name__)
def test_every_public_name_loads_and_is_what_type_checkers_see(module):
    assert promised(module) == module._HOMES
    assert sorted(module.__all__) == module.__all__ == sorted(module._HOMES)
    for name, home in module._HOMES.items():
        if name == "WatermarkConfig":
            pytest.importorskip("transformers")
        assert getattr(module, name) is getattr(importlib.import_module(home), name)
        assert name in dir(module)
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        module.nonsense  # noqa: B018


# ---------------------------------------------------------------------- other distributions of these names


def test_a_foreign_watermark_package_is_one_clear_error(tmp_path):
    (tmp_path / "watermark").mkdir()
    (tmp_path / "watermark" / "__init__.py").write_text("__version__ = '2.5'\n")
    done = python("import detect", tmp_path, ROOT)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1
    assert last.startswith(f"ImportError: the package 'watermark' found in {tmp_path}")
    assert "another distribution" in last


def test_a_watermark_folder_without_our_init_is_the_same_error(tmp_path):
    """What is left of ours after another distribution of the name was installed and removed again."""
    shutil.copytree(FOLDERS["watermark"], tmp_path / "watermark", ignore=shutil.ignore_patterns("__init__.py"))
    shutil.copytree(FOLDERS["detect"], tmp_path / "detect")
    done = python("import detect", tmp_path, options=("-P", "-S"))
    assert done.returncode == 1
    assert "ImportError: the package 'watermark'" in done.stderr.splitlines()[-1]


def test_a_detect_package_that_was_overwritten_is_one_clear_error(tmp_path):
    shutil.copytree(FOLDERS["watermark"], tmp_path / "watermark")
    shutil.copytree(FOLDERS["detect"], tmp_path / "detect")
    (tmp_path / "detect" / "__init__.py").write_text("__version__ = '0.1'\n")
    done = python("from detect.cli.main import main", tmp_path)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1
    assert last.startswith(f"ImportError: the package 'detect' in {tmp_path / 'detect'} is not dyetrace's own")


def test_a_detect_package_elsewhere_does_not_disturb_who_only_generates(tmp_path):
    (tmp_path / "detect").mkdir()
    (tmp_path / "detect" / "__init__.py").write_text("import watermark\n")
    done = python("import detect; from watermark import SecretKey; SecretKey.generate()", tmp_path, ROOT)
    assert done.returncode == 0, done.stderr
