"""Is the code tested? Changes it in a copy, one operator, branch or body at a time.

    mutants.sh [FILE...]        all of what .cargo/mutants.toml names, or these files alone

cargo-mutants says what to change (`cargo mutants --list`). The changes are all in one build of the
copy, each as a body of its function that the environment chooses; cargo-mutants itself, which
builds anew for each, would take hours. The few that no build can choose at run time, in constants,
are a build each.

A mutant meets the unit tests, the integration tests and the crash images, one process each, the
fastest first, until one fails. A test that does not end counts as a failure. What survives meets
loom's models, of which one that does not end says nothing. What survives everything must be in the
table of docs/testing.md, which says why; then it is left out the next time.
"""

import json
import math
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOC = ROOT / "docs" / "testing.md"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "mutants"
COPY = TARGET / "copy"
WORKERS = os.cpu_count() or 2

# A test hangs if it takes these seconds, and so many times as long as without a mutant: seconds of
# processor time, and of sleep.
CPU_S, CPU_TIMES = 4, 10
SLEEP_S, SLEEP_TIMES = 6, 3

# No debug information, and shares of what scripts do in full.
SETTINGS = {
    "CARGO_PROFILE_DEV_DEBUG": "0",
    "RUST_BACKTRACE": "0",
    "KAELIX_IMAGES": "8000",
    "KAELIX_KILL_CYCLES": "3",
}

# Tests that say nothing here, or the same as shorter ones in much more time.
LEFT_OUT = re.compile(r"every_length|other_process|^tidy::")
# The order in which test binaries are tried, those that take long last; the rest is not tried.
INTEGRATION = [
    "open_errors",
    "format_freeze",
    "full_and_trim",
    "durable_waits",
    "persistent_memory",
    "readers",
    "idle",
    "streams",
    "batches",
    "consumers",
    "idempotent",
    "moved",
    "transactions",
    "verified",
    "corruption",
    "every_size",
    "faults",
    "crash_images",
    "stress",
    "kill9",
    "kill_transactions",
]

# What builds loom's models, in a workspace of their own.
MODELS = ["--test=loom"]

# Added to the copy: which mutant is chosen.
CHOICE = """
#[doc(hidden)]
pub fn mutant() -> u32 {
    static CHOICE: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *CHOICE.get_or_init(|| {
        std::env::var("KAELIX_MUTANT").ok().and_then(|text| text.parse().ok()).unwrap_or(0)
    })
}
"""


FUNCTION = r"^ *(?:pub(?:\([^)]*\))? )?(?:const )?(?:unsafe )?fn "


class Mutant:
    """One change: `number` chooses it."""

    def __init__(self, number, listed):
        self.number, self.path = number, listed["file"]
        # In the table of the documentation a mutant stands without its line.
        self.name = re.sub(r":\d+:\d+: ", ": ", listed["name"], count=1)
        self.listed_name = listed["name"]
        self.replacement, self.genre = listed["replacement"], listed["genre"]
        self.span, self.function = listed["span"], listed["function"]
        self.caught_by = None


def offset(text, place):
    """The position in `text` of a line and a column, both counted from 1."""
    lines = text.splitlines(keepends=True)
    return sum(len(line) for line in lines[: place["line"] - 1]) + place["column"] - 1


def changed(text, mutant):
    start, end = (offset(text, mutant.span[key]) for key in ("start", "end"))
    return text[:start] + mutant.replacement + text[end:]


def body_start(text, start):
    """Behind the brace that opens the body of the function at `start`."""
    at = start + re.search(FUNCTION, text[start:], re.M).end()
    depth = 0
    while text[at] != "{" or depth:
        depth += (text[at] in "([") - (text[at] in ")]")
        at += 1
    return at + 1


def choosable(text, mutants):
    """`text` with all of its mutants, and the lines that each takes."""
    functions = {}
    for mutant in mutants:
        key = tuple(offset(text, mutant.function["span"][key]) for key in ("start", "end"))
        functions.setdefault(key, []).append(mutant)
    for (start, end), here in sorted(functions.items(), reverse=True):
        body, close = body_start(text, start), end - 1
        bodies = "\nmatch crate::mutant() {\n"
        for mutant in here:
            whole = changed(text, mutant)
            inner = whole[body : close + len(whole) - len(text)]
            bodies += f"/*mutant {mutant.number}*/ {mutant.number} => {{{inner}}}\n"
        bodies += f"/*mutant 0*/ _ => {{{text[body:close]}}}\n}}\n"
        head = re.sub(r"\bconst (?=(?:unsafe )?fn )", "", text[start:body])
        text = text[:start] + head + bodies + text[close:]
    lines, number = {}, 0
    for at, line in enumerate(text.splitlines(), 1):
        if found := re.match(r"/\*mutant (\d+)\*/", line):
            number = int(found[1])
        lines[at] = number
    return text, lines


