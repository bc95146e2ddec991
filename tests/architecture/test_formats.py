"""What files are called is known where they are made: the format of a library, and of a saved model, has one home."""

import ast
from collections.abc import Iterator

from source_tree import Module, modules

FILES = {
    "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin", "expert.json", "metrics.jsonl",
    "library.json", "model.json", "state.safetensors", "chat_template.jinja",
}  # fmt: skip
FOLDERS = {"experts", "derived", "learned", ".staging"}
HOMES = ("library/", "formats/", "model/saved/format.py")


def test_names_of_the_disk_format_stand_in_its_rooms() -> None:
    wrong = [
        f"src/lorary/{module.path}:{line} names {name!r}: take it from library/layout.py"
        for module in modules()
        if not module.path.startswith(HOMES)
        for name, line in [*_files(module), *_folders(module)]
    ]
    assert not wrong, "\n".join(wrong)


def _files(module: Module) -> Iterator[tuple[str, int]]:
    """Find texts that are the name of a file, or end with it as a path does."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            name = node.value.rpartition("/")[2]
            if name in FILES and " " not in node.value:
                yield name, node.lineno


def _folders(module: Module) -> Iterator[tuple[str, int]]:
    """Find names of folders where a path is made: such words mean other things, too."""
    for node in ast.walk(module.tree):
        match node:
            case ast.BinOp(op=ast.Div(), right=ast.Constant(value=str(name))) if name in FOLDERS:
                yield name, node.lineno


def test_the_names_are_those_of_the_layout() -> None:
    """A name that the format no longer has would be looked for in vain."""
    texts = [module.text for module in modules() if module.path.startswith(HOMES)]
    assert [name for name in sorted(FILES | FOLDERS) if not any(f'"{name}"' in text for text in texts)] == []
