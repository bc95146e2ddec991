"""A Trainer on two processes (DDP, gloo): what they trained together is committed once, and is what PEFT has."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import lorary as lo
from lorary.testing.pico import pico_base

pytestmark = pytest.mark.slow


def test_what_two_processes_trained_is_committed_once(tmp_path: Path) -> None:
    script = Path(__file__).with_name("trained_by_two.py")
    line = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script), str(tmp_path)]
    done = subprocess.run([sys.executable, *line], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    told = [json.loads((tmp_path / f"told-{rank}.json").read_text()) for rank in (0, 1)]
    assert [one["n_commits"] for one in told] == [1, 0]
    assert [one["has_expert"] for one in told] == [True, False]
    assert all(one["is_shared"] and one["error"] == "None" for one in told)

    first, second = (torch.load(tmp_path / f"logits-{rank}.pt") for rank in (0, 1))
    torch.testing.assert_close(first, second)
    library, base = lo.Library.open(tmp_path / "lib"), pico_base()
    ids = torch.randint(2, 258, (2, 9), generator=torch.Generator().manual_seed(7))
    assert list(library) == ["poems"] and library["poems"].provenance.steps == 3
    with lo.route(base, library, "uniform", mix="outputs") as model, torch.inference_mode():
        torch.testing.assert_close(model(ids).logits, first, atol=1e-5, rtol=1e-5)
    with torch.inference_mode():
        assert (base.hf(ids).logits - first).abs().max() > 0.1
    assert not list((tmp_path / "out").glob("poems*"))
