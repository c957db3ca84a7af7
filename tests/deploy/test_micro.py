"""Files for microcontrollers: run by tflite-micro alone they do what was promised, or nothing is written."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from mindghost.deploy import export, quantize
from mindghost.deploy.micro import examination, interpreter, vela
from mindghost.deploy.micro.graph import contents, inlined
from mindghost.deploy.micro.target import Target
from mindghost.errors import UserError
from mindghost.files import intact
from mindghost.inference import artifact, formats
from mindghost.inference.formats import Step
from mindghost.inference.formats.litert_file import described, graph_of
from mindghost.inference.network import open_network
from mindghost.models import ghostnet
from tests.helpers import short
from tests.helpers.commands import run_mindghost
from tests.helpers.edge import need
from tests.helpers.pictures import write_images
from tests.helpers.runtimes import runtime_of
from tests.helpers.trained import CLASSES, write_run

ANY = quantize.Goal(max_drop=100.0)  # random weights lose more than trained ones


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A file for LiteRT in float, its images, and the file for microcontrollers that was made of it."""
    need("litert")
    for library in ("ai_edge_quantizer", "tflite_micro", "ethosu"):
        pytest.importorskip(library)
    folder = tmp_path_factory.mktemp("micro")
    images = write_images(folder / "images", CLASSES, 8, 6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ghostnet, "STAGES", short.stages())
        checkpoint = write_run(folder, model="ghostnet_050", data_dir=str(images), crop_pct=1.0)
        (written,) = export.export(artifact.of_file(checkpoint), ["litert"])
        result = micro(written.path, images)
    return written.path, images, result


def micro(path: Path, images: Path, target: Target | None = None, **options) -> quantize.Result:
    deployed = artifact.of_file(path)
    runtime = runtime_of(deployed.config.replace(data_dir=str(images)))
    return quantize.quantize(deployed, runtime, images / "train", 16, ANY, target=target or Target(), **options)


def test_a_microcontroller_alone_gives_the_logits(made):
    """As firmware would: integers by the scales of the description, in an arena of the size that it says."""
    from tflite_micro import runtime

    source, _, result = made
    (path,) = result.written
    assert path.name == "ghostnet_050_best_mcu.tflite"
    said = json.loads(formats.of(path).description_beside(path).read_text(encoding="utf-8"))
    assert said == artifact.description_of(path)
    assert (said["input"]["type"], said["output"]["type"]) == ("int8", "int8")
    arena = said["microcontroller"]["arena"]
    device = runtime.Interpreter.from_bytes(graph_of(path), arena_size=arena)
    with pytest.raises(RuntimeError):
        runtime.Interpreter.from_bytes(graph_of(path), arena_size=arena - 16)
    pictures = np.random.default_rng(3).standard_normal((4, 3, 32, 32)).astype(np.float32)
    found = []
    for picture in pictures:
        scaled = np.rint(picture.transpose(1, 2, 0) / said["input"]["scale"]) + said["input"]["zero_point"]
        device.set_input(np.clip(scaled, -128, 127).astype(np.int8)[None], 0)
        device.invoke()
        integers = device.get_output(0)[0].astype(float)
        found.append((integers - said["output"]["zero_point"]) * said["output"]["scale"])
    # And as this project opens it; the two round products otherwise.
    again = open_network(artifact.of_file(path))(pictures)
    steps = examination._TOLERANCE * said["output"]["scale"]
    np.testing.assert_allclose(np.stack(found), again, rtol=0, atol=steps + 1e-6)
    expected = formats.of(source).network(source)
    of_float = np.concatenate([expected(picture[None]) for picture in pictures])
    assert np.abs(again - of_float).max() < np.abs(of_float).max()


