"""What a person reads after a run.

    report.write(directory)      # report.md, report.json, timeline.svg, timeline.html

Reads: history.jsonl, verdict.json, and of run.json whatever is there of: seed, command (to replay),
scenario, workload, started, versions {…}, machine, left_out [texts], nodes.
"""


def write(directory):
    """Returns the dict of report.json."""
    raise NotImplementedError
