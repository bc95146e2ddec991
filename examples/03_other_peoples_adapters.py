"""Route a folder of PEFT adapters that others made: add what passes all checks, say what doesn't, let Arrow choose.

python examples/03_other_peoples_adapters.py [BASE [FOLDER]]
"""

import sys
from pathlib import Path

import lorary as lo

base = lo.load_base(*sys.argv[1:2])
folder = Path(sys.argv[2] if len(sys.argv) > 2 else "libs/example/experts")
library = lo.Library.create("libs/found", base=base.fingerprint, exist_ok=True)
sizes = {name: (site.d_in, site.d_out) for name, site in base.routable.items()}
for directory in sorted(path for path in folder.iterdir() if path.is_dir() and path.name not in library):
    try:
        library.add(directory, directory.name, base=sizes)
    except lo.LoraryError as error:
        print(f"{directory.name} left out: {error}")
with lo.route(base, library, "arrow", mix="outputs") as model:
    print(model.generate_text([lo.Example("Who is named? Ada Lovelace wrote to the office.", "")], max_new_tokens=8))