def test_what_was_found_is_what_is_in_the_file(made):
    _, _, result = made
    (path,) = result.written
    findings, found = result.findings, contents(graph_of(path))
    assert not any(operator.is_float for operator in found.operators)
    assert findings.operators == found.counts
    assert artifact.description_of(path)["microcontroller"]["operators"] == list(found.counts)
    assert 0 <= findings.arena.total - findings.arena.activations - findings.arena.lasting < 2048
    assert findings.largest[0].size <= findings.arena.activations
    assert findings.difference <= examination._TOLERANCE
    estimate = findings.estimate
    assert estimate.milliseconds == pytest.approx(1e3 * estimate.cycles / estimate.clock)
    assert estimate.on_accelerator > 0
    record = result.record()
    assert record["files"][1]["size"] == path.stat().st_size
    assert record["microcontroller"]["ram"] == 512_000
    assert json.loads(json.dumps(record)) == json.loads(json.dumps(result.record()))


def test_weights_lie_where_tflite_micro_looks_for_them(made):
    """AI Edge Quantizer puts those of large files elsewhere; tflite-micro would compute without them."""
    from ai_edge_litert import schema_py_generated as schema

    _, _, result = made
    graph = graph_of(next(iter(result.written)))
    model = schema.Model.GetRootAsModel(graph, 0)
    buffers = [model.Buffers(index) for index in range(model.BuffersLength())]
    assert all(buffer.Offset() == 0 for buffer in buffers)
    starts = [buffer._tab.Vector(buffer._tab.Offset(4)) for buffer in buffers if buffer.DataLength()]
    assert {start % 16 for start in starts} == {0}
    # Behind the tables, as the library leaves them: what is in such a file stays.
    moved = schema.ModelT.InitFromObj(model)
    largest = max(moved.buffers, key=lambda buffer: 0 if buffer.data is None else len(buffer.data))
    weights, largest.data = bytes(np.asarray(largest.data, np.uint8)), None
    largest.offset, largest.size = len(graph) + 64, len(weights)
    packed = pack(moved).ljust(len(graph) + 64, b"\0") + weights
    assert contents(packed) == contents(graph)
    assert sorted(stored(inlined(packed))) == sorted(stored(graph))


def stored(graph: bytes) -> list[bytes]:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(graph, 0))
    return [b"" if buffer.data is None else bytes(np.asarray(buffer.data, np.uint8)) for buffer in model.buffers]


