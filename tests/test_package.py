"""The package as a whole: importing it is cheap, its public names exist, its command answers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import r1_reward


def test_import_is_cheap_and_loads_no_torch():
    code = (
        "import sys, r1_reward\n"
        "assert 'torch' not in sys.modules and 'datasets' not in sys.modules, 'heavy import'\n"
        "from r1_reward import build_prompt, parse_judgment, combine_rewards, PreferencePair\n"
        "assert 'torch' not in sys.modules, 'torch loaded for text functions'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_public_name_resolves():
    for name in r1_reward.__all__:
        assert getattr(r1_reward, name) is not None, name
    assert set(r1_reward.__all__) <= set(dir(r1_reward))


def test_version_and_help(monkeypatch, capsys):
    from r1_reward.cli import main

    done = subprocess.run([sys.executable, "-m", "r1_reward", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()[0]) == (0, r1_reward.__version__), done.stderr
    for arguments, expected in ((["--help"], "train"), (["train", "rl", "--keys"], "pre_clip")):
        monkeypatch.setattr(sys, "argv", ["r1-reward", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code in (0, None)
        assert expected in capsys.readouterr().out


def test_no_machine_is_built_in():
    """No folder, address or private host of anybody's machine is in the package."""
    private = r"(?:10|192\.168|172\.(?:1[6-9]|2\d|3[01]))(?:\.\d{1,3}){2,3}"
    built_in = re.compile(rf"[\"'](?:/(?:home|root|Users|mnt|data|tmp|opt|work|var)/)|\b{private}\b")
    assert built_in.search('open("/home/me/x")')
    assert built_in.search("http://10.1.2.3:8000")
    for file in (Path(__file__).parents[1] / "src").rglob("*.py"):
        assert not built_in.search(file.read_text(encoding="utf-8")), file
