//! Reads the repository for the rules: its files, and of Rust files the code and the paths in it.

use std::fs;
use std::path::{Path, PathBuf};

/// A file of the repository, named as git names it.
pub(crate) struct File {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// A path in the code, `a::b::c`, taken out of its group if it stood in one.
#[derive(Debug)]
pub(crate) struct CodePath {
    pub(crate) line: usize,
    pub(crate) segments: Vec<String>,
}

impl File {
    pub(crate) fn is_test(&self) -> bool {
        self.name.ends_with("/tests.rs") || self.name.ends_with("_tests.rs") || self.name.contains("/tests/")
    }

    /// Where the file stands among the modules of its crate: `["supervisor", "state"]`.
    pub(crate) fn module(&self) -> Vec<String> {
        let inside = self
            .name
            .split_once("src/")
            .map_or(self.name.as_str(), |(_, inside)| inside);
        let mut parts: Vec<String> = inside
            .trim_end_matches(".rs")
            .split('/')
            .map(str::to_owned)
            .collect();
        if parts
            .last()
            .is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str()))
        {
            parts.pop();
        }
        parts
    }

    /// The module at the root of the crate that a path leads to, if it is one of this crate.
    pub(crate) fn resolve(&self, path: &CodePath) -> Option<String> {
        let mut module = self.module();
        let mut segments = path.segments.iter().peekable();
        match segments.next()?.as_str() {
            "crate" => module.clear(),
            "self" => {}
            "super" => {
                module.pop();
                while segments.next_if(|segment| *segment == "super").is_some() {
                    module.pop();
                }
            }
            _ => return None,
        }
        module.extend(segments.cloned());
        module.into_iter().next()
    }

    /// The lines with their numbers, without comments and the text of strings.
    pub(crate) fn code_lines(&self) -> impl Iterator<Item = (usize, &'static str)> {
        // Leaked: a test run reads each file a few times, and then ends.
        let code: &'static str = code_only(&self.text).leak();
        code.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    pub(crate) fn paths(&self) -> Vec<CodePath> {
        let mut tokens = Vec::new();
        for (line, code) in self.code_lines() {
            tokens.extend(tokens_of(code).into_iter().map(|token| (line, token)));
        }
        let mut paths = Vec::new();
        let mut at = 0;
        while at < tokens.len() {
            // A macro's `$crate` is what its user sees, not an arrow of ours.
            let is_macro_path = at > 0 && tokens[at - 1].1 == "$";
            let end = read_path(&tokens, at, &[], &mut paths);
            if is_macro_path {
                paths.pop();
            }
            at = end.max(at + 1);
        }
        paths
    }
}

/// Reads the path that begins at a token, with all that its braces name, and returns where it ends.
fn read_path(tokens: &[(usize, &str)], start: usize, prefix: &[String], paths: &mut Vec<CodePath>) -> usize {
    let token = |at: usize| tokens.get(at).map_or("", |(_, token)| *token);
    let is_word = |at: usize| token(at).starts_with(|first: char| first.is_alphanumeric() || first == '_');
    let Some(&(line, _)) = tokens.get(start) else {
        return start;
    };
    let mut segments = prefix.to_vec();
    let mut at = start;
    loop {
        if is_word(at) {
            // `a::{self}` is `a`.
            if token(at) != "self" || segments.is_empty() {
                segments.push(token(at).to_owned());
            }
            at += 1;
            if token(at) == "::" {
                at += 1;
                continue;
            }
        } else if token(at) == "{" && at > start && token(at - 1) == "::" {
            at += 1;
            while !["}", ""].contains(&token(at)) {
                at = read_path(tokens, at, &segments, paths).max(at + 1);
                while ![",", "}", ""].contains(&token(at)) {
                    at += 1;
                }
                if token(at) == "," {
                    at += 1;
                }
            }
            return at + 1;
        }
        break;
    }
    if segments.len() > prefix.len().max(1) || (!prefix.is_empty() && at > start) {
        paths.push(CodePath { line, segments });
    }
    at
}

/// Words, `::`, and every other character by itself.
fn tokens_of(code: &'static str) -> Vec<&'static str> {
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let len = match rest.find(|c: char| !(c.is_alphanumeric() || c == '_')) {
            Some(0) if rest.starts_with("::") => 2,
            Some(0) => first.len_utf8(),
            Some(end) => end,
            None => rest.len(),
        };
        let (token, after) = rest.split_at(len);
        tokens.push(token);
        rest = after.trim_start();
    }
    tokens
}

pub(crate) fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .filter(|word| !word.is_empty())
}

