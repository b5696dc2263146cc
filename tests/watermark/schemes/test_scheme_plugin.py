"""A third party's scheme, installed by pip from `plugin_package`, serves as well as one of ours."""

import importlib.metadata
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detect.document.blind import blind_test
from detect.text.distinct import distinct_tuples
from watermark.errors import DyetraceError
from watermark.keys import KeyRing, SecretKey
from watermark.prf import words_rows
from watermark.registry import SCHEMES, make_scheme, scheme_names
from watermark.rowkeys import RowKeys
from watermark.schemes.protocol import Scheme
from watermark.spec import WatermarkSpec, parse_spec

PACKAGE = Path(__file__).parent / "plugin_package"
KEY = SecretKey(bytes(range(32)))
BUILT_IN = ["green_list", "gumbel", "tournament"]


@pytest.fixture(scope="module")
def site_packages(tmp_path_factory) -> Path:
    source = shutil.copytree(PACKAGE, tmp_path_factory.mktemp("source") / "package")
    target = tmp_path_factory.mktemp("site-packages")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index"]
    done = subprocess.run(
        [*pip, "--no-deps", "--no-build-isolation", "--target", str(target), str(source)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def installed(site_packages, monkeypatch):
    monkeypatch.syspath_prepend(str(site_packages))
    yield
    sys.modules.pop("dyetrace_shades", None)


def shades_spec(**parameters) -> WatermarkSpec:
    return WatermarkSpec(
        scheme="shades",
        parameters=parameters,
        vocabulary_size=500,
        tokenizer="t",
        key_fingerprint=KEY.fingerprint,
    )


def test_unknown_until_it_is_installed():
    assert scheme_names() == BUILT_IN
    with pytest.raises(DyetraceError, match=r"no scheme is called 'shades'; installed here: green_list, gumbel"):
        shades_spec()


@pytest.mark.usefixtures("installed")
def test_found_through_its_entry_point_alone():
    (entry,) = importlib.metadata.entry_points(group=SCHEMES.group, name="shades")
    assert entry.dist is not None and entry.dist.name == "dyetrace-shades"
    assert scheme_names() == sorted([*BUILT_IN, "shades", "broken"])
    scheme: Any = make_scheme("shades", {"strength": 2})
    assert type(scheme).__module__ == "dyetrace_shades"
    assert scheme.strength == 2.0
    assert isinstance(scheme, Scheme)


@pytest.mark.usefixtures("installed")
def test_a_spec_holds_its_parameters_and_refuses_wrong_ones():
    spec = shades_spec()
    assert b'"parameters":{"strength":1.0}' in spec.canonical_json
    assert parse_spec(spec.canonical_json, "x") == shades_spec(strength=1.0)
    with pytest.raises(DyetraceError, match=r"strength must lie in \(0, 5\] nats \(got 9.0\)"):
        shades_spec(strength=9)
    with pytest.raises(DyetraceError, match="scheme 'shades' has no parameter 'weight'"):
        shades_spec(weight=1)


@pytest.mark.usefixtures("installed")
def test_one_that_cannot_be_loaded_is_one_line_and_names_what_is_wrong():
    with pytest.raises(DyetraceError, match="scheme 'broken' is installed as dyetrace_shades:NotThere but") as error:
        make_scheme("broken", {})
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("installed")
def test_what_it_marks_is_detected_and_under_no_other_key():
    torch = pytest.importorskip("torch")
    spec, ring = shades_spec(strength=2), KeyRing.from_master(KEY)
    scheme = spec.build_scheme()
    keys = RowKeys.of(spec, ring, [None], [1], torch.device("cpu"))
    rng = np.random.default_rng(1)
    ids = [1, 2]
    for _ in range(60):
        words = words_rows(*keys.at(torch.tensor([ids[-2:]])), spec.vocabulary_size)
        logits = scheme.transform(torch.zeros(1, spec.vocabulary_size), torch.from_numpy(words.astype(np.int64)))
        p = logits.double().softmax(-1)[0].numpy()
        ids.append(int(rng.choice(spec.vocabulary_size, p=p)))
    tuples = distinct_tuples(np.array(ids, dtype=np.uint32), spec.context_width)
    assert blind_test(spec, ring, tuples, decoy_count=20).log10_pvalue < -10
    other = KeyRing.from_master(SecretKey(bytes(32)))
    assert blind_test(spec, other, tuples, decoy_count=0).log10_pvalue > -3
