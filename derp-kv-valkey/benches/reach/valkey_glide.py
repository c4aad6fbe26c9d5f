"""Plain gets by valkey-glide: PORT VALUE_BYTES KEY..

For each line `CALLERS TURNS` it does one round, and answers a line of four numbers: operations a
second, nanoseconds of this process's processor time an operation, and the median and the 99th
percentile of the latencies in microseconds.
"""

import asyncio
import sys
import time

from glide import GlideClient, GlideClientConfiguration, NodeAddress


async def caller(client, keys, value_bytes, nth, turns, latencies):
    for turn in range(turns):
        begun = time.perf_counter()
        value = await client.get(keys[(nth * 7919 + turn * 31) % len(keys)])
        latencies.append(time.perf_counter() - begun)
        if value is None or len(value) != value_bytes:
            raise ValueError("not the value that was written")


async def one_round(client, keys, value_bytes, callers, turns):
    latencies = []
    begun, cpu = time.perf_counter(), time.process_time_ns()
    tasks = (caller(client, keys, value_bytes, nth, turns, latencies) for nth in range(callers))
    await asyncio.gather(*tasks)
    took, cpu = time.perf_counter() - begun, time.process_time_ns() - cpu
    latencies.sort()
    p50, p99 = (latencies[round(q * (len(latencies) - 1))] * 1e6 for q in (0.5, 0.99))
    return len(latencies) / took, cpu / len(latencies), p50, p99


async def main():
    port, value_bytes, *keys = sys.argv[1:]
    config = GlideClientConfiguration([NodeAddress("127.0.0.1", int(port))], request_timeout=30_000)
    client = await GlideClient.create(config)
    print("ready", flush=True)
    # Between the rounds nothing of it runs, so that a blocking read holds up nobody.
    for line in sys.stdin:
        callers, turns = map(int, line.split())
        numbers = await one_round(client, keys, int(value_bytes), callers, turns)
        print(*numbers, flush=True)
    await client.close()


asyncio.run(main())