/// The source without comments and without what its strings and characters hold. Lines keep their numbers.
fn code_only(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    let mut last = ' ';
    while let Some(first) = rest.chars().next() {
        let is_inside_word = last.is_alphanumeric() || last == '_';
        let raw = rest.strip_prefix('r').map(|after| after.trim_start_matches('#'));
        let (len, stands_for) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), "")
        } else if rest.starts_with("/*") {
            (block_comment_len(rest), "")
        } else if first == '"' {
            (string_len(rest), "\"\"")
        } else if let Some(after) = raw.filter(|after| after.starts_with('"') && !is_inside_word) {
            let hashes = rest.len() - after.len() - 1;
            let end = format!("\"{}", "#".repeat(hashes));
            let inside = &after[1..];
            (
                rest.len() - inside.len() + inside.find(&end).map_or(inside.len(), |at| at + end.len()),
                "\"\"",
            )
        } else if first == '\'' {
            match char_len(rest) {
                Some(len) => (len, ""),
                None => (1, "'"),
            }
        } else {
            (first.len_utf8(), &rest[..first.len_utf8()])
        };
        let (skipped, after) = rest.split_at(len);
        let lines = skipped.matches('\n').count();
        match stands_for {
            "\"\"" => {
                code.push('"');
                code.push_str(&"\n".repeat(lines));
                code.push('"');
            }
            "" => code.push_str(&"\n".repeat(lines)),
            same => code.push_str(same),
        }
        last = first;
        rest = after;
    }
    code
}

fn block_comment_len(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

fn string_len(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of a character literal; `None` where the quote begins a lifetime.
fn char_len(text: &str) -> Option<usize> {
    let mut chars = text.char_indices().skip(1);
    let (_, first) = chars.next()?;
    let (after, next) = chars.next()?;
    if first == '\\' {
        // The escaped character itself may be the quote.
        return text[after + next.len_utf8()..]
            .find('\'')
            .map(|at| after + next.len_utf8() + at + 1);
    }
    (next == '\'').then_some(after + 1)
}

pub(crate) fn library() -> impl Iterator<Item = File> {
    rust_files(&["src"]).filter(|file| !file.is_test())
}

pub(crate) fn rust_files(folders: &[&str]) -> impl Iterator<Item = File> {
    files(folders, &["rs"])
}

/// The text files below some folders of the repository, without what is built or fetched.
pub(crate) fn files(folders: &[&str], extensions: &'static [&str]) -> impl Iterator<Item = File> {
    let mut pending: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    let mut found = Vec::new();
    while let Some(folder) = pending.pop() {
        // A folder that is not there has nothing to say.
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.expect("an entry of a folder of the repository").path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if path.is_dir() {
                let is_ours = name == ".ci" || !(name == "target" || name.starts_with('.'));
                pending.extend(is_ours.then_some(path));
            } else if name != ".git"
                && extensions.contains(&path.extension().and_then(|end| end.to_str()).unwrap_or_default())
            {
                // In a second working tree of git, `.git` is a file that says where the first is.
                found.push(path);
            }
        }
    }
    found.sort();
    found.dedup();
    found.into_iter().filter_map(|path| {
        let relative = path.strip_prefix(root()).unwrap_or(&path);
        let name = relative
            .to_string_lossy()
            .replace('\\', "/")
            .trim_start_matches("./")
            .to_owned();
        // What is not UTF-8 is not a text of ours.
        Some(File {
            text: fs::read_to_string(&path).ok()?,
            name,
        })
    })
}

pub(crate) fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn comments_and_strings_are_not_code() {
    let cases = [
        ("a // unsafe\nb", "a \nb"),
        ("a /* x /* y */ z */ b", "a  b"),
        ("f(\"unsafe // no\") // c", "f(\"\") "),
        ("r#\"say \"x\" // y\"# + 1", "\"\" + 1"),
        ("b\"x\\\"y\" 'a' '\\'' &'a str", "b\"\"   &'a str"),
        ("\"one\ntwo\" x", "\"\n\" x"),
    ];
    for (source, code) in cases {
        assert_eq!(code_only(source), code, "{source:?}");
    }
}

#[test]
fn grouped_imports_are_seen_one_by_one() {
    let file = File {
        name: "src/supervisor/context.rs".to_owned(),
        text: "use crate::{wire::{self, Frame}, worker as w};\nuse std::{fs, thread};\nfn f() { super::super::sys::g() }"
            .to_owned(),
    };
    let resolved: Vec<_> = file
        .paths()
        .iter()
        .filter_map(|path| file.resolve(path))
        .collect();
    assert_eq!(resolved, ["wire", "wire", "worker", "sys"]);
    assert!(
        file.paths()
            .iter()
            .any(|path| path.line == 2 && path.segments == ["std", "thread"])
    );
}
