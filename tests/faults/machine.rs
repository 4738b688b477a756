//! What the tests ask of the machine: processes, namespaces, injected faults.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal};

use crate::common::{Place, wait_until};

/// Task and directory, if this process is a child.
pub fn orders() -> Option<(String, PathBuf)> {
    let task = std::env::var("KAELIX_FAULTS_TASK").ok()?;
    Some((task, std::env::var_os("KAELIX_FAULTS_DIR")?.into()))
}

/// Tells the parent.
pub fn say(text: impl std::fmt::Display) {
    let text = format!("{text}\n");
    std::io::stderr().write_all(text.as_bytes()).expect("the parent reads this");
}

/// Says what was not tested, past the capture of a passing test's output.
pub fn skip(test: &str, lacks: &str) {
    say(format_args!("{test}: SKIPPED, this machine lacks {lacks}"));
}

/// This binary as a child that runs `task` in `dir`, started by way of `through`.
pub fn task(through: &[&str], task: &str, dir: &Path) -> Command {
    let exe = std::env::current_exe().expect("this binary has a path");
    task_of(&exe, through, task, dir)
}

fn task_of(exe: &Path, through: &[&str], task: &str, dir: &Path) -> Command {
    let mut command = match through {
        [] => Command::new(exe),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(exe);
            command
        }
    };
    // In one thread, the child's first: system calls are counted for each thread.
    command.args(["child", "--exact", "--nocapture", "--test-threads=1"]);
    command.env("KAELIX_FAULTS_TASK", task).env("KAELIX_FAULTS_DIR", dir).stdin(Stdio::null());
    command
}

/// How a child ended, and what it said.
#[derive(Debug)]
pub struct Outcome {
    pub status: ExitStatus,
    pub said: String,
}

impl Outcome {
    pub fn of(mut command: Command) -> Outcome {
        let output = command.output().expect("a child can be started");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Outcome { status: output.status, said }
    }

    /// What the child said in its lines that begin with `word`.
    pub fn says(&self, word: &str) -> Option<&str> {
        self.said.lines().find_map(|line| line.strip_prefix(word)).map(str::trim)
    }

    /// It ran to its end, and no assertion in it failed.
    pub fn expect_success(&self, what: &str) {
        assert!(self.status.success(), "{what}: {}\n{}", self.status, self.said);
    }

    pub fn killed_by(&self) -> Option<i32> {
        self.status.signal()
    }
}

/// Is `program` there?
fn has(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|path| path.join(program).is_file())
}

/// The words that start a program in a mount namespace of its own, where it may mount; `None`
/// where neither root nor a user namespace may.
pub fn mount_namespace() -> Option<Vec<&'static str>> {
    let ways: [&[&str]; 2] =
        [&["unshare", "--mount"], &["unshare", "--user", "--map-root-user", "--mount"]];
    let place = Place::new();
    fs::create_dir(&place.path).expect("a directory can be made");
    let works = |way: &[&str]| {
        let mut probe = Command::new(way[0]);
        probe.args(&way[1..]).args(["mount", "-t", "tmpfs", "probe"]).arg(&place.path);
        probe.output().is_ok_and(|output| output.status.success())
    };
    ways.into_iter().find(|way| works(way)).map(<[&str]>::to_vec)
}

/// Runs `task` in a mount namespace of its own; its mounts end with it. The child's assertions
/// are the test.
pub fn run_with_mounts(test: &str, name: &str) {
    let Some(way) = mount_namespace() else {
        return skip(test, "the right to mount a file system");
    };
    let place = Place::new();
    fs::create_dir(&place.path).expect("a directory can be made");
    Outcome::of(task(&way, name, &place.path)).expect_success(test);
}

/// Runs a program that must succeed.
pub fn must(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().expect("the program is there");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {}: {said}", arguments.join(" "));
}

/// Runs `task` without the right to pass over permissions: as nobody, where this is root.
pub fn run_powerless(place: &Place, name: &str) -> Outcome {
    let root = place.path.parent().expect("a place has a root");
    let mut command = task(&[], name, &place.path);
    if rustix::process::geteuid().is_root() {
        let exe = root.join("faults");
        let original = std::env::current_exe().expect("this binary has a path");
        if !exe.exists() {
            // By another process: what this one has open for writing, a child that another thread
            // starts may hold for a moment, and then it cannot be executed.
            let [from, to] = [&original, &exe].map(|path| path.to_str().expect("paths are text"));
            must("cp", &[from, to]);
            fs::set_permissions(&exe, fs::Permissions::from_mode(0o755)).expect("it is ours");
        }
        fs::set_permissions(root, fs::Permissions::from_mode(0o755)).expect("it is ours");
        command = task_of(&exe, &[], name, &place.path);
        command.uid(65534).gid(65534).current_dir("/");
    }
    Outcome::of(command)
}

