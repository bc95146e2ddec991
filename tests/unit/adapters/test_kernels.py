"""The Triton kernels give what torch's operations give: by Triton's interpreter, which needs no GPU."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lorary.adapters.mixing import on_gpu


@pytest.mark.slow
def test_kernels_give_what_the_plain_path_gives():
    pytest.importorskip("triton")
    script = Path(__file__).with_name("kernel_differences.py")
    done = subprocess.run([sys.executable, "-W", "error", script], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {(dtype, mix) for _, dtype, mix in found["mixes"]} == {
        (f"torch.{dtype}", mix) for dtype in ("float32", "bfloat16") for mix in ("factors", "outputs")
    }
    for apart, dtype, _ in found["mixes"]:
        assert apart < (2e-6 if dtype == "torch.float32" else 2**-7)  # bfloat16: the interpreter cuts off
    for is_same, apart in found["choices"]:
        assert is_same and apart < 1e-6
    assert found["with_gradients"]


def test_the_cpu_has_no_kernels():
    with torch.no_grad():
        assert on_gpu.kernels_for(torch.ones(1)) is None


@pytest.mark.parametrize("fault", ["raises", "keeps others", "mixes otherwise"])
def test_kernels_that_fail_are_told_of_and_left_out(fault, monkeypatch):
    def keep(scores, k, temperature):
        if fault == "raises":
            raise ZeroDivisionError("no such architecture\nand more")
        kept = scores.topk(k)
        index = kept[1].flip(-1) if fault == "keeps others" else kept[1]
        return torch.softmax(kept[0], -1), index

    kernels = SimpleNamespace(keep=keep, mix=lambda x, y, *_, **__: y)
    monkeypatch.setitem(sys.modules, "lorary.adapters.mixing.kernels", kernels)
    monkeypatch.setattr("lorary.adapters.mixing.kernels", kernels, raising=False)
    monkeypatch.setattr(on_gpu.importlib.util, "find_spec", lambda name: object())
    said = {"raises": "ZeroDivisionError: no such architecture", "keeps others": "it keeps other experts"}
    with pytest.warns(RuntimeWarning, match=said.get(fault, "it mixes to other numbers")) as told:
        assert on_gpu._proven.__wrapped__(torch.device("cpu")) is None
    assert str(told[0].message).startswith("warning[W-KERNEL] lorary's Triton kernels don't work on cpu: ")
