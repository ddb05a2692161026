"""What the reference does with a docstring: bars, links without a module, links to the lessons."""

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
# Names in docstrings that are not of the reference: of other libraries, and inner ones.
ELSEWHERE = (
    "numpy.*", "scipy.*", "numba.*", "pandas.*", "aslinearoperator", "lsmr", "svds",
    "functools.*", "METHODS", "LARGE_PRODUCT", "ROWS_FOR_THREADS", "rows.gram_terms",
    "exponents_of", "higcore.optimizers",
)  # fmt: skip
PACKAGES = ("higcore", "nets", "solvers")
LITERAL = re.compile(r"(``.*?``|`[^`]+`)")
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def programs():
    """Title, address and source of every lesson, and of the page whose blocks are a program."""
    for path in sorted((HERE.parent / "bench" / "lessons").glob("lesson*.py")):
        title = re.search(r"^# # (.*)$", path.read_text(), re.MULTILINE)[1]
        yield title, f"/lessons/{path.stem}", path.read_text()
    page = (HERE / "your-own-physics.md").read_text()
    for block in BLOCK.findall(page):
        yield "Your own physics", "/your-own-physics", block


def imported(source):
    """Full names of what a program imports from the packages."""
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    ours = [node for node in found if node.module.partition(".")[0] in PACKAGES]
    return {f"{node.module}.{alias.name}" for node in ours for alias in node.names}


def users():
    """``{full name: {address: title}}`` of the lessons that import it."""
    found = {}
    for title, address, source in programs():
        for name in imported(source):
            found.setdefault(name, {})[address] = title
    return found


def setup(app):
    """Connect all of this to Sphinx, behind numpydoc."""
    known = users()

    def complete(app, what, name, obj, options, lines):
        lines[:] = escaped(lines)
        if name in known:
            links = ", ".join(f":doc:`{title} <{at}>`" for at, title in known[name].items())
            lines += ["", f"*Used in:* {links}", ""]

    app.connect("autodoc-process-docstring", complete, priority=900)
    app.connect("autodoc-process-signature", signature)
    app.connect("autodoc-skip-member", skip)
    app.connect("missing-reference", resolve)


def escaped(lines):
    """Lines with bars escaped, outside of literals, of what follows "::", and of doctests."""
    block = None  # the indentation of the line that a block stands below
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if block is not None and line.strip() and indent <= block:
            block = None
        if line.rstrip().endswith("::") or ".. math::" in line:
            block = indent
        is_text = block is None and not line.lstrip().startswith((">>>", "..."))
        parts = LITERAL.split(line)  # every second one is a literal
        parts[::2] = [part.replace("|", r"\|") for part in parts[::2]]
        yield "".join(parts) if is_text else line


def signature(app, what, name, obj, options, arguments, returned):
    """None for a protocol, which nobody calls."""
    return ("", None) if getattr(obj, "_is_protocol", False) else None


def skip(app, what, name, obj, skipped, options):
    """Leave out the fields of named tuples, of which their class says all."""
    return True if (obj.__doc__ or "").startswith("Alias for field number") else None


def resolve(app, env, node, content):
    """A name without its module, `HIG` in a docstring of solvers; other Python's is code."""
    domain, target = env.get_domain("py"), node.get("reftarget", "")
    if node.get("refdomain") != "py" or not target:
        return None
    found = [name for name in domain.objects if name.endswith(f".{target}")]
    if found and node.get("reftype") == "obj":
        name = min(found, key=len)
        return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", name, node, content)
    return None