class Copy:
    """A copy of the tree, and what it is built with."""

    def __init__(self):
        shutil.rmtree(COPY, ignore_errors=True)
        kept = ["Cargo.toml", "Cargo.lock", "README.md", "src", "cli", "benches", "tests", "docs"]
        kept += [f"loom-tests/{name}" for name in ["Cargo.toml", "Cargo.lock", "src", "tests"]]
        for name in kept:
            source, target = ROOT / name, COPY / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
        self.env = dict(os.environ, CARGO_TARGET_DIR=str(TARGET), **SETTINGS)

    def put(self, mutants):
        """Writes all of `mutants` into the copy; returns the mutant of each line of each file."""
        lines = {}
        shutil.copytree(ROOT / "src", COPY / "src", dirs_exist_ok=True)
        for path in sorted({mutant.path for mutant in mutants}):
            text = (ROOT / path).read_text()
            here = [mutant for mutant in mutants if mutant.path == path]
            text, lines[path] = choosable(text, here)
            (COPY / path).write_text(text)
        (COPY / "src/lib.rs").write_text((ROOT / "src/lib.rs").read_text() + CHOICE)
        return lines

    def build(self, what):
        """Builds tests; returns their binaries by name, or the errors' places."""
        # What a mutant leaves unused is no news.
        flags = f"{os.environ.get('RUSTFLAGS', '')} --cap-lints allow".strip()
        build = ["cargo", "test", "--locked", "--no-run", "--message-format=json"]
        if what == MODELS:
            flags += " --cfg wal_loom"
        else:
            build += ["--package", "kaelix-wal"]
        done = subprocess.run(
            [*build, *what],
            cwd=COPY / "loom-tests" if what == MODELS else COPY,
            env=dict(self.env, RUSTFLAGS=flags),
            stdout=subprocess.PIPE,
            text=True,
        )
        binaries, places, said = {}, set(), []
        for message in map(json.loads, done.stdout.splitlines()):
            if message.get("executable") and message["profile"]["test"]:
                binaries[message["target"]["name"]] = message["executable"]
            elif message["reason"] == "compiler-message":
                error = message["message"]
                if error["level"] == "error":
                    said.append(error["rendered"])
                    places |= {place for span in error["spans"] for place in origins(span)}
        if done.returncode and not places:
            sys.exit(f"mutants: it does not build:\n{''.join(said)}")
        return (None, places) if done.returncode else (binaries, set())


def origins(span):
    """The places in the source that a span of a compiler's message comes from."""
    while span:
        yield span["file_name"].removeprefix("../").removeprefix(f"{COPY}/"), span["line_start"]
        span = (span.get("expansion") or {}).get("span")


def build_viable(copy, mutants, what):
    """Builds tests with as many mutants as compile; returns these, the others, and binaries."""
    left, unviable = list(mutants), []
    while True:
        lines = copy.put(left)
        binaries, places = copy.build(what)
        if binaries:
            return left, unviable, binaries
        bad = {lines.get(path, {}).get(line, 0) for path, line in places} - {0}
        if not bad:
            sys.exit(f"mutants: it does not build, at {places}")
        print(f"{len(bad)} do not compile", flush=True)
        unviable += [mutant for mutant in left if mutant.number in bad]
        left = [mutant for mutant in left if mutant.number not in bad]


class Binary:
    """A test binary and the names of its tests."""

    def __init__(self, name, path, env):
        self.name, self.path, self.env = name, path, env
        # Seconds that each test takes without a mutant, once that is known.
        self.baseline = {}
        out = subprocess.run([path, "--list"], cwd=COPY, capture_output=True, text=True, check=True)
        names = re.findall(r"^(\S+): test$", out.stdout, re.M)
        self.tests = [test for test in names if not LEFT_OUT.search(f"{name}::{test}")]

    def fails(self, test, number):
        """Does this test fail, or not end?"""
        baseline = self.baseline.get(test, 60)
        limits = [math.ceil(CPU_S + CPU_TIMES * baseline)] * 2
        child = subprocess.Popen(
            [self.path, "--exact", test, "--test-threads=1"],
            cwd=COPY,
            env=dict(self.env, KAELIX_MUTANT=str(number)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, limits),
            start_new_session=True,
        )
        # What waits for a processor does not sleep, and what stands still with the machine neither.
        slept, step = 0.0, 0.002
        while child.poll() is None and slept < SLEEP_S + SLEEP_TIMES * baseline:
            began = time.monotonic()
            time.sleep(step)
            slept += min(time.monotonic() - began, 0.3) if sleeps(child.pid) else 0
            step = min(step * 1.5, 0.1)
        hung = child.poll() is None
        if hung:
            os.killpg(child.pid, signal.SIGKILL)
        status = child.wait()
        hung = hung or status in (-signal.SIGXCPU, -signal.SIGKILL)
        return status != 0, "hangs in " if hung else ""


