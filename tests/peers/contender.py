"""What every peer of `cargo xtask bench` has in common: lines of JSON on standard input and output.

A request names a case and a time, `{"case": ..., "seconds": 2.0}`; the answer tells the seconds of each iteration, the
memory and the versions, or `{"error": "..."}`. With `"outcome": path` the result is written there, as
little-endian f64, for the comparison with the other contenders. The peer ends when its standard input closes.
"""

import json
import struct
import sys
import time


def serve(prepare, versions, libraries=None, weighed=True):
    """Takes turns. `libraries(case)` loads what only comes with its first use; `prepare(case)` makes a case ready and
    returns `(iterate, outcome)`: `iterate()` does the work once, to its end, and `outcome()` returns its result as a flat
    sequence of floats. `versions()` returns a dictionary of strings. Without `weighed` no memory is told: that of a process
    whose work is done by others."""
    case = iterate = outcome = base = None
    loading_peak = 0
    for line in sys.stdin:
        try:
            request = json.loads(line)
            if request["case"] != case:
                if libraries:
                    libraries(request["case"])
                base = memory("VmRSS")
                iterate, outcome = prepare(request["case"])
                iterate()
                case = request["case"]
                loading_peak = memory("VmHWM") or 0
                restart_peak()
            if request.get("outcome"):
                values = outcome()
                with open(request["outcome"], "wb") as file:
                    file.write(struct.pack(f"<{len(values)}d", *values))
            seconds = []
            if request["seconds"] > 0:
                iterate()
                began = time.perf_counter()
                while not seconds or time.perf_counter() - began < request["seconds"]:
                    before = time.perf_counter()
                    iterate()
                    seconds.append(time.perf_counter() - before)
            running = memory("VmHWM")
            peak = None if running is None else max(running, loading_peak)
            reply = {"seconds": seconds, "versions": versions()}
            if weighed:
                reply |= {"base_bytes": base, "peak_bytes": peak, "running_bytes": running}
        except Exception as error:  # whatever it is, the one who asked shows it
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), flush=True)


def refuse(reason):
    """Answers every request with why there can be no work."""
    for _ in sys.stdin:
        print(json.dumps({"error": reason}), flush=True)


def memory(name):
    """Resident memory in bytes, now (`VmRSS`) or the largest since `restart_peak` (`VmHWM`); None where the system does
    not say."""
    try:
        with open("/proc/self/status") as file:
            lines = [line for line in file if line.startswith(name + ":")]
        return 1024 * int(lines[0].split()[1])
    except (OSError, IndexError):
        return None


def restart_peak():
    """Counts the peak anew from what is in use now; only Linux can."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass
