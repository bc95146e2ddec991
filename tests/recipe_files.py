"""Recipes and their data on disk."""

import json


def write_recipe(folder, text):
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def write_tasks(folder, tasks):
    folder.mkdir(parents=True, exist_ok=True)
    for name, task in tasks.items():
        rows = [
            {"prompt": e.prompt, "completion": e.completion, "split": part}
            for part in ("train", "valid", "test")
            for e in getattr(task, part)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def write_base(folder, base):
    base.hf.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    return folder
