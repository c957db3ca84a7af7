"""Where the user's cache is, and whose folder is not taken for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mindghost.errors import UserError
from mindghost.files import cache
from mindghost.files.cache import _homeless_cache, cache_dir


def test_cache_dir_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("MINDGHOST_HOME", str(tmp_path))
    monkeypatch.setenv("GHOSTNET_HOME", str(tmp_path / "former"))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("MINDGHOST_HOME")
    assert cache_dir() == tmp_path / "former"
    monkeypatch.delenv("GHOSTNET_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "mindghost"


@pytest.fixture
def homeless(monkeypatch, tmp_path) -> Path:
    """A user without HOME and without a line in passwd; where the cache is then."""

    def home():
        raise RuntimeError("Could not determine home directory.")

    for name in ("MINDGHOST_HOME", "GHOSTNET_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cache.Path, "home", home)
    monkeypatch.setattr(cache.scratch, "temporary", lambda: tmp_path)
    _homeless_cache.cache_clear()
    yield tmp_path / f"mindghost-of-{os.geteuid()}"
    _homeless_cache.cache_clear()


@pytest.mark.fault("environments", "ok")
def test_a_user_without_a_home_has_a_cache_of_their_own(homeless):
    assert cache_dir() == homeless
    assert homeless.stat().st_mode & 0o777 == 0o700
    _homeless_cache.cache_clear()
    assert cache_dir() == homeless


@pytest.mark.fault("environments", "clean error")
@pytest.mark.parametrize("kind", ["open to all", "another's", "link", "file"])
def test_a_cache_that_somebody_else_may_have_filled_is_not_taken(homeless, kind, tmp_path):
    if kind == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        homeless.symlink_to(tmp_path / "elsewhere")
    elif kind == "file":
        homeless.touch()
    else:
        homeless.mkdir(mode=0o700)
        homeless.chmod(0o777) if kind == "open to all" else os.chown(homeless, 12345, 12345)
    with pytest.raises(UserError, match="is not this user's alone; set HOME, or MINDGHOST_HOME"):
        cache_dir()
