"""The command line → a command and its values, by the table in commands.py.

    command, values = parse(["run", "some", "--seed", "7"])     # values.seed == 7, values.SCENARIO == "some"

UsageError carries the sentence to print and the command whose help has more. Options may stand anywhere; `--x=1` is
`--x 1`; after `--` all are operands.
"""
import difflib
import pathlib
import types

import commands
from plan import duration


class UsageError(Exception):
    def __init__(self, what, command=""):
        super().__init__(what)
        self.command = command


def nearest(word, words):
    """", did you mean x?", or nothing."""
    found = difflib.get_close_matches(word, words, 1)
    return f", did you mean {found[0]}?" if found else ""


def _value(parameter, text):
    """ValueError says what is wrong."""
    if parameter.choices and text not in parameter.choices:
        raise ValueError(f"{text!r}: it is one of {', '.join(parameter.choices)}")
    if parameter.kind in ("int", "count"):
        if not text.isdigit() or len(text) > 18 or parameter.kind == "count" and int(text) < 1:
            raise ValueError(f"{text!r} is not a number{' from 1' if parameter.kind == 'count' else ''}")
        return int(text)
    if parameter.kind == "duration":
        value = duration(text)
        if value <= 0:
            raise ValueError("a time above 0")
        return value
    if parameter.kind == "dir":
        return pathlib.Path(text)
    return text


def _attribute(parameter):
    return parameter.name.lstrip("-").replace("-", "_")


def parse(words):
    """(Command, namespace). help is in values.help; "" as command: the overview."""
    if not words or words[0] in ("--help", "-h", "help"):
        topic = words[1] if words[:1] == ["help"] and len(words) > 1 else ""
        if topic and commands.find(topic) is None:
            raise UsageError(f"no command {topic}{nearest(topic, [c.name for c in commands.COMMANDS])}")
        return commands.find(topic), types.SimpleNamespace(help=bool(words), output="table", quiet=False)
    command = commands.find(words[0])
    if command is None:
        raise UsageError(f"no command {words[0]}{nearest(words[0], [c.name for c in commands.COMMANDS])}")
    return command, _Parser(command).parse(words[1:])


class _Parser:
    def __init__(self, command):
        self.command = command
        self.options = {p.name: p for p in command.options + list(commands.GLOBAL)}
        self.values = types.SimpleNamespace()
        for p in [*command.parameters, *commands.GLOBAL]:
            initial = [] if p.many else False if p.kind == "flag" else p.default
            if initial and isinstance(initial, str) and p.name != "--build":
                initial = _value(p, initial)
            setattr(self.values, _attribute(p), initial)
        self.values.build = None
        self.given = set()

    def fail(self, what):
        raise UsageError(f"{self.command.name}: {what}", self.command.name)

    def take(self, parameter, text):
        try:
            value = _value(parameter, text)
        except ValueError as e:
            self.fail(f"{parameter.name}: {e}")
        if parameter.many:
            getattr(self.values, _attribute(parameter)).append(value)
        else:
            if parameter.name in self.given:
                self.fail(f"{parameter.name} is given twice")
            setattr(self.values, _attribute(parameter), value)
        self.given.add(parameter.name)

    def parse(self, words):
        operands, words = [], list(words)
        while words:
            word = words.pop(0)
            if word == "--":
                operands += words
                break
            if word == "-h":
                word = "--help"
            if not word.startswith("--"):
                operands.append(word)
                continue
            name, equals, text = word.partition("=")
            parameter = self.options.get(name)
            if parameter is None:
                self.fail(f"no option {name}{nearest(name, list(self.options))}")
            if parameter.kind == "flag":
                if equals:
                    self.fail(f"{name} takes no value")
                setattr(self.values, _attribute(parameter), True)
                continue
            if not equals:
                if not words:
                    self.fail(f"{name} needs {parameter.argument}")
                text = words.pop(0)
            self.take(parameter, text)
        if self.values.help:
            return self.values
        self.place(operands)
        for p in self.command.options:
            if p.required and p.name not in self.given:
                self.fail(f"{p.name} {p.argument} is missing")
        return self.values

    def place(self, operands):
        for p in self.command.operands:
            if p.many:
                while operands:
                    self.take(p, operands.pop(0))
            elif operands:
                self.take(p, operands.pop(0))
            else:
                self.fail(f"{p.name} is missing; usage: holdfast-chaos {self.command.usage()}")
        if operands:
            self.fail(f"{operands[0]!r} is one too many; usage: holdfast-chaos {self.command.usage()}")
