"""The whole way, on models trained on the spot: a student of marked answers is found, one of unmarked ones is not."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from detect.cli.main import main
from detect.records.reading import read_record
from detect.records.trace import TraceRecord
from detect.student.open_weights import WORK, Placebo, WeightsJob, trace_weights
from detect.student.texts.served import crowding
from detect.student.verdict.conclude import conclude
from detect.student.verdict.evidence import EVIDENCE_FILE, TraceSettings, read_evidence
from detect.text.natural_text import natural_documents
from watermark.errors import DyetraceError
from watermark.generate import Sampling, generate_answers
from watermark.keys import KeyRing, SecretKey, write_key_file
from watermark.ledger import Ledger, answer_contexts
from watermark.ledger_file import new_file, new_header
from watermark.models.tokenizer import load_tokenizer, tokenizer_fingerprint, vocabulary_size
from watermark.placebo import placebo
from watermark.spec import WatermarkSpec, write_spec

KEY = SecretKey(bytes(range(32)))
RING = KeyRing.from_master(KEY)


@dataclass(frozen=True)
class World:
    """A base model, a teacher's answers with and without the mark, and a student of each."""

    folder: Path
    spec: WatermarkSpec

    def job(self, student: str, **more: Any) -> WeightsJob:
        fields: dict[str, Any] = {
            "student": self.folder / student,
            "texts": [str(self.folder / "prose.txt")],
            "references": [self.folder / "base"],
            "contexts": 1_500,
            "dtype": "float32",
            "settings": TraceSettings(decoy_count=20),
        }
        return WeightsJob(**fields | more)

    def trace(self, output: Path, student: str, **more: Any) -> TraceRecord:
        tokenizer = load_tokenizer(self.folder / "base")
        return trace_weights(self.job(student, **more), self.spec, RING, tokenizer, output)


def _tokenizer(texts: list[str]) -> Any:
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=512, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False),
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>")


def _train(model: Any, rows: Any, steps: int, rate: float) -> None:
    import torch

    optimiser = torch.optim.AdamW(model.parameters(), lr=rate)
    generator = torch.Generator().manual_seed(0)
    model.train()
    for _ in range(steps):
        batch = rows[torch.randint(len(rows), (16,), generator=generator)]
        loss = model(input_ids=batch, labels=batch).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.eval()


def _rows(ids: list[int], length: int = 64) -> Any:
    import torch

    whole = len(ids) // length * length
    return torch.tensor(ids[:whole]).view(-1, length)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    import copy

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("world")
    prose = [text[:3000] for _, text in natural_documents("prose", 60)]
    tokenizer = _tokenizer(prose)
    torch.manual_seed(0)
    base = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    ids = [i for text in prose[10:] for i in tokenizer(text)["input_ids"]]
    _train(base, _rows(ids), 120, 3e-3)
    spec = WatermarkSpec(
        context_width=1,
        subkeys=1,
        vocabulary_size=vocabulary_size(tokenizer),
        tokenizer=tokenizer_fingerprint(tokenizer),
        key_fingerprint=KEY.fingerprint,
    )
    (folder / "prose.txt").write_text("\n".join(prose[:10]))
    prompts = list(
        dict.fromkeys(text[100 * i : 100 * i + 40].strip() or "A" for text in prose[10:42] for i in range(3))
    )[:64]
    sampling = Sampling(max_new_tokens=100, batch=64, seed=1)
    for name, mark in (("marked", (spec, RING)), ("unmarked", (None, None)), ("placebo", placebo(spec, KEY))):
        answers = list(generate_answers(base, tokenizer, prompts, sampling, *mark))
        (folder / f"{name}.jsonl").write_text(
            "".join(
                json.dumps(
                    {
                        "text": a.text,
                        "token_ids": a.token_ids,
                        "prompt_token_ids": a.prompt_token_ids,
                        **({"spec_id": a.spec_id, "subkey": a.subkey} if a.spec_id else {}),
                    }
                )
                + "\n"
                for a in answers
            )
        )
        student = copy.deepcopy(base)
        _train(student, _rows([i for a in answers for i in a.token_ids]), 60, 2e-3)
        student.save_pretrained(folder / f"of-{name}")
        tokenizer.save_pretrained(folder / f"of-{name}")
    base.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    return World(folder, spec)


