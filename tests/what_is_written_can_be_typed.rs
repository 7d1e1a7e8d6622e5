//! Commands that the README, CONTRIBUTING, the settings file, the unit and each `--help` show exist as they stand.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::process::Command;

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// What `nightjar WORDS --help` prints; `None` where there is no such command.
fn help(words: &[&str]) -> Option<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_nightjar")).args(words).arg("--help").output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

/// The names below "Commands:" in a help text.
fn listed(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| !line.starts_with("Commands:")).skip(1);
    let names = lines.take_while(|line| !line.is_empty()).filter_map(|line| line.strip_prefix("  "));
    names
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

/// Every use of `nightjar …` in code of a text: in ``` blocks, indented examples and between backticks.
fn command_lines(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_block = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
            continue;
        }
        let spans: Vec<&str> =
            if in_block || line.starts_with("  ") { vec![line] } else { line.split('`').skip(1).step_by(2).collect() };
        for command in spans.iter().flat_map(|span| span.split(['|', '&', ';', '#'])) {
            let command = command.trim().trim_start_matches("$ ").trim_start_matches("sudo ");
            let command = command.strip_prefix("-u nightjar ").unwrap_or(command);
            if let Some(rest) = command.strip_prefix("nightjar ") {
                found.push(rest.to_owned());
            }
        }
    }
    found
}

/// What is wrong with a command line, if anything.
fn fault(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let mut path: Vec<&str> = Vec::new();
    let mut text = help(&[])?;
    for word in &words {
        if listed(&text).iter().any(|name| name == word) {
            path.push(word);
            text = help(&path)?;
        } else if path.is_empty() && !word.starts_with('-') {
            return Some(format!("`nightjar {line}`: no command {word}"));
        }
    }
    let flags = words.iter().filter(|word| word.starts_with("--")).map(|word| word.split('=').next().unwrap());
    let unknown: Vec<_> =
        flags.filter(|flag| !text.split([' ', ',', '\n', '=', '[']).any(|word| word == *flag)).collect();
    (!unknown.is_empty()).then(|| format!("`nightjar {line}`: no option {unknown:?}"))
}

#[test]
fn commands_in_the_documents_exist_with_their_options() {
    let mut faults = Vec::new();
    for name in ["README.md", "CONTRIBUTING.md", "config/nightjar.toml", "systemd/nightjar.service"] {
        let text = read(name).replace("/usr/bin/nightjar", "`nightjar").replace('\'', "`");
        faults
            .extend(command_lines(&text).iter().filter_map(|line| fault(line)).map(|fault| format!("{name}: {fault}")));
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn each_command_explains_itself_with_an_example_that_can_be_typed() {
    let mut faults = Vec::new();
    for name in listed(&help(&[]).unwrap()).iter().filter(|name| *name != "help") {
        let text = help(&[name]).unwrap();
        let examples = text.split_once("Example").map(|(_, examples)| command_lines(examples)).unwrap_or_default();
        if !examples.iter().any(|example| example.starts_with(name.as_str())) {
            faults.push(format!("nightjar {name} --help ends without an example of its own"));
        }
        faults.extend(examples.iter().filter_map(|line| fault(line)).map(|fault| format!("{name} --help: {fault}")));
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn a_reader_that_goes_away_is_no_defect() {
    let folder = tempfile::tempdir().unwrap();
    let mut sky = Command::new(env!("CARGO_BIN_EXE_nightjar"))
        .args(["sky", "--pair", "--width", "64", "--height", "64", "--out"])
        .arg(folder.path())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop((sky.stdout.take(), sky.stderr.take()));
    assert!(sky.wait().unwrap().success());
}

#[test]
fn make_targets_in_the_documents_exist() {
    let makefile = read("Makefile");
    for name in ["README.md", "CONTRIBUTING.md"] {
        let text = read(name);
        let code = text.split('`').skip(1).flat_map(str::lines);
        for target in code.filter_map(|line| line.trim().strip_prefix("make ")?.split_whitespace().next()) {
            assert!(makefile.contains(&format!("\n{target}:")), "{name}: no target {target}");
        }
    }
}

#[test]
fn control_a_command_or_option_that_does_not_exist_is_found() {
    assert!(fault("observe night").unwrap().contains("no command observe"));
    assert!(fault("simulate night --colour blue").unwrap().contains("--colour"));
    assert_eq!(fault("simulate --help"), None);
    assert_eq!(
        command_lines("a\n```sh\nnightjar sky --out x && nightjar simulate x # y\n```\nand `nightjar run`."),
        ["sky --out x", "simulate x", "run"]
    );
}
