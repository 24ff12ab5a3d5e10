#!/usr/bin/env python3
"""Links between documents lead somewhere, every module has a README paragraph, and documents name
only files and tests that exist."""
import fnmatch
import pathlib
import re
import subprocess
import sys

root = pathlib.Path(__file__).resolve().parent.parent
problems = []
tracked = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True).stdout.split("\n")
known = set(tracked)
folders = {str(p) for name in tracked for p in pathlib.PurePosixPath(name).parents}

for name in tracked:
    if not name.endswith(".md"):
        continue
    text = (root / name).read_text()
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path = (root / name).parent / target
        rel = path.resolve().relative_to(root).as_posix() if path.resolve().is_relative_to(root) else None
        if rel not in known and rel not in folders:
            problems.append(f"{name}: link to {target} leads nowhere")

modules = [line.split(":")[0] for line in (root / "layers.txt").read_text().splitlines()
           if line.strip() and not line.startswith("#")]
architecture = (root / "docs/architecture.md").read_text()
for module in modules:
    if f"`{module}`" not in architecture:
        problems.append(f"docs/architecture.md: module {module} is not described")

tests = "\n".join((root / name).read_text(errors="replace") for name in tracked
                  if name.startswith(("tests/", "scripts/")) and name.endswith((".cc", ".py", ".go", ".sh", "run", ".txt", "demo")))
top = {name.split("/")[0] for name in known if "/" in name}
stems = {pathlib.PurePosixPath(name).stem for name in known if name.startswith(("tests/", "scripts/"))}


def exists(path):
    return path in known or path in folders or any(fnmatch.fnmatch(name, path) for name in known)


def check_name(document, name):
    """A back-quoted word: a path from the root, or a test."""
    path = name.rstrip("/")
    if re.fullmatch(r"[\w.+*-]+(/[\w.+*-]+)+", path) and path.split("/")[0] in top and not path.startswith(MADE) and not exists(path):
        problems.append(f"{document}: there is no {name}")
    if re.fullmatch(r"[A-Z]\w+\.\w+", name):
        suite, case = name.split(".")
        if suite not in tests or case not in tests:
            problems.append(f"{document}: there is no test {name}")


# Made by builds, not kept.
MADE = ("build/",)
for name in tracked:
    # What changed is history: names in it may be gone.
    if name.endswith(".md") and name != "CHANGES.md":
        text = re.sub(r"^```.*?^```", "", (root / name).read_text(), flags=re.M | re.S)
        for word in re.findall(r"`([^`\n]+)`", text):
            check_name(name, word)
        # Test programs are named without quotes too.
        for word in set(re.findall(r"(?<![\w/.])([a-z]\w*_test)\b(?!\.\w)", text)):
            if word not in stems and not re.search(rf"\b{word}\b", tests):
                problems.append(f"{name}: there is no test program {word}")

print("\n".join(problems) or "docs ok")
sys.exit(bool(problems))