@pytest.fixture(scope="module")
def found(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[TraceRecord, Path]:
    output = tmp_path_factory.mktemp("found")
    more = {"controls": [world.folder / "of-unmarked"], "served": str(world.folder / "marked.jsonl")}
    return world.trace(output, "of-marked", **more), output


def test_a_student_of_marked_answers_is_found_by_reading_text_that_it_never_saw(found: Any) -> None:
    record, _ = found
    assert record.found and record.log10_pvalue < -6
    assert record.basis == "e-value" and record.served_marked and record.readout == "reference"
    assert record.references[0].share == 1.0
    assert record.controls.decoy_log10_agreement > -4


@pytest.fixture(scope="module")
def ledger(world: World) -> Path:
    """What a server that served the marked answers would have counted."""
    path = world.folder / "served.ledger"
    with Ledger.create(path, world.spec, RING, megabytes=1) as ledger:
        for line in (world.folder / "marked.jsonl").read_text().splitlines():
            answer = json.loads(line)
            # One token more, as an answer's last context counts where answers are read.
            contexts = answer_contexts(answer["prompt_token_ids"], [*answer["token_ids"], 0], world.spec.context_width)
            ledger.add(None, answer["subkey"], contexts)
    return path


def test_a_ledger_of_the_served_answers_gives_the_trace_that_they_give(
    world: World, found: Any, ledger: Path, tmp_path: Path
) -> None:
    of_answers, folder = found
    controls = [world.folder / "of-unmarked"]
    of_ledger = world.trace(tmp_path, "of-marked", controls=controls, served=str(ledger))
    assert (tmp_path / EVIDENCE_FILE).read_bytes() == (folder / EVIDENCE_FILE).read_bytes()
    for name in ("hypotheses", "curve", "controls", "readings", "comparisons", "log10_pvalue", "found"):
        assert getattr(of_ledger, name) == getattr(of_answers, name), name
    assert of_ledger.served is not None and of_ledger.served.name == str(ledger)


def test_the_command_takes_a_ledger_and_the_report_holds_it_to_its_hash(
    world: World, ledger: Path, tmp_path: Path
) -> None:
    write_key_file(tmp_path / "owner.key", KEY)
    write_spec(tmp_path / "spec.json", world.spec)
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    for file in (ledger, world.folder / "prose.txt"):
        shutil.copy(file, inputs)
    served = inputs / ledger.name

    def run(*words: object) -> tuple[int, str]:
        result = CliRunner().invoke(main, [str(word) for word in words])
        return result.exit_code, result.output

    base = world.folder / "base"
    trace = ["trace", "weights", world.folder / "of-marked", "--read", inputs / "prose.txt", "--contexts", 300]
    trace += ["--spec", tmp_path / "spec.json", "--key", f"file:{tmp_path / 'owner.key'}", "--tokenizer", base]
    trace += ["--dtype", "float32", "--decoys", 20, "--no-pdf", "-o", tmp_path / "found"]
    report = tmp_path / "found" / "report.json"
    status, output = run(*trace, "--served", served)
    assert status == 0 and "warning" not in output, output
    assert run("report", "verify", report, "--inputs", inputs)[0] == 0
    assert run("recompute", report, "--key", f"file:{tmp_path / 'owner.key'}")[0] == 0

    status, output = run(*trace, "--served", served, "--served-tenant", "acme")
    assert status == 2 and "counts of tenant 'acme'" in output and "Traceback" not in output
    status, output = run(*trace, "--served-tenant", "acme")
    assert status == 2 and "give --served" in output
    with Ledger.open(served, world.spec, RING, write=True) as server:
        status, output = run(*trace, "--served", served)
        assert status == 2 and "is open for writing" in output
        server.add(None, 0, np.array([[7]]))
    status, output = run("report", "verify", report, "--inputs", inputs)
    assert status != 0 and "served.ledger" in output


def test_a_crowded_ledger_is_told_of_and_its_trace_is_as_valid(world: World, tmp_path: Path) -> None:
    """Every context reads some count then, so that of all contexts none is left out and no student is wronged."""
    path = tmp_path / "crowded.ledger"
    header = new_header(world.spec.spec_id, world.spec.key_fingerprint, 1)
    with new_file(path, msgspec.structs.replace(header, width=64)):
        pass
    with Ledger.open(path, world.spec, RING, write=True) as ledger:
        for start in range(20):
            ledger.add(None, 0, np.arange(start, 500 + start)[:, None])
    assert crowding(str(path)) is not None
    record = world.trace(tmp_path / "clean", "of-unmarked", served=str(path))
    assert not record.found and record.log10_pvalue is not None and record.log10_pvalue > -4
    everything = world.trace(tmp_path / "all", "of-unmarked")
    assert record.readings == everything.readings


def test_a_student_of_unmarked_answers_to_the_same_prompts_is_not_found(world: World, tmp_path: Path) -> None:
    for readout in ("reference", "entropy"):
        record = world.trace(tmp_path / readout, "of-unmarked", readout=readout)
        assert not record.found and record.log10_pvalue is not None and record.log10_pvalue > -4


def test_controls_show_nothing_where_no_mark_can_be(found: Any) -> None:
    record, _ = found
    assert [c.what for c in record.controls.models] == ["reference in the suspect's place", "control model"]
    assert all(c.log10_pvalue > -4 for c in record.controls.models)


def test_the_report_reads_back_and_its_evidence_gives_every_number_again(world: World, found: Any) -> None:
    record, output = found
    assert read_record(TraceRecord, output / "report.json") == record
    evidence = read_evidence(output / EVIDENCE_FILE)
    again = conclude(evidence, world.spec, RING, record.basis, TraceSettings(decoy_count=20))
    assert again.hypotheses == record.hypotheses
    assert again.log10_pvalue == record.log10_pvalue and again.curve == record.curve
    assert again.controls.decoy_log10_pvalues == record.controls.decoy_log10_pvalues
    assert evidence.contexts == record.contexts


def test_the_record_says_how_it_was_made(world: World, found: Any) -> None:
    record, _ = found
    assert record.arguments == {
        "student": str(world.folder / "of-marked"),
        "texts": [str(world.folder / "prose.txt")],
        "references": [str(world.folder / "base")],
        "controls": [str(world.folder / "of-unmarked")],
        "served": str(world.folder / "marked.jsonl"),
        "served_tenant": None,
        "calibration": [],
        "tenant": None,
        "taken": None,
        "complete": None,
        "placebo_answers": None,
        "readout": None,
        "contexts": 1_500,
        "decoys": 20,
        "dtype": "float32",
        "tenants": [],
    }
    more = {"calibration": [(Path("tenth"), 0.1)], "placebo": Placebo("placebo.jsonl", world.spec, RING)}
    arguments = world.job("base", **more).arguments
    assert arguments["calibration"] == ["tenth=0.1"] and arguments["placebo_answers"] == "placebo.jsonl"


def test_another_owners_key_finds_nothing_in_the_same_evidence(world: World, found: Any) -> None:
    _, output = found
    stranger = SecretKey(bytes(32))
    spec = WatermarkSpec(
        **{f: getattr(world.spec, f) for f in ("context_width", "subkeys", "vocabulary_size", "tokenizer")},
        key_fingerprint=stranger.fingerprint,
    )
    evidence = read_evidence(output / EVIDENCE_FILE)
    again = conclude(evidence, spec, KeyRing.from_master(stranger), "p-value", TraceSettings(decoy_count=0))
    assert not again.found and again.log10_pvalue is not None and again.log10_pvalue > -4


def test_reading_the_marked_answers_themselves_rests_on_the_evalue(world: World, tmp_path: Path) -> None:
    served = [str(world.folder / "marked.jsonl")]
    mine = world.trace(tmp_path / "a", "of-marked", texts=served)
    assert mine.basis == "e-value" and mine.readings[0].marked
    assert mine.found and mine.log10_pvalue == pytest.approx(-mine.hypotheses[0].log10_evalue)
    other = world.trace(tmp_path / "b", "of-unmarked", texts=served)
    assert not other.found and other.log10_evalue < 3


def test_a_placebo_that_nobody_was_served_is_not_found_and_leaves_the_verdict(world: World, tmp_path: Path) -> None:
    given = Placebo(str(world.folder / "placebo.jsonl"), *placebo(world.spec, KEY))
    record = world.trace(tmp_path, "of-marked", texts=[str(world.folder / "marked.jsonl")], placebo=given)
    (control,) = [c for c in record.controls.models if c.what == "placebo key"]
    assert record.found and control.log10_pvalue > -4
    assert any("placebo key" in one.how and one.checked for one in record.assumptions)


def test_a_suspect_that_shows_the_placebo_as_well_gets_no_verdict(world: World, tmp_path: Path) -> None:
    """It learnt the placebo answers: whatever the reason, what is measured is not the serving of marked answers."""
    given = Placebo(str(world.folder / "placebo.jsonl"), *placebo(world.spec, KEY))
    record = world.trace(tmp_path, "of-placebo", texts=[str(world.folder / "marked.jsonl")], placebo=given)
    assert not record.found and record.log10_pvalue is None
    assert record.refused is not None and "placebo key's mark" in record.refused


def test_answers_that_carry_the_mark_itself_are_no_placebo(world: World, tmp_path: Path) -> None:
    given = Placebo(str(world.folder / "marked.jsonl"), *placebo(world.spec, KEY))
    with pytest.raises(DyetraceError, match="does not hold answers under the placebo key"):
        world.trace(tmp_path, "of-marked", texts=[str(world.folder / "marked.jsonl")], placebo=given)


def test_unmarked_reading_that_carries_the_mark_is_refused(world: World, tmp_path: Path) -> None:
    """Records that lost their spec_id: a model that copies what it reads would look guilty."""
    lost = tmp_path / "lost.jsonl"
    records = [json.loads(line) for line in (world.folder / "marked.jsonl").read_text().splitlines()]
    lost.write_text("".join(json.dumps({"text": r["text"], "token_ids": r["token_ids"]}) + "\n" for r in records))
    with pytest.raises(DyetraceError, match="yet it carries the mark"):
        world.trace(tmp_path / "out", "of-unmarked", texts=[str(lost)])


def test_two_texts_count_a_context_once(world: World, tmp_path: Path) -> None:
    texts = [str(world.folder / "prose.txt"), str(world.folder / "marked.jsonl")]
    record = world.trace(tmp_path / "both", "of-marked", texts=texts)
    evidence = read_evidence(tmp_path / "both" / EVIDENCE_FILE)  # refuses a tuple that stands twice
    assert sum(r.contexts for r in record.readings) == record.contexts == evidence.contexts
    assert len(np.unique(evidence.tuples.contexts, axis=0)) == evidence.contexts
    assert {c.readout for c in record.comparisons} >= {"argmax", "entropy", "reference, prose.txt alone"}


def test_a_second_run_reads_nothing_anew_and_says_the_same(world: World, found: Any) -> None:
    record, output = found
    shards = {path: path.stat().st_mtime_ns for path in (output / WORK).rglob("*.npz")}
    more = {"controls": [world.folder / "of-unmarked"], "served": str(world.folder / "marked.jsonl")}
    again = world.trace(output, "of-marked", **more)
    assert again.hypotheses == record.hypotheses and again.files == record.files
    assert shards == {path: path.stat().st_mtime_ns for path in (output / WORK).rglob("*.npz")}


@pytest.mark.parametrize("linked", [False, True])
def test_nothing_is_kept_in_somebody_elses_folder(linked: bool, world: World, tmp_path: Path) -> None:
    mine = tmp_path / "mine" if linked else tmp_path / "out" / WORK
    mine.mkdir(parents=True)
    (mine / "thesis.txt").write_text("mine")
    if linked:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / WORK).symlink_to(mine)
    with pytest.raises(DyetraceError, match="was not made by dyetrace; give another folder"):
        world.trace(tmp_path / "out", "of-marked")
    assert [path.name for path in mine.iterdir()] == ["thesis.txt"] and (mine / "thesis.txt").read_text() == "mine"


