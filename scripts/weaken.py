"""Do the models miss anything? Weakens the shipped code in a copy, and sees which model fails.

    weaken.sh [FILTER]          each weakening whose name contains FILTER: the model that
                                loom-tests/weakened.txt names must fail
    weaken.sh --list            compares that file with the source, and runs nothing
    weaken.sh --orderings       the weakened orderings alone
    weaken.sh --mistakes        the other mistakes alone
    weaken.sh --quick           the listed model alone; what is listed to survive is left out
    weaken.sh --find [FILTER]   finds the first model that fails, and prints a line for the file

The weakenings are read off the source: each `Ordering::X` of code that ships becomes the next
weaker ones, each fence goes, and BREAKS adds mistakes of other kinds. So a new atomic has no line
in the file, and that is an error. A line may say `survives:` and why; then no model may fail.

All weakened orderings are in one build of the copy, which reads from the environment which of them
to use, and so are the mistakes that lie within a function, each as a body of it that can be chosen.
The others are a build each.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "loom-tests" / "weakened.txt"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "loom-tests" / "target")).resolve()
COPY = TARGET / "weakened"

# What the models are made of; it does not ship.
OURS = ["sync/", "model.rs", "region/modelled.rs", "region/simulated.rs", "tests/"]
WEAKER = {
    "Acquire": ["Relaxed"],
    "Release": ["Relaxed"],
    "AcqRel": ["Acquire", "Release"],
    "SeqCst": ["AcqRel"],
}
MODELS = ["ring", "recycle", "sleep", "durability", "streams", "idempotent"]
LIMIT_S = 150

# Mistakes that are no weakened ordering: (name, file, old text, new text).
BREAKS = [
    (
        "commits before the copy",
        "ring/claim.rs",
        """        let mut at = 0;
        for part in parts {""",
        """        self.commit_space(&space, claim.lsn, prepared.clone());
        let mut at = 0;
        for part in parts {""",
    ),
    (
        "commits a record before the pad behind it",
        "ring/claim.rs",
        """            claim.len = used;
            self.commit_pad(rest);
        }
        self.commit(claim, prepared)""",
        """            claim.len = used;
            let lsn = self.commit(claim, prepared);
            self.commit_pad(rest);
            return lsn;
        }
        self.commit(claim, prepared)""",
    ),
    (
        "publishes whatever it has walked to",
        "ring/publish.rs",
        "            if moved.is_ok() {",
        """            if moved.is_err() && walk.end > self.published() {
                self.published.store(walk.end, Ordering::Release);
            }
            if moved.is_ok() || walk.end >= self.published() {""",
    ),
    (
        "walks without a pin",
        "ring/publish.rs",
        "                Ok(_pin) => self.walk(start),",
        """                Ok(pin) => {
                    drop(pin);
                    self.walk(start)
                }""",
    ),
    (
        "pins without a second look at trimmed",
        "ring/mod.rs",
        "if lsn < self.trimmed() { Err(PinRefusal::Trimmed) } else { Ok(pin) }",
        "Ok(pin)",
    ),
    (
        "looks at the pins once",
        "ring/pins.rs",
        """            .iter()
            .chain(&self.slots)
""",
        """            .iter()
""",
    ),
    (
        "moves its pin before the record has one",
        "reader/mod.rs",
        """        match self.ring.pin_again(&self.pin, located.lsn) {""",
        """        self.pin.advance(self.ring.geometry().first_record(u32::MAX));
        match self.ring.pin_again(&self.pin, located.lsn) {""",
    ),
    (
        "recycles without a look at the pins",
        "ring/mod.rs",
        "self.pins.floor().map_or(trimmed, |pinned| pinned.min(trimmed))",
        "trimmed",
    ),
    (
        "does not zero",
        "segments/prepare.rs",
        "unsafe { zero(region, start + 8..start + geometry.segment_size(), goes_on) };",
        "unsafe { zero(region, start + 8..start + 16, goes_on) };",
    ),
    (
        "zeroes after the header",
        "segments/prepare.rs",
        """    let zeroed = unsafe { zero(region, start + 8..start + geometry.segment_size(), goes_on) };
    if !zeroed {
        return false;
    }
    // SAFETY: as above: the header behind its sequence word.
    unsafe { region.write(start + 8, rest) };
""",
        """    unsafe { region.write(start + 8, rest) };
    // SAFETY: as above.
    unsafe { zero(region, start + 8..start + geometry.segment_size(), goes_on) };
""",
    ),
    (
        "prepares before it has zeroed",
        "segments/janitor.rs",
        """        let prepared = unsafe {
            prepare_segment(ring.region(), ring.geometry(), ring.identity(), sequence, || {
                self.let_others_run();
                !self.is_stopped()
            })
        };
        if !prepared {
            return Ok(Step::Stopped);
        }
        ring.advance_prepared(sequence);
""",
        """        ring.advance_prepared(sequence);
        // SAFETY: none.
        unsafe { prepare_segment(ring.region(), ring.geometry(), ring.identity(), sequence, || true) };
""",
    ),
    (
        "moves durable before the sync returns",
        "durability/mod.rs",
        "        for range in with_footer(",
        """        self.ring.advance_durable(durable, next);
        let durable = next;
        for range in with_footer(""",
    ),
    (
        "does not hand over the lead",
        "durability/mod.rs",
        """        drop(flush);
        self.hand_over();
        result.map_err""",
        """        drop(flush);
        result.map_err""",
    ),
    (
        "follows without a second try to lead",
        "durability/mod.rs",
        "        let free = try_lock(&self.flush);",
        "        let free = None;",
    ),
    (
        "takes the lead's lock for a look at the time",
        "durability/flusher.rs",
        "        self.look_behind()\n    }\n\n    /// Rule 2.",
        """        let looked = self.look_behind();
        let look = lock(&self.flush);
        self.ring.durable();
        drop(look);
        looked
    }

    /// Rule 2.""",
    ),
    (
        "takes the lead's lock for a look",
        "durability/mod.rs",
        "        let free = try_lock(&self.flush);\n",
        """        if let Some(_flush) = try_lock(&self.flush) {
            self.ring.durable();
            return None;
        }
        let free = None;
""",
    ),
    (
        "raises durable before it has written back",
        "durability/persistent.rs",
        """            self.persist(range)?;
            if self.ring.raise_durable(next) {""",
        """            let raised = self.ring.raise_durable(next);
            self.persist(range)?;
            if raised {""",
    ),
    (
        "writes back its own record alone",
        "durability/persistent.rs",
        "geometry.first_bytes(from, target);",
        """geometry.first_bytes(from, target);
            let range = range.end - 32..range.end;""",
    ),
    (
        "publishes its own record whatever comes before it",
        "ring/publish.rs",
        "let moved = self.published.compare_exchange(lsn, ",
        "let moved = self.published.compare_exchange(self.published().min(lsn), ",
    ),
    (
        "does not fence what it has written back",
        "segments/slots.rs",
        "syncer.write_back(range).and_then(|()| syncer.fence())",
        "syncer.write_back(range)",
    ),
    (
        "wakes nobody who watches durable",
        "durability/persistent.rs",
        "while self.ring.take_durable_watched() {",
        "while false {",
    ),
    (
        "sleeps without saying that it watches durable",
        "reader/tail.rs",
        "        ring.watch_durable();\n",
        "",
    ),
    (
        "announces a tail's sleep before it has registered",
        "reader/tail.rs",
        """    let waiter = reader.ring.tail_readers.register(0);
    match look_again(reader) {""",
        """    let sleep = look_again(reader);
    let waiter = reader.ring.tail_readers.register(0);
    match sleep {""",
    ),
    (
        "announces the flusher's sleep after the flag",
        "ring/mod.rs",
        """        self.flusher_asleep.store(true, Ordering::Relaxed);
        self.position(self.tail.transition_set(SLEEPER))
""",
        """        let before = self.tail.transition_set(SLEEPER);
        self.flusher_asleep.store(true, Ordering::Relaxed);
        self.position(before)
""",
    ),
    (
        "clears the sleepers' flag before the commit",
        "ring/claim.rs",
        """        self.commit_space(&space, claim.lsn, prepared);
        if claim.wake {
            self.wake_sleepers();
        }
        claim.lsn
    }

    #[inline]
    fn space""",
        """        if claim.wake {
            self.wake_sleepers();
        }
        self.commit_space(&space, claim.lsn, prepared);
        claim.lsn
    }

    #[inline]
    fn space""",
    ),
    (
        "does not wake whom its claim found asleep",
        "ring/claim.rs",
        "wake: before.flags() & SLEEPER != 0",
        "wake: false",
    ),
    (
        "sleeps without a second look",
        "reader/tail.rs",
        "    if has_news(reader, at) {\n        return Sleep::No;",
        "    if false {\n        return Sleep::No;",
    ),
    (
        "sleeps long while older claims are open",
        "reader/tail.rs",
        "(reserved > at && !waits_for_sync)",
        "(reserved > at && waits_for_sync)",
    ),
    (
        "lets a claim through that came after the freeze",
        "ring/claim.rs",
        "if before.flags() == 0 && ",
        "if before.flags() & SLEEPER == 0 && ",
    ),
    (
        "ends a tail before its last look",
        "reader/tail.rs",
        """            if let Some(located) = self.reader.step_to_shown()? {
                return Ok(Some(self.reader.lend(located)));
            }
            if ended {""",
        """            if let Some(located) = self.reader.step_to_shown()? {
                return Ok(Some(self.reader.lend(located)));
            }
            if ended || has_ended(&self.reader) {""",
    ),
    (
        "ends a hold before the commit",
        "stream/mod.rs",
        """        let lsn = self.parts.producer.append(&self.label, payload)?;
        hold.advance(lsn);
        Ok(lsn)""",
        """        let lsn = self.parts.streams.ring().reserved();
        hold.advance(lsn);
        drop(hold);
        self.parts.producer.append(&self.label, payload)""",
    ),
    (
        "looks at the version before it holds it",
        "stream/mod.rs",
        """        let hold = self.hold(version)?;
        let expected = expected.unwrap_or(Lsn::ZERO);
        if hold.last() != expected {""",
        """        let before = version.last();
        let hold = self.hold(version)?;
        let expected = expected.unwrap_or(Lsn::ZERO);
        if before != expected {""",
    ),
    (
        "sleeps without a second look at the hold",
        "stream/version.rs",
        "if self.0.fetch_or(WAITED, Ordering::Relaxed) & HELD != 0 {",
        "if self.0.fetch_or(WAITED, Ordering::Relaxed) | HELD != 0 {",
    ),
    (
        "says that it waits before it is on the list",
        "stream/version.rs",
        """        let waiter = waiters.register(0);
        // Relaxed: the list's lock hands over what there is to hand over; the word's own order
        // decides who sees whom.
        if self.0.fetch_or(WAITED, Ordering::Relaxed) & HELD != 0 {""",
        """        let before = self.0.fetch_or(WAITED, Ordering::Relaxed);
        let waiter = waiters.register(0);
        if before & HELD != 0 {""",
    ),
    (
        "sleeps without a word",
        "stream/version.rs",
        "if self.0.fetch_or(WAITED, Ordering::Relaxed) & HELD != 0 {",
        "if self.0.load(Ordering::Relaxed) & HELD != 0 {",
    ),
    (
        "ends a hold by a store",
        "stream/version.rs",
        "let word = self.version.0.swap(self.last.get(), Ordering::Release);",
        """let word = self.version.0.load(Ordering::Relaxed);
        self.version.0.store(self.last.get(), Ordering::Release);""",
    ),
    (
        "holds streams in the order of the batch",
        "stream/streams.rs",
        """        touched.sort_unstable();
        touched.dedup();
""",
        "        touched.dedup();\n",
    ),
    (
        "appends the entries of a batch one by one",
        "producer.rs",
        "        let (len, stream) = measure(entries.clone()).ok_or(AppendError::EmptyBatch)?;",
        """        let mut last = None;
        for entry in entries.clone() {
            let label = self.ring.label(RecordKind::Data, entry.stream, 0);
            last = Some(self.append(&label, entry.payload)?);
        }
        if let Some(last) = last {
            return Ok(last);
        }
        let (len, stream) = measure(entries.clone()).ok_or(AppendError::EmptyBatch)?;""",
    ),
    (
        "tells of a stream before its version is there",
        "stream/streams.rs",
        """        for id in versioned {
            if let""",
        """        self.index.set_known(known);
        for id in versioned {
            if let""",
    ),
    (
        "counts the streams before it follows the log",
        "stream/index.rs",
        "                            streams = known();\n",
        "",
    ),
    (
        "believes a version that is held",
        "stream/streams.rs",
        "if versions.iter().all(|(_, version)| !version.is_held()) {",
        "if versions.iter().all(|(_, version)| !version.is_held() || true) {",
    ),
]


def is_shipped(path):
    """Is this file, by its path below src/, part of what ships and does its models run it?"""
    return not any(path == ours or (ours[-1] == "/" and path.startswith(ours)) for ours in OURS)


def shipped_code(text):
    """The text with comments and unit tests blanked, offsets unchanged."""
    tests = re.search(r"^#\[cfg\(test\)\]\nmod tests \{", text, re.M)
    if tests:
        text = text[: tests.start()] + " " * (len(text) - tests.start())
    return re.sub(r"//[^\n]*", lambda comment: " " * len(comment[0]), text)


def weakenings():
    """The weakened orderings, as (name, file, start, end, whole, weaker), from the source. What is
    weakened to None is a fence that goes."""
    found = []
    for file in sorted((ROOT / "src").rglob("*.rs")):
        path = str(file.relative_to(ROOT / "src"))
        if not is_shipped(path):
            continue
        code = shipped_code(file.read_text())
        functions = [(match.start(), match[1]) for match in re.finditer(r"\bfn (\w+)", code)]
        seen = {}

        def add(what, span, whole, weaker):
            function = [name for at, name in functions if at < span[0]][-1]
            name = f"{path} {function}: {what}"
            seen[name] = seen.get(name, 0) + 1
            if seen[name] > 1:
                name += f" ({seen[name]})"
            found.append((name, path, *span, whole, weaker))

        fences = list(re.finditer(r"\b((?:compiler_)?fence)\(Ordering::(\w+)\);", code))
        for fence in fences:
            add(f"no {fence[1]}({fence[2]})", fence.span(), fence[0], None)
            for weaker in WEAKER[fence[2]] if fence[2] == "SeqCst" else []:
                add(f"{fence[1]} {fence[2]} -> {weaker}", fence.span(), fence[0], weaker)
        for access in re.finditer(r"\bOrdering::(\w+)", code):
            if any(fence.start() <= access.start() < fence.end() for fence in fences):
                continue
            for weaker in WEAKER.get(access[1], []):
                add(f"{access[1]} -> {weaker}", access.span(), access[0], weaker)
    return found


def breaks():
    """BREAKS, each as (name, file, the file's broken text)."""
    broken = []
    for name, path, old, new in BREAKS:
        text = (ROOT / "src" / path).read_text()
        if text.count(old) != 1:
            sys.exit(f"weaken: BREAKS, {name}: its text is found {text.count(old)} times in {path}")
        broken.append((f"{path}: {name}", path, text.replace(old, new)))
    return broken


def body_of(text, start, end):
    """The body, without its braces, of the function in which a change of `text` lies; or None."""
    heads = re.finditer(r"^ *(?:pub(?:\([^)]*\))? )?(?:unsafe )?fn ", text, re.M)
    for head in reversed([head for head in heads if head.end() <= start]):
        brackets = []
        for token in re.finditer(SKIPPED + r"|[][(){};]", text[head.end() :]):
            at, token = head.end() + token.start(), token[0]
            if token in "([{":
                brackets.append((token, at))
            elif token in ")]}":
                opened, since = brackets.pop()
                if opened == "{" and not brackets:
                    if since < start and end <= at:
                        return since + 1, at
                    break
            elif token == ";" and not brackets:
                break
    return None


# What has no brackets that count: comments, strings, characters.
SKIPPED = r"""//[^\n]*|"(?:[^"\\]|\\.)*"|'(?:[^'\\\n]|\\.)'"""


def changed_span(old, new):
    """Where `old` differs from `new`: from, to, counted from the start and from the end."""
    start = len(os.path.commonprefix([old, new]))
    behind = len(os.path.commonprefix([old[start:][::-1], new[start:][::-1]]))
    return start, behind


def choosable_mistakes(broken):
    """Of mistakes (number, file, broken text), those that are within a function: for each file its
    text with all of them, and their numbers."""
    bodies = {}
    for number, path, text in broken:
        whole = (ROOT / "src" / path).read_text()
        start, behind = changed_span(whole, text)
        if span := body_of(whole, start, len(whole) - behind):
            broken_body = text[span[0] : span[1] + len(text) - len(whole)]
            bodies.setdefault(path, {}).setdefault(span, []).append((number, broken_body))
    texts, numbers = {}, set()
    for path, spans in bodies.items():
        text = (ROOT / "src" / path).read_text()
        for (start, end), choices in sorted(spans.items(), reverse=True):
            arms = "".join(
                f"if crate::sync::is_chosen({number}) {{{body}}} else " for number, body in choices
            )
            text = f"{text[:start]}\n{arms}{{{text[start:end]}}}\n{text[end:]}"
            numbers |= {number for number, _ in choices}
        texts[path] = text
    return texts, numbers


def read_table():
    """What the file expects of each weakening."""
    expected = {}
    for number, line in enumerate(TABLE.read_text().splitlines(), 1):
        if line and not line.startswith("#"):
            name, separator, outcome = line.partition(" = ")
            if not separator or name in expected:
                sys.exit(f"weaken: {TABLE.name}:{number}: not `name = outcome`, or there twice")
            expected[name] = outcome
    return expected


def compare(names, expected):
    """Complaints about the table, against the source and against the models that there are."""
    models = set()
    for file in MODELS:
        text = (ROOT / "loom-tests" / "tests" / "loom" / f"{file}.rs").read_text()
        models |= {f"{file}::{name}" for name in re.findall(r"#\[test\]\nfn (\w+)", text)}
    complaints = [f"no line for: {name}" for name in names if name not in expected]
    complaints += [f"a line for nothing: {name}" for name in expected if name not in names]
    for name, outcome in expected.items():
        if outcome not in models and not outcome.startswith("survives: "):
            complaints.append(f"{name}: there is no model {outcome}")
    return complaints


# Added to the copy's shim: the chosen weakening, by its number.
CHOICE = """
pub fn weakened(choices: &[(usize, Ordering)], whole: Ordering) -> Ordering {
    let chosen = choices.iter().find(|(number, _)| Some(*number) == choice());
    chosen.map_or(whole, |(_, weaker)| *weaker)
}

pub fn is_chosen(number: usize) -> bool {
    Some(number) == choice()
}

fn choice() -> Option<usize> {
    static CHOICE: std::sync::OnceLock<Option<usize>> = std::sync::OnceLock::new();
    *CHOICE.get_or_init(|| std::env::var("KAELIX_WEAKEN").ok()?.parse().ok())
}
"""


class Copy:
    """The copy of the tree in which things are weakened."""

    def __init__(self):
        shutil.rmtree(COPY, ignore_errors=True)
        kept = ["Cargo.toml", "Cargo.lock", "README.md", "src", "cli", "benches", "tests"]
        kept += [f"loom-tests/{name}" for name in ["Cargo.toml", "Cargo.lock", "src", "tests"]]
        for name in kept:
            source, target = ROOT / name, COPY / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
        flags = os.environ.get("RUSTFLAGS", "") + " --cfg wal_loom --allow warnings"
        self.env = dict(os.environ, RUSTFLAGS=flags.strip(), RUST_BACKTRACE="0")
        self.env["CARGO_TARGET_DIR"] = str(TARGET)

    def write(self, path, text):
        (COPY / "src" / path).write_text(text)

    def restore(self, path):
        shutil.copy(ROOT / "src" / path, COPY / "src" / path)

    def make_choosable(self, found):
        """Puts all of the weakened orderings in, by their number."""
        places = {}
        for number, (_, path, start, end, whole, weaker) in enumerate(found):
            places.setdefault((path, start, end, whole), []).append((number, weaker))
        for path in sorted({path for path, *_ in places}):
            text = (ROOT / "src" / path).read_text()
            here = [(place, choices) for place, choices in places.items() if place[0] == path]
            for (_, start, end, whole), choices in sorted(here, reverse=True):
                text = text[:start] + choosable(whole, choices) + text[end:]
            self.write(path, text)
        self.write_choice()

    def write_choice(self):
        """Lets the environment choose."""
        self.write("sync/mod.rs", (ROOT / "src" / "sync" / "mod.rs").read_text() + CHOICE)

    def build(self):
        """Builds the models; returns their binary."""
        build = ["cargo", "test", "--locked", "--no-run", "--test", "loom"]
        done = subprocess.run(
            build, cwd=COPY / "loom-tests", env=self.env, capture_output=True, text=True
        )
        binary = re.search(r"Executable.*\((.*)\)", done.stderr)
        if done.returncode != 0 or not binary:
            sys.exit(f"weaken: it does not build:\n{done.stderr}")
        return binary[1]


def choosable(whole, choices):
    """A place in the source at which one of the numbered choices can be made."""
    if not whole.endswith(";"):
        weaker = ", ".join(f"({number}, Ordering::{weaker})" for number, weaker in choices)
        return f"crate::sync::weakened(&[{weaker}], {whole})"
    fence = whole.partition("(")[0]
    gone = [number for number, weaker in choices if weaker is None]
    for number, weaker in choices:
        if weaker:
            replaced = f"{fence}(Ordering::{weaker});"
            whole = f"if crate::sync::is_chosen({number}) {{ {replaced} }} else {{ {whole} }}"
    return f"if !crate::sync::is_chosen({gone[0]}) {{ {whole} }}"


class Models:
    """A build of the models, with or without a choice."""

    def __init__(self, copy, binary, number=None):
        self.binary = binary
        self.env = copy.env if number is None else dict(copy.env, KAELIX_WEAKEN=str(number))

    def fails(self, model):
        """Does the model fail? One that does not end says nothing."""
        try:
            run = [self.binary, "--exact", model]
            done = subprocess.run(run, env=self.env, capture_output=True, timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            return False
        return done.returncode != 0

    def first_failure(self, listed, is_quick):
        """The first model that fails, the listed one before all others; or None."""
        if is_quick:
            return listed if self.fails(listed) else None
        out = subprocess.run([self.binary, "--list"], capture_output=True, text=True, check=True)
        models = re.findall(r"^(\w+::\w+): test$", out.stdout, re.M)
        models.sort(key=lambda model: (model != listed, MODELS.index(model.split("::")[0])))
        return next((model for model in models if self.fails(model)), None)


def report(name, failed, listed):
    """Prints what happened; true if that is what is listed (or nothing was)."""
    survives = failed is None
    good = listed is None or survives == listed.startswith("survives: ")
    good = good and (survives or listed in (None, failed))
    line = f"{name} = {failed or listed or 'survives: WHY?'}"
    if not good:
        line += "    WRONG: it survives" if survives else f"    WRONG: listed is {listed}"
    print(line, flush=True)
    return good


def try_mistakes(chosen, expected, is_quick):
    """Runs the models on each mistake; how many are not as listed."""
    copy, wrong = Copy(), 0
    numbered = [(number, path, text) for number, (_, path, text) in enumerate(chosen)]
    texts, together = choosable_mistakes(numbered)
    for path, text in texts.items():
        copy.write(path, text)
    copy.write_choice()
    binary = copy.build()
    for number, (name, *_) in enumerate(chosen):
        if number in together:
            failed = Models(copy, binary, number).first_failure(expected[name], is_quick)
            wrong += not report(name, failed, expected[name])
    for path in [*texts, "sync/mod.rs"]:
        copy.restore(path)
    for number, (name, path, text) in enumerate(chosen):
        if number not in together:
            copy.write(path, text)
            failed = Models(copy, copy.build()).first_failure(expected[name], is_quick)
            copy.restore(path)
            wrong += not report(name, failed, expected[name])
    return wrong


def main():
    arguments = sys.argv[1:]
    flags = [argument for argument in arguments if argument.startswith("--")]
    words = [argument for argument in arguments if not argument.startswith("--")]
    known = ["--list", "--find", "--orderings", "--mistakes", "--quick"]
    if len(words) > 1 or any(flag not in known for flag in flags):
        sys.exit(__doc__)
    wanted = words[0] if words else ""
    found, broken = weakenings(), breaks()
    names = [name for name, *_ in found + broken]
    expected = read_table() if TABLE.exists() else {}
    if "--find" in flags:
        expected = dict.fromkeys(names)
    elif complaints := compare(names, expected):
        sys.exit("weaken: " + "\nweaken: ".join(complaints))
    if "--list" in flags:
        survivors = sum(outcome.startswith("survives: ") for outcome in expected.values())
        print(f"{len(names)} weakenings are listed, {survivors} of them with a reason to survive.")
        return
    is_quick, wrong = "--quick" in flags, 0

    def is_wanted(name):
        survives = (expected[name] or "").startswith("survives: ")
        return wanted in name and not (is_quick and survives)

    if any(is_wanted(name) for name, *_ in found) and "--mistakes" not in flags:
        copy = Copy()
        copy.make_choosable(found)
        binary = copy.build()
        for number, (name, *_) in enumerate(found):
            if is_wanted(name):
                failed = Models(copy, binary, number).first_failure(expected[name], is_quick)
                wrong += not report(name, failed, expected[name])
    chosen = [row for row in broken if is_wanted(row[0]) and "--orderings" not in flags]
    wrong += try_mistakes(chosen, expected, is_quick) if chosen else 0
    if wrong:
        sys.exit(f"weaken: {wrong} not as listed")


if __name__ == "__main__":
    main()
