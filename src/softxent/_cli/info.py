"""``info`` and ``config``: the properties of this build, and where its C library is."""

from __future__ import annotations

import argparse
import json
import shlex

import softxent
from softxent import _config

from .files import CommandError


def info(arguments: argparse.Namespace) -> None:
    facts = _config.config()
    if arguments.json:
        print(json.dumps(facts, default=str))
        return
    usable = facts["isa_usable"]
    names = ", ".join(usable) if isinstance(usable, list) else usable
    print(f"softxent         {facts['version']}")
    print(f"Python           {facts['python']}")
    print(f"NumPy            {facts['numpy']}")
    print(f"instruction set  {facts['isa']} (usable here: {names})")
    print(f"OpenMP           {facts['openmp']}")
    print(f"threads          {facts['num_threads']} ({facts['num_threads_from']})")


def config(arguments: argparse.Namespace) -> None:
    if not arguments.wanted:
        raise CommandError("config: nothing is asked for: --cflags, --libs, --cmakedir or --pkgconfigdir")
    include, library = shlex.quote(softxent.get_include()), shlex.quote(softxent.get_library_dir())
    answers = {
        "cflags": f"-I{include}",
        "libs": f"-L{library} -lsoftxent",
        "cmakedir": softxent.get_cmake_dir(),
        "pkgconfigdir": _config.pkgconfig_dir(),
    }
    print(*(answers[name] for name in arguments.wanted))