def _like(student: Path, folder: Path, seed: int) -> Path:
    """A student that differs from another one as by other chance in training: its weights moved a little."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(student, folder)
    generator = torch.Generator().manual_seed(seed)
    weights = load_file(folder / "model.safetensors")
    moved = {n: w * (1 + 0.003 * torch.randn(w.shape, generator=generator)) for n, w in weights.items()}
    save_file(moved, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_calibration_students_turn_the_effect_into_a_share(world: World, tmp_path: Path) -> None:
    kinds = {"of-unmarked": 0.1, "of-marked": 1.0}
    calibration = [
        (_like(world.folder / kind, tmp_path / f"{kind}-{seed}", seed), share)
        for kind, share in kinds.items()
        for seed in range(3)
    ]
    marked = world.trace(tmp_path / "share", "of-marked", calibration=calibration).share
    assert marked.interval is not None and len(marked.doses) == 6
    assert (marked.interval.low, marked.interval.high) == (0.1, None)
    assert "3 of 0.1, 3 of 1 calibration students" in marked.reason
    # One student of each share tells nothing of how far training by itself moves the effect.
    single = world.trace(tmp_path / "share", "of-marked", calibration=calibration[::3]).share
    assert single.interval is None and "several students each" in single.reason and len(single.doses) == 2
    assert world.trace(tmp_path / "none", "of-marked").share.interval is None
    copied = [calibration[0], (shutil.copytree(calibration[0][0], tmp_path / "copy"), 0.1)]
    with pytest.raises(DyetraceError, match="are the same model: a copy does not show"):
        world.trace(tmp_path / "share", "of-marked", calibration=copied)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"readout": "reference", "references": []}, "needs --reference"),
        ({"texts": ["missing.txt"]}, "cannot read missing.txt"),
        ({"references": [Path("no-folder")]}, "no-folder"),
    ],
)
def test_what_cannot_be_traced_is_one_line(more: dict[str, Any], message: str, world: World, tmp_path: Path) -> None:
    with pytest.raises(DyetraceError, match=message) as error:
        world.trace(tmp_path, "of-marked", **more)
    assert "\n" not in str(error.value)


def test_the_wrong_key_is_refused(world: World, tmp_path: Path) -> None:
    stranger = KeyRing.from_master(SecretKey(bytes(32)))
    with pytest.raises(DyetraceError, match="wrong key"):
        trace_weights(world.job("base"), world.spec, stranger, load_tokenizer(world.folder / "base"), tmp_path)
    job = replace(world.job("of-marked"), texts=[str(world.folder / "prose.txt")] * 2)
    with pytest.raises(DyetraceError, match="gives no context that was not read before"):
        trace_weights(job, world.spec, RING, load_tokenizer(world.folder / "base"), tmp_path)
