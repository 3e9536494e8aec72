#!/usr/bin/env python3
"""holdfast-bench must pass against a gateway that is right and fail against each that is wrong.

Usage: test_bench_checks.py HOLDFAST_BENCH
"""
import concurrent.futures
import pathlib
import subprocess
import sys
import tempfile

FAKE = pathlib.Path(__file__).with_name("fake_gateway.py")
ORDERS = ["orders", "--duration", "500ms", "--warmup", "0s", "--connections", "8", "--stock", "40"]
SALE = ["sale", "--buyers", "300", "--units", "20", "--eligibilities", "200", "--payers", "14", "--early", "6",
        "--lead", "2500ms", "--registering", "500ms", "--rush", "400ms", "--payment-timeout", "2s",
        "--connections", "40", "--limit", "30s", "--quiet"]
# What is run, against which fault, the exit status it must have, and what it must say.
CASES = [
    ("orders", ORDERS, "", 0, "granted = min(asked, stock)"),
    ("orders without end of stock", [*ORDERS, "--stock", "1000000"], "", 0, "ok"),
    ("orders flaky", [*ORDERS, "--rate", "1500"], "flaky", 0, "ok"),
    ("orders oversell", ORDERS, "oversell", 1, "WRONG"),
    ("orders undersell", ORDERS, "undersell", 1, "WRONG"),
    ("orders forget", ORDERS, "forget", 1, "acknowledged orders that are not listed"),
    ("orders twice", [*ORDERS, "--stock", "1000000"], "flaky-twice", 1, "WRONG"),
    ("sale", SALE, "", 0, "every unit is accounted for"),
    ("sale flaky", SALE, "flaky", 0, "every unit is accounted for"),
    ("sale oversell", SALE, "oversell", 1, "WRONG"),
    ("sale undersell", [*SALE, "--limit", "8s"], "undersell", 1, "not over after"),
    ("sale forget", SALE, "forget", 1, ""),
    ("sale phantom", [*SALE, "--limit", "8s"], "phantom", 1, ""),
    ("sale twice", SALE, "twice", 1, "WRONG"),
    ("sale charge", SALE, "charge", 1, ""),
    ("sale early", SALE, "early", 1, "WRONG"),
    ("sale rights", SALE, "rights", 1, "WRONG"),
]


def run(bench, folder, case):
    name, arguments, fault, status, says = case
    with subprocess.Popen([sys.executable, FAKE, "--fault", fault], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as fake:
        try:
            url = "http://127.0.0.1:" + fake.stdout.readline().split()[1]
            done = subprocess.run([bench, *arguments, "--url", url, "--admin-url", url,
                                   "--api-key-file", folder / "key", "--admin-key-file", folder / "key",
                                   "--payment-secret-file", folder / "secret"],
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
        finally:
            fake.kill()
    good = done.returncode == status and says in done.stdout
    return good, f"{'ok  ' if good else 'FAIL'} {name}: status {done.returncode}\n" + ("" if good else done.stdout)


def main():
    bench = sys.argv[1]
    with tempfile.TemporaryDirectory() as name, concurrent.futures.ThreadPoolExecutor(4) as pool:
        folder = pathlib.Path(name)
        (folder / "key").write_text("an-api-key-for-tests\n")
        (folder / "secret").write_text("whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3\n")
        results = list(pool.map(lambda case: run(bench, folder, case), CASES))
    print("".join(text for _, text in results))
    return 0 if all(good for good, _ in results) else 1


if __name__ == "__main__":
    sys.exit(main())
