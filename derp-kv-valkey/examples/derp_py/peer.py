"""derp-py as a program beside ours: a call a line of standard input, its answer a line of standard output."""

import asyncio
import json
import sys

from derp.kv import ValkeyClient, ValkeyConfig


async def execute(kv, *, key, status_code, body, seconds=0):
    """`body` is JSON as text, in both directions, so that no number passes through another library."""
    runs = 0

    async def compute():
        nonlocal runs
        runs += 1
        # Whoever is to meet this work has to know that it has begun.
        tell({"began": key})
        await asyncio.sleep(seconds)
        return json.loads(body)

    body, status_code, is_replay = await kv.idempotent_execute(
        key=key, compute=compute, status_code=status_code
    )
    body = json.dumps(body, separators=(",", ":"))
    return {"body": body, "status_code": status_code, "is_replay": is_replay, "runs": runs}


async def event(kv, *, id):
    return {"before": await kv.already_processed(event_id=id)}


async def limit(kv, *, id, limit, window):
    result = await kv.rate_limit(id, limit=limit, window=window)
    return {"allowed": result.allowed, "count": result.count}


def tell(answer):
    print(json.dumps(answer), flush=True)


async def main():
    kv = ValkeyClient(ValkeyConfig(addresses=[("127.0.0.1", int(sys.argv[1]))]))
    await kv.connect()
    calls = {"execute": execute, "event": event, "limit": limit}
    while line := await asyncio.to_thread(sys.stdin.readline):
        arguments = json.loads(line)
        tell(await calls[arguments.pop("call")](kv, **arguments))
    await kv.disconnect()


asyncio.run(main())
