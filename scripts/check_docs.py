#!/usr/bin/env python3
"""Links between documents lead somewhere, every module has a README paragraph, and
docs/requirements.md names only tests that exist."""
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
for line in (root / "docs/requirements.md").read_text().splitlines():
    for name in re.findall(r"`([A-Z]\w+\.\w+)`", line):
        suite, case = name.split(".")
        if suite not in tests or case not in tests:
            problems.append(f"docs/requirements.md: there is no test {name}")

print("\n".join(problems) or "docs ok")
sys.exit(bool(problems))