/// What `strace` does to the n-th call of one kind, counted among those that touch the log.
#[derive(Clone, Copy, Debug)]
pub struct Injection {
    pub call: &'static str,
    pub when: u32,
    /// All from the n-th on, too.
    pub onwards: bool,
    /// "error=EIO", "signal=KILL", "signal=STOP".
    pub fault: &'static str,
}

/// Is there an `strace` that may inject faults here?
pub fn has_strace() -> bool {
    let probe = ["-qq", "-o", "/dev/null", "-e", "inject=getppid:error=EPERM", "true"];
    has("strace") && Command::new("strace").args(probe).status().is_ok_and(|it| it.success())
}

/// Calls that name no file, so that they cannot be counted by path.
const PATHLESS: &[&str] = &["msync", "clone3"];

/// `task` under `strace`, and the file to which that reports.
fn traced(place: &Place, name: &str, injection: Injection) -> (Command, PathBuf) {
    let Injection { call, when, onwards, fault } = injection;
    let report = place.beside("strace");
    // Left by an earlier run in this place, it would be read as this one's.
    let _ = fs::remove_file(&report);
    let trace = format!("trace={call}");
    let onwards = if onwards { "+" } else { "" };
    let inject = format!("inject={call}:{fault}:when={when}{onwards}");
    let dir = place.path.to_str().expect("temporary paths are text");
    let parent = place.path.parent().and_then(Path::to_str).expect("a place has a root");
    let files = ["ring", "ring.new", "lock", "parity", "streams.a", "streams.b"]
        .map(|file| format!("{dir}/{file}"));
    let report_path = report.to_str().expect("temporary paths are text");
    let mut through = vec!["strace", "-f", "-qqq", "-o", report_path, "-e", &trace, "-e", &inject];
    if !PATHLESS.contains(&call) {
        let paths = files.iter().map(String::as_str).chain([dir, parent]);
        through.extend(paths.flat_map(|path| ["-P", path]));
    }
    (task(&through, name, &place.path), report)
}

/// Runs `task` with a fault; false if it ended before the fault's turn came.
pub fn run_with_fault(place: &Place, name: &str, injection: Injection) -> (Outcome, bool) {
    let (command, report) = traced(place, name, injection);
    let outcome = Outcome::of(command);
    let report = fs::read_to_string(report).expect("strace reports");
    let struck = report.contains("(INJECTED)") || outcome.killed_by() == Some(9);
    (outcome, struck)
}

/// A child that stands still in the middle of its task.
pub struct Stopped {
    strace: Child,
    /// Until it goes on.
    pid: Option<Pid>,
    errors: PathBuf,
}

/// Runs `task` until just behind the n-th `call`.
pub fn stop_behind(place: &Place, name: &str, call: &'static str, when: u32) -> Stopped {
    let (mut command, report) =
        traced(place, name, Injection { call, when, onwards: false, fault: "signal=STOP" });
    let errors = place.beside("errors");
    let mut strace = command
        .stdout(Stdio::null())
        .stderr(File::create(&errors).expect("a file for its errors"))
        .spawn()
        .expect("strace can be started");
    let mut pid = None;
    wait_until("the child has stopped", || {
        let report = fs::read_to_string(&report).unwrap_or_default();
        let stopped = report.lines().find(|line| line.contains("--- stopped by SIGSTOP ---"));
        pid = stopped.and_then(|line| line.split_whitespace().next()?.parse().ok());
        let ended = strace.try_wait().expect("it is ours");
        assert!(ended.is_none(), "it ended before: {}", fs::read_to_string(&errors).expect("said"));
        pid.is_some()
    });
    // It is the thread's, and the whole process has stopped.
    let thread: i32 = pid.expect("it has stopped");
    let status = fs::read_to_string(format!("/proc/{thread}/status")).expect("it is there");
    let pid = status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok());
    let pid = pid.and_then(Pid::from_raw);
    assert!(pid.is_some(), "no process id in {status}");
    Stopped { strace, pid, errors }
}

impl Stopped {
    /// Lets it go on to its end.
    pub fn go_on(mut self) -> Outcome {
        let pid = self.pid.take().expect("it goes on once");
        rustix::process::kill_process(pid, Signal::CONT).expect("it is ours");
        let status = self.strace.wait().expect("it is ours");
        let said = fs::read_to_string(&self.errors).expect("it said something");
        Outcome { status, said }
    }
}

impl Drop for Stopped {
    /// Where an assertion failed meanwhile, nothing is left standing still for ever.
    fn drop(&mut self) {
        if let Some(pid) = self.pid.take() {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
            let _ = self.strace.wait();
        }
    }
}
