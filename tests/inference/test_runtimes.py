"""Files for OpenVINO, LiteRT and ncnn: run by these alone, as a stranger would, and opened like all exported files."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mindghost.checkpoint import weights as weights_file
from mindghost.deploy import export, tools
from mindghost.errors import UserError
from mindghost.files import intact
from mindghost.files.cache import cache_dir
from mindghost.inference import artifact, formats
from mindghost.inference.network import of_exported, open_network
from tests.helpers import short
from tests.helpers.commands import run_mindghost
from tests.helpers.edge import CONVERTERS, LIBRARIES, need
from tests.helpers.trained import CLASSES, trained_logits, write_run

KINDS = tuple(LIBRARIES)


@pytest.fixture(scope="module", params=KINDS)
def written_once(request, tmp_path_factory):
    """A file of each kind, and the checkpoint that it was made of."""
    need(request.param)
    with short.network():
        path = write_run(tmp_path_factory.mktemp("written"), model="ghostnet_050", image_resize=(32, 48))
        (made,) = export.export(artifact.of_file(path), [request.param])
    return request.param, made, path


@pytest.fixture
def written(written_once, short_network, tmp_path):
    """Copies of them."""
    kind, made, path = written_once
    shutil.copytree(path.parent, tmp_path, dirs_exist_ok=True)
    copies = {key: tmp_path / getattr(made, key).name for key in ("path", "description")}
    return kind, replace(made, **copies), tmp_path / path.name


def by_openvino(path: Path, image: np.ndarray) -> np.ndarray:
    import openvino

    core = openvino.Core()
    return core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(image[None])[0][0]


def by_litert(path: Path, image: np.ndarray) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image.transpose(1, 2, 0)[None])
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]


def by_ncnn(path: Path, image: np.ndarray) -> np.ndarray:
    import ncnn

    net = ncnn.Net()
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    assert net.load_param(str(path)) == net.load_model(str(path.with_suffix(".bin"))) == 0
    with net.create_extractor() as extractor:
        extractor.input("image", ncnn.Mat(image).clone())
        return np.array(extractor.extract("logits")[1])


def test_a_runtime_alone_gives_the_logits(written):
    kind, made, checkpoint = written
    images = np.random.default_rng(3).standard_normal((3, 3, 32, 48)).astype(np.float32)
    expected = trained_logits(checkpoint, images)
    alone = {"openvino": by_openvino, "litert": by_litert, "ncnn": by_ncnn}[kind]
    found = np.stack([alone(made.path, image) for image in images])
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    assert made.difference < 2e-5
    # And as this project opens it, in any number.
    deployed = artifact.of_file(made.path)
    np.testing.assert_allclose(open_network(deployed)(images), expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    assert deployed.classes == tuple(CLASSES)
    assert deployed.config.image_resize == (32, 48)
    # Every file has its digest, and the readable description is the one inside.
    for part in formats.of(made.path).parts(made.path):
        assert intact.sidecar(part).is_file()
    description = json.loads(made.description.read_text())
    inside = formats.read(made.path).description
    assert kind == "ncnn" or json.loads(inside) == description
    shape = {"openvino": [None, 3, 32, 48], "litert": [1, 32, 48, 3], "ncnn": [1, 3, 32, 48]}[kind]
    assert description["input"]["shape"] == shape


def test_damage_is_one_line(written):
    kind, made, _ = written
    for part in formats.of(made.path).parts(made.path):
        content = part.read_bytes()
        sidecar = intact.sidecar(part)
        listed = sidecar.read_text()
        for damaged in (b"", content[:100], content[: len(content) // 2], b"x" * len(content)):
            part.write_bytes(damaged)
            sidecar.write_text(listed)
            with pytest.raises(UserError, match=f"{part.name}: damaged: its sha256"):
                of_exported(artifact.of_file(made.path))
            if damaged.startswith(b"x") and kind == "ncnn":
                continue  # weights are any numbers
            # Where nobody has noted a digest, the runtime has to say no.
            sidecar.unlink()
            with pytest.raises(UserError) as caught:
                of_exported(artifact.of_file(made.path))
            assert "\n" not in str(caught.value)
        part.write_bytes(content)
        sidecar.write_text(listed)
        part.rename(part.with_name("moved"))
        with pytest.raises(UserError):
            of_exported(artifact.of_file(made.path))
        part.with_name("moved").rename(part)
    assert of_exported(artifact.of_file(made.path))


@pytest.mark.parametrize("kind", ["openvino", "ncnn"])
def test_weights_of_another_network_are_refused(kind, short_network, tmp_path):
    """With their own sha256 beside them, and of the same sizes."""
    need(kind)
    checkpoints = [write_run(tmp_path / name, model="ghostnet_050") for name in ("one", "other")]
    weights = {name: 0.9 * array for name, array in weights_file.read(checkpoints[0]).items()}
    weights_file.write(checkpoints[1], weights)
    made, other = (export.export(artifact.of_file(path), [kind])[0].path for path in checkpoints)
    assert of_exported(artifact.of_file(made))
    theirs, ours = (formats.of(path).parts(path)[1] for path in (other, made))
    assert len(theirs.read_bytes()) == len(ours.read_bytes())
    for source, target in ((theirs, ours), (intact.sidecar(theirs), intact.sidecar(ours))):
        target.write_bytes(source.read_bytes())
    with pytest.raises(UserError, match=f"^{ours}: not the file that {made.name} was written with"):
        artifact.of_file(made)


def test_an_export_takes_the_place_of_its_own_files_only(written):
    kind, made, checkpoint = written
    deployed = artifact.of_file(checkpoint)
    again = export.export(deployed, [kind])[0]
    assert (again.path, again.size) == (
        made.path,
        sum(p.stat().st_size for p in formats.of(made.path).parts(made.path)),
    )
    for part in formats.of(made.path).parts(made.path):
        content = part.read_bytes()
        part.write_bytes(b"somebody's")
        with pytest.raises(UserError, match=f"{part.name}: exists, and is not what this command has written"):
            export.export(deployed, [kind])
        assert part.read_bytes() == b"somebody's"
        part.write_bytes(content)


def test_what_a_format_cannot_take(short_network, tmp_path, capsys):
    pytest.importorskip("ncnn")
    path = write_run(tmp_path, model="ghostnet_050")
    assert run_mindghost("export", "--ckpt_path", path, "--format", "ncnn", "--batch_size", 4) == 2
    assert capsys.readouterr().err.endswith(
        "--batch_size: ncnn takes one image at a time; leave it out, or give another --format\n"
    )


def test_a_converter_that_fails_leaves_nothing(short_network, tmp_path, monkeypatch):
    for library in LIBRARIES.values():
        pytest.importorskip(library)
    path = write_run(tmp_path / "run", model="ghostnet_050")
    before = sorted(path.parent.iterdir())
    program = tmp_path / "converter"
    for script, why, kinds in (
        (
            "#!/bin/sh\necho progress; echo 'operator Foo: no' >&2; exit 3\n",
            r"failed: operator Foo: no$",
            ("litert", "ncnn"),
        ),
        ("#!/bin/sh\nexit 1\n", r"failed: exit status 1$", ("ncnn",)),
        ("#!/bin/sh\necho done\n", r"failed: done$", ("ncnn",)),
        ("#!/nowhere/at/all\n", r"does not start here: No such file or directory$", ("litert",)),
    ):
        program.write_text(script)
        program.chmod(0o755)
        monkeypatch.setattr(tools.Tool, "path", lambda _: program)
        for kind in kinds:
            with pytest.raises(UserError, match=f"^{CONVERTERS[kind]} {why}"):
                export.export(artifact.of_file(path), [kind])
    assert sorted(path.parent.iterdir()) == before


def test_a_tool_gets_no_modules_of_this_python(tmp_path, monkeypatch):
    """And no input, which a question would wait for."""
    monkeypatch.setenv("PYTHONPATH", "/of/another/version")
    monkeypatch.setenv("PYTHONHOME", "/of/another/version")
    program = tmp_path / "program"
    program.write_text('#!/bin/sh\ncat; echo "$PYTHONPATH|$PYTHONHOME|$1|$PWD" > made\n')
    program.chmod(0o755)
    monkeypatch.setattr(tools.Tool, "path", lambda _: program)
    tools.PNNX.run(["word"], tmp_path, ["made"])
    assert (tmp_path / "made").read_text() == f"||word|{tmp_path}\n"


@pytest.mark.usefixtures("own_cache")
def test_a_tool_that_cannot_be_installed(monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    for tool in (tools.Tool("no-such-package", "1.0", "bin/x"), tools.Tool("no-such-package", "1.0", "bin/x", (3, 10))):
        with pytest.raises(
            UserError, match=r"^no-such-package==1\.0 cannot be installed: .*; see to pip and the network$"
        ):
            tool.path()
    assert not any((cache_dir() / "tools").glob("no-such*"))
    with pytest.raises(UserError, match=r"^x==1 needs Python 9\.0 or newer, and there is none"):
        tools.Tool("x", "1", "bin/x", (9, 0)).path()
