"""What all formats of exported files have in common, and what no runtime is needed for."""

import hashlib
import os
import random
import sys
import types

import pytest

from mindghost.errors import UserError
from mindghost.inference.formats import litert_file, openvino_file
from mindghost.inference.formats.ncnn_file import NCNN
from mindghost.inference.formats.onnx_file import ONNX
from tests.helpers.commands import run_mindghost


def test_a_description_is_bound_to_the_files_beside_the_one_that_is_named(tmp_path):
    contents = [b"layers", b"weights"]
    said = NCNN.bound({"model": "x", "parts": {".bin": "that of its source"}}, contents)
    assert said == {"model": "x", "parts": {".bin": hashlib.sha256(b"weights").hexdigest()}}
    # Nothing lies beside these.
    assert ONNX.bound({"model": "x"}, [b"graph"]) == {"model": "x"}
    path = tmp_path / "a.ncnn.param"
    path.with_suffix(".bin").write_bytes(b"weights")
    NCNN.check_bound(path, said)
    path.with_suffix(".bin").write_bytes(b"others.")
    NCNN.check_bound(path, {"model": "x"})  # of an older export
    for description in (said, {"parts": {}}, {"parts": [1]}, {"parts": {".bin": 7}}):
        with pytest.raises(UserError, match=r"a\.ncnn\.bin: not the file that a\.ncnn\.param was written with"):
            NCNN.check_bound(path, description)


def test_the_file_to_name_is_named(tmp_path, capsys):
    for suffix in (".xml", ".ncnn.param"):
        named = tmp_path / f"a{suffix}"
        weights = named.with_suffix(".bin")
        for file in (named, weights):
            file.write_bytes(b"")
        for command in (("validate",), ("predict", weights)):
            assert run_mindghost(*command, "--ckpt_path", weights) == 2
            said = f"mindghost {command[0]}: error: {weights}: holds the weights of {named.name}; give {named}\n"
            assert capsys.readouterr().err == said


def test_a_damaged_archive_holds_no_description():
    whole = litert_file.described(b"graph" * 9, '{"model": "x"}')
    assert litert_file._apart(whole) == (b"graph" * 9, b'{"model": "x"}')
    rng = random.Random(0)
    for _ in range(3000):
        damaged = bytearray(whole)
        for _ in range(rng.choice((1, 2, 4))):
            damaged[rng.randrange(45, len(damaged))] = rng.choice((0, 255, rng.randrange(256)))
        graph, description = litert_file._apart(bytes(damaged))
        assert description is None or damaged.startswith(graph)


@pytest.mark.parametrize(
    ("before", "ours", "inside"),
    [("AVX2", True, "AVX512_CORE_VNNI"), ("AVX2", False, "AVX2"), (None, False, "AVX512_CORE_VNNI")],
    ids=["ours", "the user's", "none"],
)
def test_openvino_has_a_limit_of_its_own(monkeypatch, tmp_path, before, ours, inside):
    """The limit that importing mindghost sets is for MindSpore's oneDNN; OpenVINO heeds one that the user has set."""
    seen = []

    class Core:
        def compile_model(self, *arguments):
            seen.append(os.environ.get("ONEDNN_MAX_CPU_ISA"))

    monkeypatch.setitem(sys.modules, "openvino", types.SimpleNamespace(Core=Core))
    monkeypatch.setattr(openvino_file, "limits_onednn", ours)
    monkeypatch.setattr(openvino_file, "model_of", lambda path: None)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    if before:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", before)
    openvino_file.OPENVINO.network(tmp_path / "a.xml")
    assert seen == [inside]
    assert os.environ.get("ONEDNN_MAX_CPU_ISA") == before
