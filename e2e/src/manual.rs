//! What operators read about a service's flags is made from the definitions that `--help` is made of:
//! `docs/flags/`, man pages and shell completions.
//!
//! With UPDATE_EXPECT=1 the files are written anew.

use clap::{Arg, ArgAction, Command};
use clap_complete::Shell;
use expect_test::expect_file;
use std::fmt::Write as _;
use std::path::Path;

/// Fails if one of the files about `service`, by name, does not say what its flags say.
///
/// # Panics
/// With the difference.
pub fn check(service: &'static str, command: Command) {
    let mut command = command.name(service).bin_name(service);
    command.build();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap();
    let at = |path: String| root.join(path);
    expect_file![at(format!("docs/flags/{service}.md"))].assert_eq(&page(service, &command));
    expect_file![at(format!("deploy/man/{service}.1"))].assert_eq(&man(&command));
    for (shell, file) in [
        (Shell::Bash, format!("bash/{service}")),
        (Shell::Fish, format!("fish/{service}.fish")),
        (Shell::Zsh, format!("zsh/_{service}")),
    ] {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command.clone(), service, &mut text);
        let text = String::from_utf8(text).expect("completions are text");
        expect_file![at(format!("deploy/completions/{file}"))].assert_eq(&text);
    }
}

fn man(command: &Command) -> String {
    let mut text = Vec::new();
    let man = clap_mangen::Man::new(command.clone()).manual("Holdfast");
    man.render(&mut text).expect("memory takes it");
    String::from_utf8(text).expect("a man page is text")
}

fn page(service: &str, command: &Command) -> String {
    let about = command.get_long_about().or(command.get_about());
    let about = about.map(|it| escaped(&it.to_string())).unwrap_or_default();
    let mut text = format!(
        "<!-- Made from its flags by `cargo test -p {service} manual`, with UPDATE_EXPECT=1. -->\n\n\
         # Flags of {service}\n\n{about}\n"
    );
    let mut heading = None;
    let (own, common): (Vec<&Arg>, Vec<&Arg>) =
        command.get_arguments().partition(|it| it.get_help_heading().is_none());
    for arg in own.into_iter().chain(common).filter(|it| !it.is_hide_set()) {
        if heading != Some(arg.get_help_heading()) {
            heading = Some(arg.get_help_heading());
            let title = arg.get_help_heading().unwrap_or("Options");
            writeln!(text, "\n## {title}\n").unwrap();
        }
        writeln!(text, "{}", item(arg)).unwrap();
    }
    text
}

/// One flag as an item of a list.
fn item(arg: &Arg) -> String {
    let flag = arg.get_long().map_or_else(|| arg.get_id().to_string(), |it| format!("--{it}"));
    let takes_value = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
    let names = arg.get_value_names().unwrap_or_default().iter();
    let value = names.filter(|_| takes_value).map(|it| format!(" {it}")).collect::<String>();
    let help = arg.get_long_help().or(arg.get_help());
    let help = help.map(|it| escaped(&it.to_string())).unwrap_or_default();
    let words: Vec<&str> = help.split_whitespace().collect();
    let help = words.join(" ");
    let stop = if help.ends_with(['.', '?']) { "" } else { "." };
    let mut text = format!("- `{flag}{value}`: {help}{stop}");
    let possible: Vec<String> = match takes_value {
        true => arg.get_possible_values().iter().map(|it| format!("`{}`", it.get_name())).collect(),
        false => Vec::new(),
    };
    if !possible.is_empty() {
        write!(text, " One of {}.", possible.join(", ")).unwrap();
    }
    let defaults: Vec<_> = arg.get_default_values().iter().map(|it| it.to_string_lossy()).collect();
    if takes_value && !defaults.is_empty() {
        write!(text, " Default: `{}`.", defaults.join(",")).unwrap();
    }
    if let Some(variable) = arg.get_env() {
        write!(text, " Environment: `{}`.", variable.to_string_lossy()).unwrap();
    }
    text
}

/// What Markdown would read as its own, outside of code.
fn escaped(text: &str) -> String {
    let parts = text.split('`').enumerate().map(|(nth, part)| match nth % 2 {
        0 => part.replace('<', "&lt;").replace('*', "\\*").replace('_', "\\_"),
        _ => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join("`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_has_what_help_has() {
        let arg = Arg::new("x").long("max-x").value_name("COUNT").default_value("7");
        let arg = arg.help("Most `<x>`\nof a_b").env("MAX_X").value_parser(["7", "8"]);
        assert_eq!(
            item(&arg),
            "- `--max-x COUNT`: Most `<x>` of a\\_b. One of `7`, `8`. Default: `7`. Environment: `MAX_X`."
        );
        let switch = Arg::new("y").long("y").action(ArgAction::SetTrue).help("Y.");
        assert_eq!(item(&switch), "- `--y`: Y.");
    }
}
