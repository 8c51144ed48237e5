//! Rules of `docs/style.md` that the compiler cannot check. Each failure names the lines and the remedy.

mod source;

use source::{files, library, read, root, rust_files, words};

/// The modules of `src/` from the bottom up. A module may use those of lower rows, and itself.
const LAYERS: &[&[&str]] = &[
    &["ids", "sync"],
    &["sys", "wire"],
    &["buffers", "error", "nesting", "limiter", "ready", "shared"],
    &["payload"],
    &["board"],
    &["argument", "callbacks", "mailbox", "options", "transport"],
    &["slot"],
    &["task_context"],
    &["work", "worker"],
    &["launch"],
    &["supervisor"],
    &["attempt", "call", "future"],
    &["messages", "pool"],
    &["task", "waitfor"],
    &["first_ok", "hydra"],
    &["parallel"],
    &["private"],
];

/// Pairs that must not meet although their rows would let them.
const STRANGERS: &[(&str, &str)] = &[("supervisor", "worker")];

/// Pure code: no clock, no I/O, no thread, no lock.
const PURE: &[&str] = &[
    "src/wire/",
    "src/supervisor/state.rs",
    "src/supervisor/pool_state.rs",
];
const IMPURE: &[&str] = &[
    "std::time::Instant::now",
    "Instant::now",
    "std::time::SystemTime",
    "std::fs",
    "std::net",
    "std::process",
    "std::env",
    "std::thread",
    "std::sync::Mutex",
    "std::sync::RwLock",
    "std::sync::Condvar",
    "std::sync::OnceLock",
    "std::sync::atomic",
    "libc",
    "nix",
];

/// Where `unsafe` and platform switches live.
const PLATFORM: &[&str] = &["src/sys/", "src/worker/ctor.rs"];
const PLATFORM_WORDS: &[&str] = &[
    "unix",
    "windows",
    "target_os",
    "target_family",
    "target_vendor",
    "target_env",
    "target_arch",
    "target_pointer_width",
];
/// Lines outside `PLATFORM` that may say so all the same: file, a word of the line, and why.
const EXCEPTIONS: &[(&str, &str, &str)] = &[(
    "src/task.rs",
    "pub unsafe fn allow_fork_with_threads",
    "a promise that is asked of the caller; nothing unsafe is done",
)];

const MAX_LINES_OF_CODE: usize = 600;
const MAX_LINES_OF_AN_EXAMPLE: usize = 160;

#[test]
fn arrows_between_modules_point_down() {
    let layer_of = |module: &str| LAYERS.iter().position(|row| row.contains(&module));
    let mut problems = Vec::new();
    for file in library().filter(|file| file.name != "src/lib.rs") {
        let Some(here) = file.module().first().cloned() else {
            continue;
        };
        let Some(layer) = layer_of(&here) else {
            problems.push(format!("{}:1: `{here}` has no row in LAYERS", file.name));
            continue;
        };
        for path in file.paths() {
            let Some(there) = file.resolve(&path) else {
                continue;
            };
            let is_stranger = STRANGERS
                .iter()
                .any(|&(a, b)| (a == here && b == there) || (b == here && a == there));
            let complaint = match layer_of(&there) {
                // An exported macro stands at the root, wherever it was written.
                _ if there == here || there.starts_with("__") => continue,
                Some(_) if is_stranger => "they meet only in `wire`",
                Some(other) if other < layer => continue,
                Some(_) => "that points up, or sideways",
                None => {
                    "name the module that owns it, not the root's re-export, or give the module a row in LAYERS"
                }
            };
            problems.push(format!(
                "{}:{}: `{here}` uses `{there}`: {complaint}",
                file.name, path.line
            ));
        }
    }
    report(
        problems,
        "Move the shared item down to the layer that owns its idea, or pass it in as an argument. A new arrow needs a \
         decision record and a change of LAYERS in tests/tidy/main.rs.",
    );
}

