"""The other end of ../process-side.mjs: answers requests, one JSON object a line, until stdin ends."""

import json
import resource
import sys
import time


def serve(prepare, release=lambda: None):
    """Runs a rival. `prepare(spec)` gives an object with `run()`, and if it can be compared, `outputs(folder)`.

    Where `run()` only queues work, `finish()` waits for it. `release()` gives back what outlives the object,
    such as a cache of memory.
    """
    answers = sys.stdout
    sys.stdout = sys.stderr  # Whatever a library prints must not be taken for an answer.
    body = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "prepare" in request:
                body = None  # Its memory first: the next one may need it.
                body = prepare(request["prepare"])
                answer = {"ready": True}
            elif "run" in request:
                start = time.perf_counter()
                for _ in range(request["run"]):
                    body.run()
                if hasattr(body, "finish"):
                    body.finish()
                answer = {"seconds": time.perf_counter() - start}
            elif "release" in request:
                body = None
                release()
                answer = {"released": True}
            elif "outputs" in request:
                answer = {"outputs": body.outputs(request["outputs"])}
            else:
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                answer = {"facts": {"peak_rss_mb": round(peak)}}
        except NotImplementedError as error:
            answer = {"missing": str(error)}
        except Exception as error:  # pylint: disable=broad-except
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
