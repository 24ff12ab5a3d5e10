#!/usr/bin/env python3
"""Every Mutex of the project has a row in docs/locks.md, and every row there is one."""
import pathlib
import re
import subprocess
import sys

root = pathlib.Path(__file__).resolve().parent.parent
files = subprocess.run(["git", "ls-files", "*.cc", "*.h"], cwd=root, capture_output=True, text=True, check=True).stdout.split()
member = re.compile(r"^\s*(?:(?:mutable|static|const|inline)\s+)*(?:davit::)?Mutex\s+(\w+)\s*(?:DAVIT_\w+\([^)]*\)\s*)?[;{=]", re.M)
raw = re.compile(r"\bstd::(?:recursive_|shared_|timed_)*mutex\s+(\w+)")
# What a lock is made of, and a clock's sleep, which must do without our types.
RAW_ALLOWED = {"common/base/sync.h", "common/base/clock.cc"}

there, problems = set(), []
for name in files:
    if name.startswith("tests/"):
        continue
    text = (root / name).read_text(errors="replace")
    there |= {(name, match[1]) for match in member.finditer(text)}
    if name not in RAW_ALLOWED:
        problems += [f"{name}: {match[0]}: use davit::Mutex, which clang can check" for match in raw.finditer(text)]

rows = re.findall(r"^\| `([\w/.]+)` `(\w+)` \|", (root / "docs/locks.md").read_text(), re.M)
problems += [f"docs/locks.md has no row for {path} {name}" for path, name in sorted(there - set(rows))]
problems += [f"docs/locks.md: there is no Mutex {name} in {path}" for path, name in sorted(set(rows) - there)]
problems += [f"docs/locks.md lists {path} {name} twice" for path, name in sorted({row for row in rows if rows.count(row) > 1})]
print("\n".join(problems) or "locks ok")
sys.exit(bool(problems))