#[test]
fn wire_and_the_state_machine_are_pure() {
    let mut problems = Vec::new();
    for file in library().filter(|file| PURE.iter().any(|place| file.name.starts_with(place))) {
        for path in file.paths() {
            let text = path.segments.join("::");
            let is = |banned: &&&str| text == ***banned || text.starts_with(&format!("{banned}::"));
            if let Some(banned) = IMPURE.iter().find(is) {
                problems.push(format!("{}:{}: `{banned}`", file.name, path.line));
            }
        }
    }
    report(
        problems,
        "Take the time, the bytes or the outcome as an argument, and leave the doing to the event loop.",
    );
}

#[test]
fn unsafe_and_platform_switches_stay_in_sys() {
    let mut problems = Vec::new();
    for file in library().filter(|file| !PLATFORM.iter().any(|place| file.name.starts_with(place))) {
        for (line, code) in file.code_lines() {
            let is_excepted =
                |&(name, word, _): &(&str, &str, &str)| name == file.name && code.contains(word);
            if EXCEPTIONS.iter().any(is_excepted) {
                continue;
            }
            let words: Vec<&str> = words(code).collect();
            let has_switch = words.iter().any(|word| word.starts_with("cfg"));
            if words.contains(&"unsafe") {
                problems.push(format!("{}:{line}: `unsafe`", file.name));
            } else if let Some(word) = PLATFORM_WORDS
                .iter()
                .find(|word| has_switch && words.contains(word))
            {
                problems.push(format!("{}:{line}: a switch on `{word}`", file.name));
            }
        }
    }
    report(
        problems,
        "Give `sys` a safe function with the same signature on every platform, and call that. Where the language \
         leaves no choice, add the line to EXCEPTIONS in tests/tidy/main.rs with its reason.",
    );
}

#[test]
fn files_are_short() {
    let mut problems = Vec::new();
    for file in
        rust_files(&["src", "macros/src", "worker-bin/src", "bench/src"]).filter(|file| !file.is_test())
    {
        let length = file
            .code_lines()
            .filter(|(_, code)| !code.trim().is_empty())
            .count();
        if length > MAX_LINES_OF_CODE {
            problems.push(format!("{}:1: {length} lines of code", file.name));
        }
    }
    report(
        problems,
        &format!("More than {MAX_LINES_OF_CODE} lines of code are two ideas: give each a file."),
    );
}

#[test]
fn examples_are_short() {
    let mut problems = Vec::new();
    for file in rust_files(&["examples"]) {
        let length = file
            .code_lines()
            .filter(|(_, code)| !code.trim().is_empty())
            .count();
        if length > MAX_LINES_OF_AN_EXAMPLE {
            problems.push(format!("{}:1: {length} lines of code", file.name));
        }
    }
    report(
        problems,
        &format!("An example file shows one idea in at most {MAX_LINES_OF_AN_EXAMPLE} lines of code."),
    );
}

#[test]
fn files_begin_with_their_job() {
    let mut problems = Vec::new();
    for file in rust_files(&[
        "src",
        "macros/src",
        "worker-bin/src",
        "bench/src",
        "examples",
        "tests",
        "worker-bin/tests",
    ])
    .filter(|file| !file.name.starts_with("tests/ui/") && !file.is_test())
    {
        if !file.text.starts_with("//! ") {
            problems.push(format!("{}:1: does not begin with `//! `", file.name));
        }
    }
    report(
        problems,
        "Say in the first line what the file is for, and below it what it must not do.",
    );
}

#[test]
fn modules_are_named_for_an_idea() {
    const VAGUE: &[&str] = &["util", "utils", "common", "helper", "helpers", "misc", "types"];
    let mut problems = Vec::new();
    for file in rust_files(&["src", "macros/src", "worker-bin/src"]) {
        if file.module().iter().any(|part| VAGUE.contains(&part.as_str())) {
            problems.push(format!("{}:1", file.name));
        }
    }
    report(problems, "A helper lives in the module that owns its idea.");
}

#[test]
fn unit_tests_lie_beside_the_code() {
    let mut problems = Vec::new();
    for file in rust_files(&["src", "macros/src"]) {
        for (line, code) in file.code_lines() {
            if code.trim_start().starts_with("mod tests {") {
                problems.push(format!("{}:{line}", file.name));
            }
        }
    }
    report(
        problems,
        "Move the tests to a sibling `tests.rs`: editing them then does not rebuild the library.",
    );
}

