"""The model cache, read and written by huggingface_hub and by this program.

    python compare_hub_cache.py CLEANDIFT ENDPOINT REPOSITORY

Pulls the repository with the program and has huggingface_hub find it without a network; then the
other way round, in another folder. Both caches must hold the same files. ENDPOINT is a hub with a
model folder, real or on the loopback interface (`cargo run --example loopback_hub MODEL_FOLDER`).
Checked with huggingface_hub 2.4.0.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path


def tree(cache: Path) -> dict:
    """All files and links that are no business of one program alone."""
    own = (".locks", "CACHEDIR.TAG", "trees", "version.txt", ".no_exist")
    found = {}
    for path in sorted(cache.rglob("*")):
        relative = path.relative_to(cache)
        if path.is_dir() and not path.is_symlink() or any(part in own for part in relative.parts):
            continue
        found[str(relative)] = os.readlink(path) if path.is_symlink() else path.read_bytes()
    return found


def main():
    program, endpoint, repository = sys.argv[1:]
    find = "import sys, huggingface_hub as hub; print(hub.snapshot_download(sys.argv[1]))"
    fetch = "import sys, huggingface_hub as hub; [hub.hf_hub_download(sys.argv[1], f) for f in sys.argv[2:]]"
    with tempfile.TemporaryDirectory() as ours, tempfile.TemporaryDirectory() as theirs:
        def run(home, command, **more):
            environment = {**os.environ, "HF_HOME": home, "HF_ENDPOINT": endpoint,
                           "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_SHARED_BLOBS": "1", **more}
            result = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
            return result.stdout.strip().split("\n")[-1]

        pulled = run(ours, [program, "models", "pull", repository])
        found = run(ours, [sys.executable, "-c", find, repository], HF_HUB_OFFLINE="1")
        assert pulled == found, (pulled, found)

        files = [str(path.relative_to(pulled)) for path in Path(pulled).rglob("*") if path.is_file()]
        run(theirs, [sys.executable, "-c", fetch, repository, *files])
        run(theirs, [program, "models", "inspect", repository, "--size", "64"], HF_HUB_OFFLINE="1")
        assert tree(Path(ours, "hub")) == tree(Path(theirs, "hub")), "the caches differ"
        print(f"the same {len(files)} files, found by both in both caches")


main()
