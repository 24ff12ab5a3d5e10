#!/usr/bin/env python3
"""Keeps the option lists of docs/<binary>.md equal to what --help says.

    help_docs.py BIN_DIR            fails where a page differs (a test runs this)
    help_docs.py BIN_DIR --write    writes the pages' lists again

Everything from the line `<!-- help -->` on is made by this script.
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
MARK = "<!-- help -->\n"


def help_of(binary, *command):
    text = subprocess.run([binary, *command, "--help"], capture_output=True, text=True, check=True).stdout
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def subcommands(text):
    _, _, tail = text.partition("Subcommands:")
    return re.findall(r"^  ([a-z][a-z-]*)", tail, re.M)


def section(binary, name):
    top = help_of(binary)
    out = [MARK, f"\n## {name} --help\n\n```text\n{top}\n```\n"]

    def add(command, text):
        for sub in subcommands(text):
            inner = help_of(binary, *command, sub)
            out.append(f"\n### {' '.join([name, *command, sub])}\n\n```text\n{inner}\n```\n")
            add([*command, sub], inner)
    add([], top)
    return "".join(out)


def main():
    bin_dir, write = pathlib.Path(sys.argv[1]), "--write" in sys.argv
    bad = []
    for name in ("davit", "davitd", "davit-csi"):
        page = ROOT / "docs" / f"{name}.md"
        text = page.read_text()
        head = text.partition(MARK)[0]
        wanted = head.rstrip() + "\n\n" + section(str(bin_dir / name), name)
        if text != wanted:
            if write:
                page.write_text(wanted)
            else:
                bad.append(f"{page.relative_to(ROOT)} differs from {name} --help; run scripts/help_docs.py {bin_dir} --write")
    print("\n".join(bad) or "help pages ok")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
