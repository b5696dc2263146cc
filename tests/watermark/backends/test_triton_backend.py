"""The Triton kernels against the torch backend and the schemes' own definitions.

On a machine with a GPU they run compiled. Elsewhere they are interpreted on the CPU, which Triton must be
told before anything imports it: the tests then run in a process of their own, and another compiles them.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
RUN_HERE = INTERPRETED or torch.cuda.is_available()
DEVICE = "cpu" if INTERPRETED else "cuda"
VECTORS = Path(__file__).parents[1] / "vectors" / "prf.json"
TILE = 2048  # tokens that one program covers

if RUN_HERE:
    import triton
    import triton.language as tl

    from watermark.backends.triton_backend import _log_exponential

    @triton.jit
    def log_exponential_of(words, out, n: tl.constexpr):
        at = tl.arange(0, n)
        tl.store(out + at, _log_exponential(tl.load(words + at).to(tl.uint32)))


class TestElsewhere:
    __test__ = not RUN_HERE

    def run(self, *command: str, **env: str) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "TRITON_"))}
        done = subprocess.run(
            [sys.executable, *command],
            env={**kept, **env},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]

    def test_interpreted(self):
        options = ("-o", "addopts=--import-mode=importlib", "-p", "no:cacheprovider", "-q")
        self.run("-m", "pytest", *options, __file__, TRITON_INTERPRET="1")

    def test_compiled_for_a_gpu_that_is_not_here(self, tmp_path):
        self.run("-W", "ignore", __file__, TRITON_CACHE_DIR=str(tmp_path))


class TestKernels:
    __test__ = RUN_HERE

    @pytest.fixture(autouse=True)
    def backends(self):
        from watermark.backends import torch_backend, triton_backend

        self.ours, self.plain = triton_backend, torch_backend
        self.random = torch.Generator().manual_seed(5)

    def keys_and_nonces(self, rows):
        keys, nonces = (
            torch.randint(-(2**31), 2**31, shape, dtype=torch.int32, generator=self.random).to(DEVICE)
            for shape in ((rows, 8), (3, rows))
        )
        return keys, nonces

    def logits(self, rows, vocabulary, dtype=torch.float32):
        return (4 * torch.randn((rows, vocabulary), generator=self.random)).to(dtype).to(DEVICE)

    def test_words_of_the_shared_vectors(self):
        vectors = json.loads(VECTORS.read_text())["vectors"]
        by_width: dict[int, Any] = {}
        for vector in vectors:
            by_width.setdefault(len(vector["context"]), []).append(vector)
        for group in by_width.values():

            def words(name, group=group):
                texts = [bytes.fromhex(v[name] or "00" * 32) for v in group]
                array = np.stack([np.frombuffer(text, dtype="<u4") for text in texts])
                return self.plain.key_tensor(array, DEVICE)

            contexts, tokens = (
                torch.tensor([v[k] for v in group], dtype=torch.int64, device=DEVICE) for k in ("context", "tokens")
            )
            nonces = self.plain.nonces(contexts, words("context_key"))
            ours = self.ours.words_among(words("key"), nonces, tokens)
            assert ours.tolist() == [v["words"] for v in group]

    @pytest.mark.parametrize("vocabulary", [1, 1000, 1040, TILE + 17])
    def test_words_of_whole_rows_are_the_plain_ones(self, vocabulary):
        keys, nonces = self.keys_and_nonces(2)
        ours = self.ours.words_rows(keys, nonces, vocabulary)
        assert torch.equal(ours, self.plain.words_rows(keys, nonces, vocabulary))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("gamma", [0.25, 0.7])  # thresholds on both sides of 2^31
    def test_green_list(self, dtype, gamma):
        from watermark.schemes.green_list import GreenList

        scheme = GreenList(gamma, 1.5)
        keys, nonces = self.keys_and_nonces(2)
        logits = self.logits(2, 1000, dtype)
        logits[1, 3:900] = -torch.inf
        ours = self.ours.green_list(logits, keys, nonces, scheme.threshold, scheme.delta)
        expected = scheme.transform(logits.float(), self.plain.words_rows(keys, nonces, 1000))
        assert ours.dtype == torch.float32
        assert torch.equal(ours, expected)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_gumbel_chooses_what_float64_chooses(self, dtype):
        from watermark.schemes.gumbel import Gumbel

        rows, vocabulary = 6, 2 * TILE + 40
        keys, nonces = self.keys_and_nonces(rows)
        logits = self.logits(rows, vocabulary, dtype)
        logits[1] = 0.0  # the words alone decide: the highest one, next to u = 1
        logits[2, :-1] = -torch.inf  # a single live token, in the last tile
        logits[3, 30:] = -torch.inf  # tiles without a live token
        logits[4, :] = -torch.inf
        logits[4, [7, TILE + 5, 2 * TILE + 9]] = 1.0
        ours = self.ours.gumbel(logits, keys, nonces)
        expected = Gumbel().transform(logits.float(), self.plain.words_rows(keys, nonces, vocabulary))
        assert torch.equal(ours, expected)

    def test_gumbel_settles_races_that_float32_cannot(self):
        """Two live tokens 1e-9 apart in the race, in one tile, either way round."""
        keys, nonces = self.keys_and_nonces(1)
        u = (self.plain.words_rows(keys, nonces, 64)[0].double() + 0.5) / 2**32
        gumbels = -torch.log(-torch.log(u))
        for seed in range(8):
            gap = (gumbels[seed] - gumbels[seed + 20]).item()
            logits = torch.full((1, 64), -torch.inf, device=DEVICE)
            logits[0, seed] = 0.0
            logits[0, seed + 20] = gap  # rounded to float32: off by 1e-8 or so, to either side
            exact = logits[0].double() + gumbels
            assert self.ours.gumbel(logits, keys, nonces)[0].argmax() == exact.argmax()

    def test_the_logarithms_of_the_race_are_exact_to_3e_6(self):
        steps = torch.arange(1 << 12)
        spread = (2 ** torch.linspace(0, 32, 1 << 12, dtype=torch.float64)).long() - 1
        edge = int(0.875 * 2**32)  # where the series ends
        words = torch.cat([steps, 2**32 - 1 - steps, edge - steps, spread]).clamp(0, 2**32 - 1)
        out = torch.empty(len(words), device=DEVICE)
        log_exponential_of[(1,)](words.to(DEVICE), out, n=len(words), enable_fp_fusion=True)
        exact = torch.log(-torch.log((words.double() + 0.5) / 2**32))
        assert (out.cpu().double() - exact).abs().max() < 3e-6

    @pytest.mark.parametrize("depth", [1, 4, 6, 30, 32])
    def test_tournament(self, depth):
        from watermark.schemes.tournament import Tournament

        rows, vocabulary = 2, TILE + 40
        keys, nonces = self.keys_and_nonces(rows)
        logits = self.logits(rows, vocabulary)
        logits[1, 40:] = -torch.inf  # a tile without mass
        ours = self.ours.tournament(logits, keys, nonces, depth)
        expected = Tournament(depth).transform(logits, self.plain.words_rows(keys, nonces, vocabulary))
        torch.testing.assert_close(ours.exp(), expected.exp(), rtol=1e-4, atol=1e-7)
        assert (ours[1, 40:] == -torch.inf).all()
        torch.testing.assert_close(ours.exp().sum(1), torch.ones(rows, device=DEVICE))

    def test_tournament_of_bfloat16_logits(self):
        from watermark.schemes.tournament import Tournament

        keys, nonces = self.keys_and_nonces(1)
        logits = self.logits(1, 100, torch.bfloat16)
        ours = self.ours.tournament(logits, keys, nonces, 5)
        expected = Tournament(5).transform(logits.float(), self.plain.words_rows(keys, nonces, 100))
        torch.testing.assert_close(ours.exp(), expected.exp(), rtol=1e-4, atol=1e-7)

    def test_rows_that_lie_apart_and_columns_that_do(self):
        """A server slices the padding of a vocabulary off, which leaves the rows apart."""
        keys, nonces = self.keys_and_nonces(2)
        padded = self.logits(2, 120)
        for logits in (padded[:, :100], padded[:, ::2]):
            same = logits.contiguous()
            for function, arguments in (("green_list", (2**30, 2.0)), ("gumbel", ()), ("tournament", (3,))):
                fused = getattr(self.ours, function)
                ours = fused(logits, keys.T.contiguous().T, nonces, *arguments)
                assert torch.equal(ours, fused(same, keys, nonces, *arguments))

    def test_an_empty_batch_passes(self):
        keys, nonces = self.keys_and_nonces(0)
        logits = self.logits(0, 100)
        assert self.ours.green_list(logits, keys, nonces, 2**30, 2.0).shape == (0, 100)
        assert self.ours.gumbel(logits, keys, nonces).shape == (0, 100)
        assert self.ours.tournament(logits, keys, nonces, 4).shape == (0, 100)

    def test_it_serves_floats_on_its_device_alone(self):
        assert self.ours.serves(self.logits(1, 4))
        assert self.ours.serves(self.logits(1, 4, torch.bfloat16))
        assert not self.ours.serves(self.logits(1, 4, torch.float64))
        assert not self.ours.serves(torch.zeros(1, 4, device="meta"))


def compile_kernels() -> None:
    """Compile every kernel for an H100, down to its machine code, which needs no GPU."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from watermark.backends import triton_backend as backend

    row = {"logits": "*bf16", "stride": "i32", "keys": "*i32", "nonces": "*i32", "vocabulary": "i32"}
    tournament = {"p": "*fp32", "words": "*i32", "masses": "*fp32"}
    passes = {**row, **tournament, "after": "*fp32", "layer": "i32"}
    kernels = [
        (backend._words_among, {**row, "tokens": "*i64", "out": "*i64", "count": "i32"}, {}),
        (backend._words_rows, {**row, "out": "*i64"}, {}),
        (backend._green_list, {**row, "threshold": "i32", "delta": "fp32", "out": "*fp32"}, {}),
        (backend._gumbel, {**row, "finalists": "*i64", "words": "*i64"}, {}),
        (backend._tournament_start, {**row, **tournament, "peaks": "*bf16"}, {}),
        (backend._tournament_pass, passes, {"TILES": 64, "LAYERS": 4, "LAST": False}),
        (backend._tournament_pass, passes, {"TILES": 64, "LAYERS": 2, "LAST": True}),
    ]
    for kernel, types, constants in kernels:
        constants = {"LANES": backend._LANES, **constants}
        signature = {name: types.get(name, "constexpr") for name in kernel.arg_names}
        source = ASTSource(kernel, signature=signature, constexprs=constants)
        compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})
        assert compiled.asm["cubin"], kernel


if __name__ == "__main__":
    compile_kernels()
