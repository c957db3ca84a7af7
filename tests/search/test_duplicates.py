"""Planted copies are found, whatever was done to them, and nothing else is."""

import io
from itertools import combinations

import numpy as np
import pytest
from PIL import Image, ImageOps

from mindghost.config import Config
from mindghost.errors import UserError
from mindghost.search import duplicates, reading
from mindghost.search.vectors import Vectors
from tests.helpers.pictures import scene
from tests.helpers.shards import image_files, tar


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


PLANTED = {
    "half": (lambda image: image.resize((60, 45), Image.Resampling.LANCZOS), "similar"),
    "double": (lambda image: image.resize((240, 180), Image.Resampling.BICUBIC), "similar"),
    "square": (lambda image: image.resize((64, 64), Image.Resampling.BILINEAR), "similar"),
    "recompressed": (lambda image: jpeg(image, 30), "similar"),
    "mirrored": (lambda image: jpeg(ImageOps.mirror(image), 70), "mirrored"),
    "cropped": (lambda image: image.crop((1, 0, 119, 88)), "similar"),
    "brighter": (lambda image: image.point(lambda level: min(255, round(level * 1.15))), "similar"),
    "grey": (lambda image: image.convert("L"), "similar"),
}


def found(folder, **options) -> list[duplicates.Group]:
    config = Config(num_parallel_workers=2)
    looked = duplicates.look(reading.opened_by_split([str(folder)], config), config)
    return duplicates.find(looked, **options)


def names(group: duplicates.Group, folder) -> list[str]:
    return [member.path.removeprefix(f"{folder}/") for member in group.members]


