"""The page on GPUs shows what its script predicts."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_predictions_are_those_of_the_script():
    spec = importlib.util.spec_from_file_location("roofline", ROOT / "benchmarks" / "roofline.py")
    roofline = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(roofline)
    page = (ROOT / "docs" / "gpu.md").read_text("utf-8")
    for lines in (roofline.block_lines(), roofline.plan_lines(), roofline.layer_lines(4096)):
        assert "\n".join(lines) in page, "put the output of benchmarks/roofline.py into docs/gpu.md"


def test_a_prediction_by_hand():
    """A layer of 4096 x 4096 in bfloat16 at one token: 33.6 MB from an H200's memory at 4.08 TB/s, and the launch."""
    spec = importlib.util.spec_from_file_location("roofline", ROOT / "benchmarks" / "roofline.py")
    roofline = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(roofline)
    (card,) = (card for card in roofline.CARDS if card.name == "H200")
    assert abs(1e6 * roofline.seconds(roofline.base(1, 4096, 4096), card) - (33.571 / 4.08 + 1.5)) < 0.01
