"""Tasks of lm-evaluation-harness over local rows: their files, made in the test."""

import json

QUESTIONS = [
    ("Which of these is a colour", ["red", "a spoon", "the day before"], 0),
    ("What is swapped: red fox", ["red fox", "fox red"], 1),
    ("Where do fish live", ["in the water", "on the moon", "in a tree", "nowhere"], 0),
    ("Who wrote", ["nobody", "a poet did so"], 1),
]
CONTEXTS = [("The cup fell since the cup", "The cup fell since the table", " was wet.", 0)]
KINDS = {
    "asked": {
        "output_type": "multiple_choice", "doc_to_text": "Question: {{question}}?\nAnswer:",
        "doc_to_choice": "{{choices}}", "doc_to_target": "label",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "written": {
        "output_type": "generate_until", "doc_to_text": "{{question}}?", "doc_to_target": "{{choices[label]}}",
        "generation_kwargs": {"until": ["a"], "max_gen_toks": 6}, "metric_list": [{"metric": "exact_match"}],
    },
    "rolled": {
        "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{question}}",
        "metric_list": [{"metric": "word_perplexity"}],
    },
}  # fmt: skip


def write_tasks(place, kinds=("asked",), rows=QUESTIONS):
    """Write rows and task files; give the files' paths."""
    data = place / "rows.jsonl"
    lines = [{"question": q, "choices": choices, "label": label} for q, choices, label in rows]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    files = []
    for kind in kinds:
        task = {
            "task": kind, "dataset_path": "json", "test_split": "test", "dataset_kwargs": {
                "data_files": {"test": str(data)}}, **KINDS[kind],
        }  # fmt: skip
        (place / f"{kind}.yaml").write_text(json.dumps(task), "utf-8")  # JSON is YAML
        files.append(str(place / f"{kind}.yaml"))
    return files