def save(image: Image.Image, path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@pytest.mark.parametrize("seed", [0, 1])
def test_planted_copies_are_found_and_nothing_else(seed, tmp_path):
    rng = np.random.default_rng(seed)
    scenes = [scene(rng) for _ in range(60)]
    for number, image in enumerate(scenes):
        save(image, tmp_path / "train" / "ant" / f"{number:02}.png")
    for number, (name, (change, _)) in enumerate(PLANTED.items()):
        save(change(scenes[number]), tmp_path / "val" / "ant" / f"{name}.png")
    groups = found(tmp_path)
    assert all(group.leaks and not group.contradicts for group in groups)
    expected = {
        (f"val/ant/{name}.png", f"train/ant/{n:02}.png", how) for n, (name, (_, how)) in enumerate(PLANTED.items())
    }
    assert {(*names(group, tmp_path), group.members[1].how) for group in groups} == expected
    assert all(0 <= group.members[1].distance <= 0.1 for group in groups)
    assert found(tmp_path, distance=-1) == []


def test_equal_pixels_in_other_files(tmp_path):
    """A name, a lossless format, EXIF that turns it: what is seen counts. One level of one pixel is another image."""
    image = scene(np.random.default_rng(2))
    save(image, tmp_path / "a" / "1.png")
    save(image, tmp_path / "a" / "2.bmp")
    exif = Image.Exif()
    exif[0x0112] = 3
    image.rotate(180).save(tmp_path / "a" / "3.png", exif=exif)
    pixels = np.array(image)
    pixels[0, 0, 0] ^= 1
    save(Image.fromarray(pixels), tmp_path / "a" / "4.png")
    (group,) = found(tmp_path, distance=-1)
    assert names(group, tmp_path) == ["a/1.png", "a/2.bmp", "a/3.png"]
    assert [(member.how, member.distance) for member in group.members[1:]] == [("same", 0.0)] * 2
    (group,) = found(tmp_path)
    assert [member.how for member in group.members] == ["", "same", "same", "similar"]


def test_one_colour_is_told_by_its_colour(tmp_path):
    for name, colour in (("a", (200, 0, 0)), ("b", (202, 1, 0)), ("c", (0, 0, 200))):
        save(Image.new("RGB", (40, 30), colour), tmp_path / "x" / f"{name}.png")
    assert [names(group, tmp_path) for group in found(tmp_path)] == [["x/a.png", "x/b.png"]]


def test_what_training_can_do_without(tmp_path):
    rng = np.random.default_rng(3)
    one, two, three = (scene(rng) for _ in range(3))
    for name in ("train/ant/1", "train/bee/2", "val/ant/3", "val/ant/4"):
        save(one, tmp_path / f"{name}.png")
    save(two.resize((60, 45)), tmp_path / "train/ant/5.png")
    save(two, tmp_path / "train/ant/6.png")
    for name in ("val/bee/7", "val/bee/8"):
        save(three, tmp_path / f"{name}.png")
    leak, inside, others = found(tmp_path)
    assert leak.leaks
    assert leak.contradicts
    assert leak.classes == ("ant", "bee")
    assert names(leak, tmp_path)[0] == "val/ant/3.png"
    assert leak.superfluous == [f"{tmp_path}/train/ant/1.png", f"{tmp_path}/train/bee/2.png"]
    assert names(inside, tmp_path) == ["train/ant/6.png", "train/ant/5.png"]  # the larger one stays
    assert inside.superfluous == [f"{tmp_path}/train/ant/5.png"]
    assert (others.leaks, others.superfluous) == (False, [])


def test_splits_in_tar_files_and_a_file_that_cannot_be_read(tmp_path):
    rng = np.random.default_rng(4)
    for split in ("train", "val"):
        for name in ("ant/a.png", "bee/b.png"):
            save(scene(rng), tmp_path / "d" / split / name)
    save(Image.open(tmp_path / "d/train/bee/b.png").convert("RGB"), tmp_path / "d/val/bee/c.png")
    (tmp_path / "d/val/bee/bad.png").write_bytes(b"no image")
    for split in ("train", "val"):
        tar(tmp_path / "tars" / f"{split}.tar", image_files(tmp_path / "d" / split))
    config = Config()
    looked = duplicates.look(reading.opened_by_split([str(tmp_path / "tars")], config), config)
    assert len(looked) == 5
    (problem,) = looked.problems.values()
    assert "val/bee/bad.png" in problem
    (group,) = duplicates.find(looked)
    assert [member.how for member in group.members] == ["", "same"]
    assert (group.leaks, group.classes) == (True, ("bee",))


def test_nothing_that_can_be_read(tmp_path):
    (tmp_path / "x.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"x.png: not a readable image .*; and no other of 1 images can be read"):
        found(tmp_path)


def test_vectors_of_a_network_find_more(tmp_path):
    """Groups are joined over both ways; an image that the network could not read is compared by its looks alone."""
    rng = np.random.default_rng(5)
    for number in range(4):
        save(scene(rng), tmp_path / "x" / f"{number}.png")
    save(Image.open(tmp_path / "x/0.png").resize((60, 45)), tmp_path / "x" / "4.png")
    vectors = np.eye(4, dtype=np.float32)
    vectors[2] = (0.99, 0, np.sqrt(1 - 0.99**2), 0)  # of image 2, 0.01 from that of image 0
    paths = np.array([f"{tmp_path}/x/{number}.png" for number in range(4)])
    known = Vectors(vectors, paths, np.full(4, -1, np.int32))
    (group,) = found(tmp_path, vectors=known)
    assert names(group, tmp_path) == ["x/0.png", "x/4.png", "x/2.png"]
    assert [member.how for member in group.members] == ["", "similar", "network"]
    assert group.members[2].distance == pytest.approx(0.01, abs=1e-6)
    assert len(found(tmp_path, vectors=known, network_distance=0.005)[0].members) == 2


def test_signatures_of_a_mirror_image_are_their_own_with_odd_waves_turned():
    from mindghost.search import signature

    images = [scene(np.random.default_rng(seed), (32, 32)) for seed in range(3)]
    plain, turned = (
        signature.of(np.stack(list(map(np.asarray, part)))) for part in (images, map(ImageOps.mirror, images))
    )
    np.testing.assert_allclose(turned.even, plain.even, atol=1e-5)
    np.testing.assert_allclose(turned.odd, -plain.odd, atol=1e-5)
    np.testing.assert_allclose((plain.even**2).sum(1) + (plain.odd**2).sum(1), 1, atol=1e-5)
    assert (plain.even.shape, plain.odd.shape) == ((3, 73), (3, 72))
    for one, other in combinations(range(3), 2):
        assert plain.likeness(slice(one, one + 1), slice(other, other + 1))[0, 0] < 0.9
