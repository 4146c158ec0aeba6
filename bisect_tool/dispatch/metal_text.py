"""The text of Metal functions: what of a source file a kernel is made from. Pure, and no compiler.

A file is cut into its definitions, comments stripped; from a kernel's function every definition that it
names, and that those name, is followed. Names are all that is looked at: an overload or a specialisation more
is taken in rather than one missed. Operators have no names: those of a type that is taken in go with it. What
preprocessor conditions choose is not decided: all branches count.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_COMMENT = re.compile(r'"(?:\\.|[^"\\\n])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"\n]+)"', re.MULTILINE)
_DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n\\]|\\.|\\\n)*", re.MULTILINE)
_DEFINE = re.compile(r"[ \t]*#[ \t]*define[ \t]+(\w+)")
_WORD = re.compile(r"[A-Za-z_]\w*")
_TOKEN = re.compile(r"\w+|\S")
_NAMESPACE = re.compile(r'(?:inline\s+)?namespace\b[\w\s:]*|extern\s*"C"\s*')
_TYPE = re.compile(r"\b(?:struct|class|union|enum(?:\s+class)?)\s+(\w+)")
_USING = re.compile(r"\b(?:using\s+(\w+)\s*=|typedef\b.*?(\w+)\s*$)", re.DOTALL)
_CALLABLE = re.compile(r"(\w+)\s*\(")
_OPERATOR = "operator"
_IS_TYPE = re.compile(r"(?:template < .*?> )*(?:struct|class|union|enum|using|typedef)\b(?! namespace\b)")
_ATTRIBUTE = re.compile(r"\[\[.*?\]\](?!\])", re.DOTALL)


@dataclass(frozen=True)
class File:
    """``definitions``: name and text, each token set apart by one blank, in their order. ``macro_lines``: the
    lines of macros, likewise: what a kernel is instantiated with stands there. ``includes``: as written."""

    definitions: tuple[tuple[str, str], ...]
    macro_lines: tuple[str, ...]
    includes: tuple[str, ...]


def parse(text: str) -> File:
    """Cut a source file into its definitions."""
    plain = _COMMENT.sub(lambda found: found[0] if found[0].startswith('"') else " ", text)
    includes = tuple(_INCLUDE.findall(plain))
    definitions: list[tuple[str, str]] = []
    lines: list[str] = []
    for directive in _DIRECTIVE.findall(plain):
        if defined := _DEFINE.match(directive):
            definitions.append((defined[1], _apart(directive.replace("\\\n", " "))))
            lines += [_apart(line.rstrip("\\")) for line in directive.split("\n")[1:]]
    chunks = _chunks(_DIRECTIVE.sub("", plain))
    definitions += [(name, _apart(chunk)) for chunk in chunks if (name := _name(chunk))]
    return File(tuple(definitions), tuple(lines), includes)


def closure(files: Iterable[File], function: str) -> str | None:
    """SHA-256 (hex) of the text that a function is made from; None when none of the files defines it."""
    named: dict[str, dict[str, None]] = {}
    macro_lines: list[str] = []
    for file in files:
        for name, text in file.definitions:
            named.setdefault(name, {})[text] = None
        macro_lines += file.macro_lines
    if function not in named:
        return None
    operators = {text: set(_WORD.findall(text.split("{", 1)[0])) for text in named.pop(_OPERATOR, {})}
    types = {name for name, texts in named.items() if any(map(_IS_TYPE.match, texts))}
    seen, todo = {function}, [function]
    texts: set[str] = set()
    while todo:
        for text in named[todo.pop()]:
            texts.add(text)
            new = {word for word in _WORD.findall(text) if word in named} - seen
            seen |= new
            todo += new
        if not todo:
            taken = {text for text, words in operators.items() if words & types & seen} - texts
            texts |= taken
            new = {word for text in taken for word in _WORD.findall(text) if word in named} - seen
            seen |= new
            todo += new
    texts |= {line for line in macro_lines if function in _WORD.findall(line)}
    return hashlib.sha256("\n".join(sorted(texts)).encode("utf-8", "surrogateescape")).hexdigest()


def candidates(name: str) -> Sequence[str]:
    """What the function behind a kernel's family may be called: ``qmv_n`` was made from ``qmv``."""
    shorter = re.sub(r"_(?:n|t|fast)$", "", name)
    return list(dict.fromkeys([name, f"affine_{name}", shorter]))


def _apart(text: str) -> str:
    return " ".join(_TOKEN.findall(text))


def _chunks(text: str) -> list[str]:
    """Top-level statements and definitions; namespaces are looked into."""
    found: list[str] = []
    start = depth = 0
    at, end = 0, len(text)
    while at < end:
        c = text[at]
        if c == '"':
            closing = re.compile(r'"(?:\\.|[^"\\])*"').match(text, at)
            at = closing.end() if closing else at + 1
            continue
        if c in "({[":
            if c == "{" and depth == 0 and _NAMESPACE.fullmatch(text[start:at].strip() + " "):
                start = at + 1
            else:
                depth += 1
        elif c in ")}]":
            if depth == 0:  # the end of a namespace
                start = at + 1
            else:
                depth -= 1
                if depth == 0 and c == "}" and not re.compile(r"\s*[;,=.)]").match(text, at + 1):
                    found.append(text[start : at + 1])
                    start = at + 1
        elif c == ";" and depth == 0:
            found.append(text[start : at + 1])
            start = at + 1
        at += 1
    return found


def _name(chunk: str) -> str:
    """What a definition defines; '' for what defines nothing."""
    head = _without_template(_ATTRIBUTE.sub(" ", chunk.split("{", 1)[0]).strip())
    if head.startswith("static_assert"):
        return ""
    if re.search(r"\boperator\b", head) and not head.startswith(("using", "typedef")):
        return _OPERATOR
    if (using := _USING.search(head.rstrip("; \n"))) and head.startswith(("using", "typedef")):
        return using[1] or using[2]
    if (kind := _TYPE.match(head)) is not None:
        return kind[1]
    before = head.split("=", 1)[0] if "(" not in head.split("=", 1)[0] else head
    if callable_ := _CALLABLE.search(before):
        return callable_[1]
    words = _WORD.findall(_without_arguments(before.split("[", 1)[0].strip()))
    return words[-1] if words else ""


def _without_arguments(text: str) -> str:
    """A specialised variable without what it is specialised for: ``is_complex<complex_t<T>>``."""
    if not text.endswith(">"):
        return text
    depth = 0
    for at in range(len(text) - 1, -1, -1):
        depth += {">": 1, "<": -1}.get(text[at], 0)
        if depth == 0:
            return text[:at]
    return text


def _without_template(head: str) -> str:
    """What follows ``template <…>``."""
    while head.startswith("template"):
        rest = head[len("template") :].lstrip()
        if not rest.startswith("<"):
            return rest
        at = depth = 0
        while at < len(rest):
            depth += {"<": 1, ">": -1}.get(rest[at], 0)
            at += 1
            if depth == 0:
                break
        head = rest[at:].lstrip()
    return head
