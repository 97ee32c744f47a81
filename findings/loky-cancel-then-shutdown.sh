#!/usr/bin/env bash
# loky's executor breaks when a waiting call was cancelled before it is shut down with kill_workers=True.
#
# shutdown(kill_workers=True) gives every call that is not done a ShutdownExecutorError. It tries that on cancelled ones
# too; concurrent.futures answers InvalidStateError, the executor's manager thread prints a traceback, and the calls
# that were not cancelled end with another error, BrokenProcessPool, as if a worker had crashed.
#
# Seen in: loky 3.7.0, which joblib 1.6.0 carries along.
# Most would expect: cancelling what waits and then shutting down to be the polite order, without an error.
# Why it matters: a program that stops early this way shows a traceback, and one that takes BrokenProcessPool for a lost
# worker, and sends the call again, does so in vain.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet loky==3.7.0 cloudpickle==3.1.3
cat > "$work/stop.py" <<'PY'
import sys
import time

from loky import ProcessPoolExecutor


def errors(*, cancel):
    """What the calls end with, and whether one that waits was cancelled before."""
    executor = ProcessPoolExecutor(1)
    calls = [executor.submit(time.sleep, 30) for _ in range(6)]
    while not calls[0].running():
        time.sleep(0.01)
    if cancel:
        assert calls[-1].cancel()
    executor.shutdown(wait=True, kill_workers=True)
    return [type(call.exception()).__name__ for call in calls if not call.cancelled()]


if __name__ == "__main__":
    found = {cancel: set(errors(cancel=cancel)) for cancel in (False, True)}
    print(f"nothing cancelled: the calls end with {found[False]}")
    print(f"one cancelled before: {found[True]}")
    sys.exit(found != {False: {"ShutdownExecutorError"}, True: {"BrokenProcessPool"}})
PY
said=$("$work/venv/bin/python" "$work/stop.py" 2>&1) && same=yes || same=no
printf '%s\n' "$said"
grep -q "InvalidStateError: CANCELLED" <<< "$said" && [ $same = yes ] || { echo "no longer so"; exit 1; }
