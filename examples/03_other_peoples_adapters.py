"""Route a folder of PEFT adapters that others made: check each, add what fits, let Arrow choose.

python examples/03_other_peoples_adapters.py [BASE [FOLDER]]
"""

import sys
from pathlib import Path

import lorary as lo

base = lo.load_base(*sys.argv[1:2])
folder = Path(sys.argv[2] if len(sys.argv) > 2 else "libs/example/experts")
library = lo.Library.create("libs/found", base=base.fingerprint, exist_ok=True)
for directory in sorted(folder.iterdir()):
    faults = [finding for finding in lo.check(directory) if finding.level == "error"]
    if faults:
        print(f"{directory.name} left out: {faults[0].message}")
    elif directory.name not in library:
        library.add(directory, directory.name)
with lo.route(base, library, "arrow", mix="outputs") as model:
    print(model.generate_text([lo.Example("Who is named? Ada Lovelace wrote to the office.", "")], max_new_tokens=8))
