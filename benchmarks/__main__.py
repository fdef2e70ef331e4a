"""`python -m benchmarks [core] [swarm] [push] [routes] [archive] [files] [rest] [start]`: all by default. Exit status 1 where a limit is missed."""

import sys

from benchmarks import core, table


def main(chosen: list[str]) -> int:
    """Run the chosen benchmarks and print their tables."""
    missed = False
    if not chosen or "core" in chosen:
        rows = core.run()
        missed |= any(row.is_missed for row in rows)
        print("\n".join(table.lines("The core, in units of json.loads", rows)), flush=True)
    if not chosen or "swarm" in chosen:
        from benchmarks import swarm

        for count in swarm.COUNTS:
            rows = swarm.run(count)
            missed |= any(row.is_missed for row in rows)
            title = f"A real Swarm, {count} services, in units of docker stack deploy"
            print("\n".join(table.lines(title, rows)), flush=True)
    if not chosen or "push" in chosen:
        from benchmarks import push

        rows = push.run()
        missed |= any(row.is_missed for row in rows)
        title = f"A push, {push.SERVICES} services on a real Swarm, in units of GET /services"
        print("\n".join(table.lines(title, rows)), flush=True)
    if not chosen or "routes" in chosen:
        from benchmarks import routes

        rows = routes.run_core()
        missed |= any(row.is_missed for row in rows)
        print("\n".join(table.lines("The route table, in units of json.dumps", rows)), flush=True)
        rows = routes.run_swarm()
        missed |= any(row.is_missed for row in rows)
        title = "From a running task to its proxy, on a real Swarm, in units of the time between looks"
        print("\n".join(table.lines(title, rows)), flush=True)
    if not chosen or "archive" in chosen:
        from benchmarks import archive

        rows = archive.run()
        missed |= any(row.is_missed for row in rows)
        title = (
            f"An archive with an object of {archive.LARGE_BYTES >> 20} MiB, in units of a plain copy of it"
        )
        print("\n".join(table.lines(title, rows)), flush=True)
    if not chosen or "files" in chosen:
        from benchmarks import files

        rows = files.run()
        missed |= any(row.is_missed for row in rows)
        print("\n".join(table.lines("A cluster file, in units of parsing alone", rows)), flush=True)
    if not chosen or "rest" in chosen:
        from benchmarks import rest

        rows = rest.run()
        missed |= any(row.is_missed for row in rows)
        title = f"A daemon at rest with {rest.SERVICES} services"
        print("\n".join(table.lines(title, rows)), flush=True)
    if not chosen or "start" in chosen:
        from benchmarks import start

        rows = start.run()
        missed |= any(row.is_missed for row in rows)
        print("\n".join(table.lines("Start-up, in units of python -c pass", rows)), flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
