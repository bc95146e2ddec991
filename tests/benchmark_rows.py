"""Small made-up rows of each benchmark, in both shapes: those of a directory of benchmarks, and those of the Hub.

The rows of the two shapes say the same, row by row.
"""

from typing import Any

Rows = list[dict[str, Any]]

WITHOUT_CODE = ("arc_challenge", "arc_easy", "bbh", "boolq", "hellaswag", "openbookqa", "piqa", "winogrande")
"""Benchmarks that need no sandbox."""

_SUMS = [(f"{a} + {a} =", str(2 * a)) for a in range(1, 8)]

OURS: dict[str, Rows] = {
    "piqa": [
        {"id": 0, "question": "dry a cup", "choices": ["rub it with a towel", "fill it with tea"], "label": 0},
        {"id": 1, "question": "open a jar.", "choices": ["paint the lid", "turn the lid"], "label": 1},
        {"id": 2, "question": "cool soup", "choices": ["boil it", "blow on it"], "label": 1},
    ],
    "boolq": [
        {"id": 0, "passage": "Tea is a drink.", "question": "is tea a drink?", "choices": ["no", "yes"], "label": 1},
        {"id": 1, "passage": "Ice is cold.", "question": "is ice hot?", "choices": ["no", "yes"], "label": 0},
        {"id": 2, "passage": "Owls fly.", "question": "do owls fly?", "choices": ["no", "yes"], "label": 1},
    ],
    "winogrande": [
        {"id": 0, "contexts": ["The cup was full because the cup", "The cup was full because the jug"],
         "continuation": "had been emptied.", "label": 1},
        {"id": 1, "contexts": ["Ann thanked Bob as Ann", "Ann thanked Bob as Bob"],
         "continuation": "had helped.", "label": 1},
        {"id": 2, "contexts": ["Ann paid Bob as Ann", "Ann paid Bob as Bob"], "continuation": "owed tea.", "label": 0},
    ],
    "hellaswag": [
        {"id": 0, "context": "Tea: A man boils water. He", "choices": ["pours it.", "eats it.", "sings.", "sleeps."],
         "label": 0},
        {"id": 1, "context": "Ice: Two children skate. They", "choices": ["cook.", "fall.", "go.", "dig."], "label": 1},
        {"id": 2, "context": "Owls: An owl sits. It", "choices": ["drives.", "reads.", "digs.", "flies."], "label": 3},
    ],
    "arc_easy": [
        {"id": 0, "question": "What is ice?", "choices": ["water", "sand", "iron"], "label": 0},
        {"id": 1, "question": "What do owls do?", "choices": ["drive", "fly", "read", "knit"], "label": 1},
        {"id": 2, "question": "Which is hot?", "choices": ["ice", "snow", "hail", "steam"], "label": 3},
    ],
    "openbookqa": [
        {"id": 0, "question": "Ice melts when", "choices": ["it is warm", "it is cold", "it sings", "it is dark"],
         "label": 0},
        {"id": 1, "question": "Owls hunt", "choices": ["tea", "sand", "mice", "iron"], "label": 2},
        {"id": 2, "question": "Plants need", "choices": ["tea", "light", "noise", "iron"], "label": 1},
    ],
    "humaneval": [
        {"task_id": "T/0", "prompt": "\n\ndef double(x):\n    \"\"\"Double it.\"\"\"\n", "entry_point": "double",
         "canonical_solution": "    return 2 * x\n", "test": "def check(candidate):\n    assert candidate(2) == 4\n"},
        {"task_id": "T/1", "prompt": "import math\n\ndef root(x):\n", "entry_point": "root",
         "canonical_solution": "    return math.sqrt(x)\n", "test": "def check(f):\n    assert f(9) == 3\n"},
        {"task_id": "T/2", "prompt": "def one():\n", "entry_point": "one", "canonical_solution": "    return 1\n",
         "test": "def check(candidate):\n    assert candidate() == 1\n"},
    ],
    "mbpp": [
        {"task_id": n, "text": f"Write a function to add {n}.", "test_setup_code": "" if n < 13 else "import math",
         "code": f"def add_{n}(x):\n    return x + {n}",
         "test_list": [f"assert add_{n}(1) == {n + 1}", f"assert add_{n}(0) == {n}", f"assert add_{n}(2) == {n + 2}"]}
        for n in (1, 2, 3, 4, 11, 12, 13)
    ],
    "bbh": [
        {"id": f"sums/{i}", "subtask": "sums", "input": asked, "target": answer}
        for i, (asked, answer) in enumerate(_SUMS)
    ],
}  # fmt: skip


def _arc(row: dict[str, Any], letters: str, question: str = "question") -> dict[str, Any]:
    choices = {"text": row["choices"], "label": list(letters[: len(row["choices"])])}
    return {"id": "x", question: row["question"], "choices": choices, "answerKey": letters[row["label"]]}


HUB: dict[str, Rows] = {
    "piqa": [
        {"goal": row["question"], "sol1": row["choices"][0], "sol2": row["choices"][1], "label": row["label"]}
        for row in OURS["piqa"]
    ],
    "boolq": [
        {"passage": "Tea is a drink.", "question": "is tea a drink", "answer": True},
        {"passage": "Ice is cold.", "question": "is ice hot", "answer": False},
        {"passage": "Owls fly.", "question": "do owls fly", "label": 1, "idx": 2},
    ],
    "winogrande": [
        {"sentence": "The cup was full because the _ had been emptied.", "option1": "cup", "option2": "jug",
         "answer": "2"},
        {"sentence": "Ann thanked Bob as _ had helped.", "option1": "Ann", "option2": "Bob", "answer": "2"},
        {"sentence": "Ann paid Bob as _ owed tea.", "option1": "Ann", "option2": "Bob", "answer": "1"},
    ],
    "hellaswag": [
        {"activity_label": "Tea", "ctx_a": "A man boils water.", "ctx_b": "he", "ctx": "A man boils water. he",
         "endings": OURS["hellaswag"][0]["choices"], "label": "0", "split": "val"},
        {"activity_label": "Ice", "ctx_a": "Two children skate.", "ctx_b": "they",
         "endings": OURS["hellaswag"][1]["choices"], "label": "1", "split": "val"},
        {"activity_label": "Owls", "ctx_a": "An owl sits.", "ctx_b": "it",
         "endings": OURS["hellaswag"][2]["choices"], "label": "3", "split": "val"},
    ],
    "arc_easy": [_arc(row, "12345" if row["id"] == 1 else "ABCDE") for row in OURS["arc_easy"]],
    "openbookqa": [_arc(row, "ABCD", "question_stem") for row in OURS["openbookqa"]],
    "bbh": [{"input": row["input"], "target": row["target"]} for row in OURS["bbh"]],
}  # fmt: skip

for _row in OURS["mbpp"]:
    _hub_row = {"prompt": _row["text"], "test_imports": [_row["test_setup_code"]] if _row["test_setup_code"] else []}
    HUB.setdefault("mbpp", []).append({**{k: _row[k] for k in ("task_id", "code", "test_list")}, **_hub_row})
HUB["humaneval"] = OURS["humaneval"]
OURS["arc_challenge"], HUB["arc_challenge"] = OURS["arc_easy"], HUB["arc_easy"]

CODE = {"humaneval", "mbpp"}
"""Those that run code, which takes a sandbox."""