def sleeps(process):
    """Do all threads of a process sleep?"""
    for stat in Path(f"/proc/{process}/task").glob("*/stat"):
        try:
            if stat.read_text().rpartition(")")[2].split()[0] != "S":
                return False
        except OSError:
            return False
    return True


def try_all(mutants, binaries):
    """Runs the tests of `binaries` on each mutant until one fails; returns the survivors."""
    tests = []
    for binary in binaries:
        for test in binary.tests:
            began = time.monotonic()
            failed, how = binary.fails(test, 0)
            if failed and binary.fails(test, 0)[0]:
                sys.exit(f"mutants: {how}{binary.name} {test} fails without a mutant")
            binary.baseline[test] = time.monotonic() - began
            tests.append((binary.baseline[test], len(tests), binary, test))

    def meet(mutant):
        # The fastest first, and what has failed for a neighbour before others of its kind.
        failed_before = likely[mutant.path]
        order = sorted(tests, key=lambda row: row[0] / (1 + failed_before[row[3]]))
        for _, _, binary, test in order:
            failed, how = binary.fails(test, mutant.number)
            # Twice: what measures time may have failed for the machine's sake.
            if how and binary.name == "loom":
                continue
            if failed and (how or binary.fails(test, mutant.number)[0]):
                mutant.caught_by = f"{how}{binary.name} {test}"
                failed_before[test] += not how
                break
        print(f"{mutant.caught_by or 'SURVIVES'}: {mutant.listed_name}", flush=True)

    likely = {mutant.path: Counter() for mutant in mutants}
    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(meet, mutants))
    return [mutant for mutant in mutants if not mutant.caught_by]


def binaries_of(copy, built, names):
    """The named ones of `built`, in this order."""
    return [Binary(name, built[name], copy.env) for name in names]


def try_constants(copy, mutants):
    """The mutants that need a build each; unit tests only. Returns those that do not compile."""
    unviable = []
    for mutant in mutants:
        text = (ROOT / mutant.path).read_text()
        (COPY / mutant.path).write_text(changed(text, mutant))
        built, _ = copy.build(["--lib"])
        if built:
            try_all([mutant], binaries_of(copy, built, ["kaelix_wal"]))
        else:
            unviable.append(mutant)
        (COPY / mutant.path).write_text(text)
    return unviable


def explained():
    """The mutants of which the table in the documentation says why they survive, as patterns."""
    rows = re.findall(r"^\| `(src/[^`]*)` \|", DOC.read_text(), re.M)
    return [row.replace("\\|", "|") for row in rows]


def fits(name, pattern):
    """Is this one of the mutants that a row of the table names? `*` stands for anything."""
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), name) is not None


def listed(files):
    """All mutants, or those of `files`. (Its own option for files adds to the configured ones.)"""
    command = ["cargo", "mutants", "--list", "--json"]
    out = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    rows = json.loads(out.stdout)
    if unknown := set(files) - {row["file"] for row in rows}:
        sys.exit(f"mutants: nothing is to be changed in {', '.join(sorted(unknown))}")
    rows = [row for row in rows if not files or row["file"] in files]
    return [Mutant(number, row) for number, row in enumerate(rows, 1)]


def main():
    reasons = explained()
    mutants = listed(sys.argv[1:])
    left_out = [m for m in mutants if any(fits(m.name, row) for row in reasons)]
    mutants = [mutant for mutant in mutants if mutant not in left_out]
    copy = Copy()
    chosen = [mutant for mutant in mutants if mutant.function]
    chosen, unviable, unit_tests = build_viable(copy, chosen, ["--lib"])
    binaries = binaries_of(copy, unit_tests, ["kaelix_wal"])
    what = [f"--test={name}" for name in INTEGRATION]
    built, _ = copy.build(["--features", "simulation", *what])
    binaries += binaries_of(copy, built, INTEGRATION)
    print(f"==> tests: {len(chosen)} mutants", flush=True)
    left = try_all(chosen, binaries)
    if left:
        print(f"==> models: {len(left)} mutants", flush=True)
        left, _, built = build_viable(copy, left, MODELS)
        try_all(left, binaries_of(copy, built, ["loom"]))
    constants = [mutant for mutant in mutants if not mutant.function]
    print(f"==> constants: {len(constants)} mutants", flush=True)
    copy = Copy()
    unviable += try_constants(copy, constants)

    caught = [mutant for mutant in mutants if mutant.caught_by]
    hung = [mutant for mutant in caught if mutant.caught_by.startswith("hangs")]
    survivors = [m for m in mutants if not m.caught_by and m not in unviable]
    print(f"\n{len(mutants)} mutants: {len(caught) - len(hung)} caught, {len(hung)} hang a test, "
          f"{len(unviable)} do not compile, {len(survivors)} survive; "
          f"{len(left_out)} more, which have a reason to survive, were left out")
    for mutant in survivors:
        print(f"mutants: survives without a reason: {mutant.listed_name}")
    sys.exit(1 if survivors else 0)


if __name__ == "__main__":
    main()
