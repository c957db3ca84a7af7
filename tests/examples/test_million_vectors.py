"""examples/evidence/million_vectors.py on few vectors: that it runs, and leaves nothing behind."""

import json
import os
import subprocess
import sys

import pytest

from tests.helpers.places import ROOT


def test_it_measures(tmp_path):
    pytest.importorskip("usearch")
    script = ROOT / "examples" / "evidence" / "million_vectors.py"
    command = [sys.executable, script, "--count", "3000", "--dimensions", "64", "--queries", "50", "--folder", tmp_path]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "MINDGHOST_HOME": str(tmp_path / "home")}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["count"], found["graph_vectors"], found["queries"]) == (3000, 3000, 50)
    assert found["recall_at_10"] >= 0.98
    assert found["largest_loss_of_score"] < 0.05
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == []
