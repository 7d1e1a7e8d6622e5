//! The sources under `src` as data: which modules a file names, and which words its code holds.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::path::Path;

/// One file of `src`.
pub struct Source {
    /// Its path below `src`.
    pub name: String,
    /// How long it is.
    pub lines: usize,
    /// Its code without comments, the contents of strings, and items under `#[cfg(test)]` (a `tests.rs` is one).
    code: String,
}

/// Every file of `src` but `lib.rs`, which only lists the modules.
pub fn all_sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") && path != root.join("lib.rs") {
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                sources.push(Source::new(&name, &std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    sources
}

impl Source {
    pub fn new(name: &str, text: &str) -> Self {
        let code = if name.ends_with("/tests.rs") { String::new() } else { without_tests(&strip(text)) };
        Self { name: name.to_owned(), lines: text.lines().count(), code }
    }

    /// The module of the first level: `sky` for `sky/stars.rs`.
    pub fn module(&self) -> &str {
        self.name.split(['/', '.']).next().unwrap()
    }

    /// Whether the code holds `word`, not merely as a part of a longer name.
    pub fn has_word(&self, word: &str) -> bool {
        let part_of_name = |c: Option<char>, edge: char| c.is_some_and(is_name) && is_name(edge);
        self.code.match_indices(word).any(|(at, _)| {
            let before = self.code[..at].chars().next_back();
            let after = self.code[at + word.len()..].chars().next();
            !part_of_name(before, word.chars().next().unwrap())
                && !part_of_name(after, word.chars().next_back().unwrap())
        })
    }

    /// The modules of the first level that the code names, its own included.
    pub fn modules_used(&self) -> BTreeSet<String> {
        let tokens = tokens(&self.code);
        let file_depth = self.name.trim_end_matches(".rs").trim_end_matches("/mod").split('/').count();
        let mut used = BTreeSet::new();
        let mut open_braces = 0;
        let mut inline_modules = Vec::new(); // the depths of braces that a `mod name {` opened
        for (i, token) in tokens.iter().enumerate() {
            let follows_path = i > 0 && tokens[i - 1] == "::";
            match *token {
                "{" => {
                    open_braces += 1;
                    if i >= 2 && tokens[i - 2] == "mod" {
                        inline_modules.push(open_braces);
                    }
                }
                "}" => {
                    if inline_modules.last() == Some(&open_braces) {
                        inline_modules.pop();
                    }
                    open_braces -= 1;
                }
                "crate" | "nightjar" if !follows_path && tokens.get(i + 1) == Some(&"::") => {
                    tree(&tokens, i + 2, 0, &mut used);
                }
                "super" if !follows_path => tree(&tokens, i, file_depth + inline_modules.len(), &mut used),
                _ => {}
            }
        }
        used
    }
}

/// Follows a path, or the branches of a `use {…}`, from a place `depth` modules below the root; gives the
/// position after it.
fn tree(tokens: &[&str], mut at: usize, mut depth: usize, used: &mut BTreeSet<String>) {
    while tokens.get(at) == Some(&"super") {
        depth = depth.saturating_sub(1);
        at += 1;
        if tokens.get(at) == Some(&"::") {
            at += 1;
        }
    }
    match tokens.get(at) {
        Some(&"{") => {
            let mut open = 0;
            for (i, token) in tokens.iter().enumerate().skip(at) {
                match *token {
                    "{" => open += 1,
                    "}" => open -= 1,
                    _ => {}
                }
                if open == 0 {
                    return;
                }
                if open == 1 && matches!(*token, "{" | ",") && tokens.get(i + 1) != Some(&"}") {
                    tree(tokens, i + 1, depth, used);
                }
            }
        }
        Some(name) if depth == 0 && name.starts_with(is_name) => {
            used.insert((*name).to_owned());
        }
        _ => {}
    }
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if is_name(first) {
            rest.find(|c| !is_name(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        tokens.push(&rest[..length]);
        rest = rest[length..].trim_start();
    }
    tokens
}

/// The text without comments and without what stands in strings and character literals.
pub fn strip(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            code.push(' ');
            block_comment(rest)
        } else if let Some(length) = raw_string(rest).filter(|_| !code.ends_with(is_name)) {
            code.push_str("\"\"");
            length
        } else if first == '"' {
            code.push_str("\"\"");
            quoted(rest, '"')
        } else if first == '\'' && is_character(rest) {
            code.push_str("' '");
            quoted(rest, '\'')
        } else {
            code.push(first);
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    code
}

fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().unwrap().len_utf8();
        }
    }
    text.len()
}

fn raw_string(text: &str) -> Option<usize> {
    let prefix = if text.starts_with("br") { 2 } else { 1 };
    let after = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let hashes = after.chars().take_while(|c| *c == '#').count();
    let body = after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(prefix + hashes + 1 + body.find(&end)? + end.len())
}

fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// `'a'` and `'\n'`, not the lifetime `'a`.
fn is_character(text: &str) -> bool {
    let mut chars = text.chars().skip(1);
    chars.next() == Some('\\') || chars.next() == Some('\'')
}

/// The code without each item that `#[cfg(test)]` stands before.
fn without_tests(code: &str) -> String {
    let mut kept = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        kept.push_str(&rest[..at]);
        let mut open = 0;
        let end = rest[at..].char_indices().find(|&(_, c)| {
            match c {
                '{' => open += 1,
                '}' => open -= 1,
                _ => {}
            }
            open == 0 && matches!(c, '}' | ';')
        });
        rest = end.map_or("", |(length, _)| &rest[at + length + 1..]);
    }
    kept + rest
}
