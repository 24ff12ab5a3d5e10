#!/usr/bin/env python3
"""Makes docs/api.md of docs/openapi.yaml.

    api_docs.py            fails when the page is not what the document says (scripts/check runs this)
    api_docs.py --write    writes the page again
"""
import pathlib
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
METHODS = ("get", "put", "post", "delete", "patch")


def one_line(text):
    return " ".join(str(text).split()).replace("|", "\\|")


def resolve(document, node):
    while isinstance(node, dict) and "$ref" in node:
        target = document
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = target
    return node


def type_of(schema):
    """A schema in few words; a named one as a link."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    if "enum" in schema:
        return "one of " + ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return "list of " + type_of(schema.get("items", {}))
    if isinstance(schema.get("additionalProperties"), dict):
        return "object of " + type_of(schema["additionalProperties"])
    text = str(schema.get("type", "any value"))
    if "pattern" in schema:
        text += f", `{schema['pattern']}`".replace("|", "\\|")
    return text


def body_of(document, holder):
    content = resolve(document, holder).get("content", {})
    return ", ".join(type_of(media["schema"]) if kind == "application/json" and "schema" in media else f"`{kind}`"
                     for kind, media in content.items())


def call(document, path, common, method, what):
    out = [f"\n### {method.upper()} {path}\n\n{one_line(what['summary'])}.\n"]
    if "description" in what:
        out.append(f"\n{one_line(what['description'])}\n")
    parameters = [resolve(document, item) for item in common + what.get("parameters", [])]
    if parameters:
        out.append("\n| Parameter | In | Value | |\n|---|---|---|---|\n")
        out += [f"| `{p['name']}` | {p['in']} | {type_of(p['schema'])} | {one_line(p.get('description', ''))} |\n" for p in parameters]
    if "requestBody" in what:
        needed = "" if what["requestBody"].get("required") else ", may be missing"
        out.append(f"\nBody: {body_of(document, what['requestBody'])}{needed}.\n")
    out.append("\n| Status | Meaning | Body |\n|---|---|---|\n")
    for status, reply in what["responses"].items():
        out.append(f"| {status} | {one_line(resolve(document, reply).get('description', ''))} | {body_of(document, reply)} |\n")
    return "".join(out)


def schema(name, what):
    out = [f"\n### {name}\n"]
    if "description" in what:
        out.append(f"\n{one_line(what['description'])}\n")
    if "properties" not in what:
        return "".join(out) + f"\n{type_of(what)}\n"
    out.append("\n| Member | Value | |\n|---|---|---|\n")
    for member, inner in what["properties"].items():
        notes = [] if member in what.get("required", []) else ["optional"]
        if "default" in inner:
            notes.append(f"default `{str(inner['default']).lower() if isinstance(inner['default'], bool) else inner['default']}`")
        if "description" in inner:
            notes.append(one_line(inner["description"]))
        out.append(f"| `{member}` | {type_of(inner)} | {'; '.join(notes)} |\n")
    return "".join(out)


def page(document):
    out = ["# The daemon's API\n\nMade from [openapi.yaml](openapi.yaml) by `scripts/api_docs.py --write`; a contract test holds the daemon to\n"
           "that document.\n\n", one_line(document["info"]["description"]), "\n\n## Calls\n"]
    for path, item in document["paths"].items():
        out += [call(document, path, item.get("parameters", []), method, item[method]) for method in METHODS if method in item]
    out.append("\n## Bodies\n")
    out += [schema(name, what) for name, what in document["components"]["schemas"].items()]
    return "".join(out)


def main():
    wanted = page(yaml.safe_load((ROOT / "docs/openapi.yaml").read_text()))
    target = ROOT / "docs/api.md"
    if "--write" in sys.argv:
        target.write_text(wanted)
    elif not target.exists() or target.read_text() != wanted:
        print("docs/api.md is not what docs/openapi.yaml says; run scripts/api_docs.py --write")
        return 1
    print("api ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
