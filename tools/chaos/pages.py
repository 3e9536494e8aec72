"""Help, docs/cli-chaos.md and docs/man/holdfast-chaos.1, all from commands.COMMANDS."""
import pathlib
import textwrap

import commands

ROOT = pathlib.Path(__file__).resolve().parents[2]
MARKDOWN = ROOT / "docs" / "cli-chaos.md"
MAN = ROOT / "docs" / "man" / "holdfast-chaos.1"
SUMMARY = "break a holdfast cluster on purpose, and check what it did"


def _name(p):
    return f"{p.name} {p.argument}" if p.argument else p.name


def _help_text(p):
    text = p.help
    if p.choices:
        text += ": " + ", ".join(p.choices)
    return text + (f" (default {p.default})" if p.default else "")


def _table(parameters):
    width = max((len(_name(p)) for p in parameters), default=0)
    lines = []
    for p in parameters:
        first, *rest = textwrap.wrap(_help_text(p), 96 - width)
        lines.append(f"  {_name(p):{width}}  {first}")
        lines += [" " * (width + 4) + more for more in rest]
    return "\n".join(lines) + "\n"


def help(topic=""):
    """What --help prints. topic: "" for the overview, else a command."""
    if not topic:
        width = max(len(c.name) for c in commands.COMMANDS)
        return (f"holdfast-chaos: {SUMMARY}\n\nExamples:\n"
                "  holdfast-chaos run leader-killed-in-the-rush --seed 7 --out /tmp/run-7\n"
                "  holdfast-chaos matrix --time 10s --sample 12\n"
                "  holdfast-chaos up && holdfast-chaos inject pause leader && holdfast-chaos down\n\nCommands:\n"
                + "".join(f"  {c.name:{width}}  {c.summary}\n" for c in commands.COMMANDS)
                + "\nOptions of every command:\n" + _table(commands.GLOBAL)
                + "\nExit status: " + "; ".join(f"{n} {name}" for n, name, _ in commands.EXITS)
                + "\nholdfast-chaos COMMAND --help has more.\n")
    c = commands.find(topic)
    text = f"{c.summary}.\n\nExamples:\n" + textwrap.indent(c.examples, "  ")
    text += f"\nUsage: holdfast-chaos {c.usage()}\n\n{c.help}\n"
    if c.parameters:
        text += "\n" + _table(c.operands + c.options)
    return text + "\nOptions of every command:\n" + _table(commands.GLOBAL)


def _cell(text):
    return text.replace("|", "\\|")


def _rows(parameters):
    lines = ["| name | meaning | default |", "|---|---|---|"]
    for p in parameters:
        meaning = p.help + (": " + ", ".join(p.choices) if p.choices else "")
        lines.append(f"| `{_cell(_name(p))}` | {_cell(meaning)} | {'`' + _cell(p.default) + '`' if p.default else ''} |")
    return "\n".join(lines) + "\n\n"


def markdown():
    text = ("# holdfast-chaos\n\n<!-- Written from tools/chaos/commands.py by `tools/chaos/holdfast-chaos pages`. -->\n\n"
            f"A tool to {SUMMARY}. Run from a checkout: `tools/chaos/holdfast-chaos`. Results go to standard output, "
            "progress and messages to standard error. Faults, scenario files and reports: "
            "[tools/chaos/README.md](../tools/chaos/README.md).\n\n"
            "Times are written `200ms`, `3s`, `5m` or `1h`.\n\n"
            "## Exit status\n\n| status | name | meaning |\n|---|---|---|\n")
    text += "".join(f"| {n} | {name} | {meaning} |\n" for n, name, meaning in commands.EXITS)
    text += "\n## Options of every command\n\n" + _rows(commands.GLOBAL) + "## Commands\n\n"
    for c in commands.COMMANDS:
        text += f"### holdfast-chaos {c.name}\n\n{c.summary}.\n\n```\n{c.examples}```\n\nUsage: `{c.usage()}`\n\n{c.help}\n\n"
        if c.parameters:
            text += _rows(c.operands + c.options)
    return text.rstrip("\n") + "\n"


def _roff(text):
    lines = []
    for line in text.replace("\\", "\\e").replace("-", "\\-").split("\n"):
        lines.append("\\&" + line if line[:1] in (".", "'") else line)
    return "\n".join(lines)


def _man_parameters(parameters):
    return "".join(f".TP\n\\fB{_roff(p.name)}\\fR{' ' + chr(92) + 'fI' + _roff(p.argument) + chr(92) + 'fR' if p.argument else ''}\n"
                   f"{_roff(_help_text(p))}\n" for p in parameters)


def man():
    text = (".\\\" Written from tools/chaos/commands.py: do not edit.\n.TH HOLDFAST\\-CHAOS 1 \"\" \"holdfast\" \"holdfast\"\n"
            f".SH NAME\nholdfast\\-chaos \\- {_roff(SUMMARY)}\n"
            ".SH SYNOPSIS\n.B holdfast\\-chaos\n.I COMMAND\n[operands] [options]\n"
            ".SH DESCRIPTION\nStarts real clusters, breaks them, and checks the history of what clients were told. "
            "Results go to standard output, progress and messages to standard error.\n.SH OPTIONS\n")
    text += _man_parameters(commands.GLOBAL) + ".SH COMMANDS\n"
    for c in commands.COMMANDS:
        text += f".SS {_roff(c.usage())}\n{_roff(c.summary)}.\n.PP\n{_roff(c.help)}\n"
        text += _man_parameters(c.operands + c.options)
        text += f".PP\nExamples:\n.nf\n{_roff(c.examples)}.fi\n"
    text += ".SH EXIT STATUS\n" + "".join(f".TP\n.B {n}\n{_roff(meaning)}\n" for n, _, meaning in commands.EXITS)
    return text + ".SH SEE ALSO\n.BR holdfastctl (1)\n"


def write(check):
    """Returns the files that were not what they should be (check), or that were written."""
    wrong = []
    for path, text in ((MARKDOWN, markdown()), (MAN, man())):
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            wrong.append(str(path.relative_to(ROOT)))
            if not check:
                path.write_text(text, encoding="utf-8")
    return wrong