def pack(model) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def with_operator(graph: bytes, old: str, new: str) -> bytes:
    """A file with another operator in the place of one kind."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(graph, 0))
    for code in model.operatorCodes:
        if code.builtinCode == getattr(schema.BuiltinOperator, old):
            code.builtinCode = getattr(schema.BuiltinOperator, new)
            code.deprecatedBuiltinCode = min(127, code.builtinCode)
    return pack(model)


def test_an_operator_that_is_lacking_is_named_with_its_layer(made):
    source, _, result = made
    graph = graph_of(next(iter(result.written)))
    images = np.zeros((1, 32, 32, 3), np.int8)
    for kind, words in (
        ("GELU", "tflite-micro lacks the operator GELU, of layer "),
        ("CUMSUM", "CUMSUM does not take"),
    ):
        bad = with_operator(graph, "RELU", kind)
        layer = next(operator.output for operator in contents(bad).operators if operator.kind == kind)
        with pytest.raises(UserError) as caught:
            interpreter.run(source, bad, contents(bad), images)
        message = str(caught.value)
        assert words in message
        assert str(layer) in message
        assert "\n" not in message
    # A file in float is none for it.
    with pytest.raises(UserError, match=r"leaves the operator \w+ of layer '.*' \(.* x .*\) in float"):
        examination.check_integer(source, contents(graph_of(source)))


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (Target(flash=100_000), r"the int8 file takes [\d,]+ bytes, [\d,]+ over --flash 100,000; the largest of its"),
        (Target(ram=10_000), r"arena takes [\d,]+ bytes, [\d,]+ over --ram 10,000; the largest tensor is '.*' \(1 x"),
    ],
)
def test_a_budget_that_is_exceeded_leaves_nothing(made, tmp_path, target, words):
    source, images, _ = made
    before = sorted(source.parent.iterdir())
    with pytest.raises(UserError, match=words):
        micro(source, images, target, folder=tmp_path / "out")
    assert sorted(source.parent.iterdir()) == before
    assert not (tmp_path / "out").exists()


def test_a_file_without_an_estimate_is_kept(made, tmp_path, monkeypatch, caplog):
    source, images, _ = made

    def fails(path: Path, *_: object) -> None:
        raise UserError(f"{path}: ethos-u-vela failed: no")

    monkeypatch.setattr(vela, "estimate", fails)
    result = micro(source, images, folder=tmp_path)
    assert result.findings.estimate is None
    assert [path.name for path in result.written] == ["ghostnet_050_best_mcu.tflite"]
    assert "no estimate" in caplog.text


def test_a_description_of_other_scales_is_refused(made, tmp_path):
    _, _, result = made
    (path,) = result.written
    said = artifact.description_of(path)
    said["input"]["scale"] *= 2
    changed = tmp_path / path.name
    intact.write_with_sidecar(changed, described(graph_of(path), json.dumps(said)))
    with pytest.raises(UserError, match=r"its graph takes int8 of another scale than its description says"):
        artifact.of_file(changed)


def test_the_command_as_people_type_it(made, tmp_path, capsys):
    source, images, result = made
    words = ("quantize", source, "--target", "mcu", "--calib_dir", images / "train", "--max_drop", 100)
    assert run_mindghost(*words, "--calib_images", 16, "--out", tmp_path, "--npu", "ethos-u65-256") == 0
    printed = capsys.readouterr().out
    assert f"{result.findings.arena.total:,} bytes of 512,000" in printed
    assert "Ethos_U65_256" in printed
    assert str(tmp_path / "ghostnet_050_best_mcu.tflite") in printed.splitlines()
    assert run_mindghost(*words, "--calib_images", 16, "--out", tmp_path, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["microcontroller"]["arena"]["total"] == result.findings.arena.total
    written = tmp_path / "ghostnet_050_best_mcu.tflite"
    assert run_mindghost("validate", "--ckpt_path", written, "--data_dir", images) == 0
    validated = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert validated["loss"] == pytest.approx(record["files"][1]["loss"], rel=1e-9)
    # An int8 file is no source of another one.
    assert run_mindghost("quantize", written, *words[2:]) == 2
    assert "int8 or float16 already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--flash", "1MB"], "--flash: it is for microcontrollers; give --target mcu, too"),
        (["--target", "mcu", "--float16"], "--float16: a file for microcontrollers has integers alone"),
        (["--target", "mcu", "--flash", "big"], "--flash: expected a number of bytes, such as 512kB or 1MB, got 'big'"),
        (["--target", "mcu", "--npu", "u55"], "--npu: invalid choice: 'u55'"),
        (["--target", "phone"], "--target: invalid choice: 'phone'"),
    ],
)
def test_options_that_do_not_go_together(tmp_path, capsys, options, words):
    (tmp_path / "x.tflite").touch()
    assert run_mindghost("quantize", tmp_path / "x.tflite", "--calib_dir", tmp_path, *options) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_a_library_that_is_missing_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "tflite_micro", None)
    monkeypatch.setitem(sys.modules, "ethosu", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"^--target mcu: tflite-micro is missing; pip install tflite-micro"):
        interpreter.version()
    with pytest.raises(UserError, match=r"^--target mcu: ethos-u-vela is missing; pip install ethos-u-vela$"):
        vela.version()


def test_integers_stand_for_numbers():
    step = Step(0.5, -3)
    numbers = np.float32([0, 0.5, 0.8, -62.5, -70, 70])
    assert step.integers(numbers).tolist() == [-3, -2, -1, -128, -128, 127]
    assert step.numbers(np.int8([-3, -2, 127])).tolist() == [0, 0.5, 65]