#[test]
fn nothing_waits_by_sleeping() {
    let mut problems = Vec::new();
    for file in rust_files(&["src", "macros/src", "worker-bin", "tests"]) {
        for path in file.paths() {
            let end: Vec<&str> = path.segments.iter().rev().take(2).map(String::as_str).collect();
            if end == ["sleep", "thread"] {
                problems.push(format!("{}:{}", file.name, path.line));
            }
        }
    }
    report(
        problems,
        "Wait on a pipe, a condition variable or a barrier, with a deadline. A task that shall never end reads from a \
         pipe that nobody writes to, or parks its thread in a loop.",
    );
}

#[test]
fn plans_have_an_issue() {
    let mut problems = Vec::new();
    for file in files(&["."], &["rs", "toml", ""]) {
        for (index, line) in file.text.lines().enumerate() {
            let plan = ["TODO", "FIXME", "XXX"]
                .into_iter()
                .find(|word| words(line).any(|found| found == *word));
            if plan.is_some_and(|word| !line.contains(&format!("{word}(#")))
                && file.name != "tests/tidy/main.rs"
            {
                problems.push(format!("{}:{}: {}", file.name, index + 1, line.trim()));
            }
        }
    }
    report(problems, "Write `TODO(#number)`, or do it now, or leave it out.");
}

#[test]
fn no_file_knows_the_machine_it_was_written_on() {
    const PLACES: &[&str] = &[
        "/home/",
        "/Users/",
        "/root/",
        "/work/",
        "/opt/",
        "C:\\Users",
        "/tmp/target",
    ];
    let mut problems = Vec::new();
    for file in
        files(&["."], &["rs", "toml", "md", "sh", ""]).filter(|file| file.name != "tests/tidy/main.rs")
    {
        for (index, line) in file.text.lines().enumerate() {
            if let Some(place) = PLACES.iter().find(|place| line.contains(*place)) {
                problems.push(format!("{}:{}: `{place}`", file.name, index + 1));
            }
        }
    }
    report(
        problems,
        "Use a path below the repository, a temporary folder made for the run, or an environment variable.",
    );
}

#[test]
fn the_macros_are_pinned_to_this_version() {
    let manifest = read("Cargo.toml");
    let version = value_of(&manifest, "version = ").expect("`version = \"..\"` in [workspace.package]");
    let line = manifest
        .lines()
        .position(|line| line.starts_with("inparallel-macros = "))
        .expect("the dependency on inparallel-macros");
    let pin = format!("version = \"={version}\"");
    let has_pin = manifest.lines().nth(line).is_some_and(|text| text.contains(&pin));
    let problems = if has_pin {
        vec![]
    } else {
        vec![format!("Cargo.toml:{}", line + 1)]
    };
    report(
        problems,
        &format!("What the macros write fits one version of `private` only: `{pin}`."),
    );
}

#[test]
fn the_changelog_has_a_head_for_what_is_not_released() {
    let text = read("CHANGELOG.md");
    let head = text.lines().find(|line| line.starts_with("## "));
    let problems = match head {
        Some(head) if head.contains("Unreleased") => vec![],
        _ => vec![format!("CHANGELOG.md: its first section is {head:?}")],
    };
    report(
        problems,
        "The first section is `## Unreleased`: every change that a user notices adds its line there.",
    );
}

#[test]
fn the_licences_are_in_the_packages() {
    let mut problems = Vec::new();
    for name in ["LICENSE-MIT", "LICENSE-APACHE"] {
        if !root().join(name).is_file() {
            problems.push(name.to_owned());
        }
    }
    report(problems, "Put it back: the manifest names both licences.");
}

/// The text in quotes after a key at the start of a line.
fn value_of<'a>(manifest: &'a str, key: &str) -> Option<&'a str> {
    let line = manifest
        .lines()
        .find(|line| line.starts_with(key) && line.contains('"'))?;
    line.split('"').nth(1)
}

#[track_caller]
fn report(problems: Vec<String>, remedy: &str) {
    assert!(problems.is_empty(), "\n\n{}\n\n{remedy}\n", problems.join("\n"));
}
