"""A whole holdfast to break: nodes, gateways, a private PostgreSQL with a standby that is behind, the network between
them. It lives in a directory, so that one command starts it, another hurts it, a third takes it down.

    with Stand(build, nodes=3, gateways=2, postgres=True) as stand:   # up; down on the way out, whatever happened
        fault = faults.make(stand, "pause").inject("leader")
        fault.heal()
        stand.wait_ready()

    stand = Stand(build, "/tmp/mine", nodes=3).up()                   # holdfast-chaos up
    stand = Stand.open("/tmp/mine"); stand.down()                     # holdfast-chaos down

What it owns: the directory, every process, mount, loop device and network namespace made for it, and the list of
faults that are active. What it refuses: a directory that is in use or holds anything else; processes that are not its
own: they are found by pid and start time, and at the end by the mark in their environment.

Happy path: Stand → up → inject, heal → down. Failure modes: whoever is killed in between leaves a directory from which
leftovers.sweep() (or down) ends and removes everything; sweep_abandoned() does so for each stand whose owner is gone.
"""
