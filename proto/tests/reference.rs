//! `docs/api/` and `docs/events.md` are the `.proto` files' own words, in another form.
//!
//! `UPDATE_EXPECT=1 cargo test -p proto --test reference` writes them anew.

use expect_test::expect_file;
use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet, ServiceDescriptorProto,
};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

const MADE: &str =
    "<!-- Made from proto/ by `cargo test -p proto --test reference`, with UPDATE_EXPECT=1. -->";

/// Packages, and the services that serve them.
const PAGES: [(&str, &str); 4] = [
    ("media_relay.v1", "media-relay"),
    ("queue.v1", "queue-svc"),
    ("scheduler.v1", "scheduler"),
    ("sip_edge.v1", "sip-edge"),
];

// Field numbers of descriptor.proto, of which the paths of comments are made.
const FILE_MESSAGE: i32 = 4;
const FILE_ENUM: i32 = 5;
const FILE_SERVICE: i32 = 6;
const MESSAGE_ENUM: i32 = 4;
const MESSAGE_FIELD: i32 = 2;
const SERVICE_METHOD: i32 = 2;
const ENUM_VALUE: i32 = 2;

#[test]
fn the_api_pages_say_what_the_protos_say() {
    for (package, service) in PAGES {
        let path = docs().join(format!("api/{service}.md"));
        expect_file![path].assert_eq(&Page::of(package).written(service));
    }
}

#[test]
fn the_page_of_events_has_every_subject() {
    expect_file![docs().join("events.md")].assert_eq(&events());
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").canonicalize().unwrap()
}

/// One file of the API, with its comments by path.
struct Page {
    file: FileDescriptorProto,
    comments: BTreeMap<Vec<i32>, String>,
}

impl Page {
    fn of(package: &str) -> Self {
        let set = FileDescriptorSet::decode(proto::DESCRIPTORS).unwrap();
        let file = set.file.into_iter().find(|it| it.package() == package).unwrap();
        let locations = file.source_code_info.iter().flat_map(|it| &it.location);
        let commented = locations.filter(|it| it.leading_comments.is_some());
        let comments = commented.map(|it| (it.path.clone(), it.leading_comments().to_owned()));
        Self { comments: comments.collect(), file }
    }

    fn written(&self, service: &str) -> String {
        let mut text = format!("{MADE}\n\n# API of {service}: `{}`\n", self.file.package());
        for (nth, it) in self.file.service.iter().enumerate() {
            self.write_service(&mut text, nth as i32, it);
        }
        text += "\n## Messages\n";
        for (nth, message) in self.file.message_type.iter().enumerate() {
            self.write_message(&mut text, nth as i32, message);
        }
        text += "\n## Enumerations\n";
        for (nth, it) in self.file.enum_type.iter().enumerate() {
            self.write_enum(&mut text, nth as i32, it);
        }
        text
    }

    fn write_service(&self, text: &mut String, nth: i32, service: &ServiceDescriptorProto) {
        let path = [FILE_SERVICE, nth];
        writeln!(text, "\n{}", self.paragraphs(&path)).unwrap();
        writeln!(text, "\n## Methods of {}", service.name()).unwrap();
        for (nth, method) in service.method.iter().enumerate() {
            let [input, output] = [method.input_type(), method.output_type()].map(linked);
            let stream = if method.server_streaming() { "a stream of " } else { "" };
            writeln!(text, "\n### {}\n", method.name()).unwrap();
            writeln!(text, "{input} → {stream}{output}\n").unwrap();
            let path = [path[0], path[1], SERVICE_METHOD, nth as i32];
            writeln!(text, "{}", self.paragraphs(&path)).unwrap();
        }
    }

    fn write_message(&self, text: &mut String, nth: i32, message: &DescriptorProto) {
        let path = [FILE_MESSAGE, nth];
        writeln!(text, "\n### {}\n", message.name()).unwrap();
        let said = self.paragraphs(&path);
        if !said.is_empty() {
            writeln!(text, "{said}\n").unwrap();
        }
        if message.field.is_empty() {
            writeln!(text, "No fields.").unwrap();
        }
        for (nth, field) in message.field.iter().enumerate() {
            let said = self.line(&[path[0], path[1], MESSAGE_FIELD, nth as i32]);
            let kind = kind(message, field);
            let one_of = field.oneof_index.filter(|_| !field.proto3_optional());
            let one_of = one_of.map(|it| message.oneof_decl[it as usize].name());
            let one_of = one_of.map(|it| format!(", one of `{it}`")).unwrap_or_default();
            writeln!(text, "- `{}` ({kind}{one_of}){said}", field.name()).unwrap();
        }
        for (nth, it) in message.enum_type.iter().enumerate() {
            writeln!(text, "\nValues of `{}`:\n", it.name()).unwrap();
            self.write_values(text, &[path[0], path[1], MESSAGE_ENUM, nth as i32], it);
        }
    }

    fn write_enum(&self, text: &mut String, nth: i32, it: &EnumDescriptorProto) {
        let path = [FILE_ENUM, nth];
        writeln!(text, "\n### {}\n", it.name()).unwrap();
        let said = self.paragraphs(&path);
        if !said.is_empty() {
            writeln!(text, "{said}\n").unwrap();
        }
        self.write_values(text, &path, it);
    }

    fn write_values(&self, text: &mut String, path: &[i32], it: &EnumDescriptorProto) {
        for (nth, value) in it.value.iter().enumerate() {
            let said = self.line(&[path, &[ENUM_VALUE, nth as i32]].concat());
            writeln!(text, "- `{}`{said}", value.name()).unwrap();
        }
    }

    /// The comment at `path`; a list of errors, which is indented, stays as it is.
    fn paragraphs(&self, path: &[i32]) -> String {
        let comment = self.comments.get(path).map(String::as_str).unwrap_or_default();
        let mut lines: Vec<String> = Vec::new();
        let mut listed = false;
        for line in comment.lines() {
            let line = line.strip_prefix(' ').unwrap_or(line);
            let indented = line.starts_with("  ");
            if indented != listed {
                lines.push(if indented { "\n```text" } else { "```" }.to_owned());
                listed = indented;
            }
            lines.push(if indented { line.to_owned() } else { escaped(line.trim_end()) });
        }
        if listed {
            lines.push("```".to_owned());
        }
        lines.join("\n").trim().to_owned()
    }

    /// The comment at `path` as what goes on after a name, on one line.
    fn line(&self, path: &[i32]) -> String {
        let comment = self.comments.get(path).map(String::as_str).unwrap_or_default();
        let words: Vec<&str> = comment.split_whitespace().collect();
        if words.is_empty() { String::new() } else { format!(": {}", escaped(&words.join(" "))) }
    }
}

/// What Markdown would read as its own, outside of code.
fn escaped(text: &str) -> String {
    let parts = text.split('`').enumerate().map(|(nth, part)| match nth % 2 {
        0 => part.replace('<', "&lt;").replace('*', "\\*").replace('_', "\\_"),
        _ => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join("`")
}

/// A type of ours, leading to where it is explained.
fn linked(name: &str) -> String {
    let name = name.trim_start_matches('.');
    let (package, short) = name.rsplit_once('.').unwrap();
    match PAGES.iter().find(|(it, _)| *it == package) {
        Some((_, service)) => format!("[{short}]({service}.md#{})", short.to_lowercase()),
        None => format!("`{name}`"),
    }
}

fn kind(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let entry = message.nested_type.iter().find(|it| {
        let is_map = it.options.as_ref().is_some_and(|it| it.map_entry());
        is_map && field.type_name().ends_with(&format!(".{}", it.name()))
    });
    if let Some(entry) = entry {
        let [key, value] = [0, 1].map(|nth| kind(entry, &entry.field[nth]));
        return format!("map of {key} to {value}");
    }
    let one = match field.r#type() {
        Type::Message | Type::Enum => linked(field.type_name()),
        scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    };
    match field.label() {
        Label::Repeated => format!("repeated {one}"),
        _ => one,
    }
}

/// Subjects, by the enumerations that name them.
fn events() -> String {
    let mut text = format!(
        "{MADE}\n\n# Events\n
What has happened is published on NATS, on the JetStream stream `{stream}`, which keeps it for {hours} hours.
A payload is JSON: the protobuf mapping of the message that is named below. An event can come twice, with
the same `event_id`.

`nats sub '{all}'` shows all of them as they come.
",
        stream = proto::subjects::STREAM,
        hours = proto::subjects::MAX_AGE_S / 3600,
        all = proto::subjects::ALL,
    );
    let tables = [
        ("sip_edge.v1", "CallEventType", "CallEvent", "holdfast.call", "CALL_ID"),
        ("queue.v1", "QueueEventType", "QueueEvent", "holdfast.queue", "QUEUE"),
        ("scheduler.v1", "TaskState", "TaskEvent", "holdfast.task", "CALL_ID"),
    ];
    for (package, name, message, subject, last) in tables {
        let page = Page::of(package);
        let service = PAGES.iter().find(|(it, _)| *it == package).unwrap().1;
        let link = format!("[{message}](api/{service}.md#{})", message.to_lowercase());
        let enums = &page.file.enum_type;
        let nth = enums.iter().position(|it| it.name() == name).unwrap();
        let prefix = enums[nth].value[0].name().trim_end_matches("UNSPECIFIED");
        writeln!(text, "\n## From {service}: {link}\n").unwrap();
        for (value_nth, value) in enums[nth].value.iter().enumerate().skip(1) {
            let said = page.line(&[FILE_ENUM, nth as i32, ENUM_VALUE, value_nth as i32]);
            let kind = value.name().trim_start_matches(prefix).to_lowercase();
            writeln!(text, "- `{subject}.{kind}.{last}`{said}").unwrap();
        }
    }
    text + RECORDS
}

const RECORDS: &str = "
## A record of each call

`holdfast.call.ended.*` is the record of a call: `cause` and `ended_by` (and `ended_by_task`), when it was
created, answered and ended, its legs with their URIs, and the tasks of its plan. In which queue it waited,
how long, and for which agent, is in the events `holdfast.queue.connected.*` and `holdfast.queue.left.*` of the
same `call_id`.

`sip-edge --cdr-database-url` keeps these records in a table of SQLite, PostgreSQL, MariaDB or MySQL, which it
makes: `call_records`, one row for each `call_id`, written from the event, so none is missing or double after a
crash or while the database was away, as long as the stream keeps the event. Times are Unix ms, NULL if there
was none; rows are never changed or deleted, so delete old ones by `ended_unix_ms`.

| column | what |
|---|---|
| `call_id` | the same as everywhere |
| `edge`, `route` | the sip-edge that had the call in the end; the route of the dial plan |
| `from_uri`, `to_uri` | as in `Call` |
| `created_unix_ms`, `answered_unix_ms`, `ended_unix_ms` | it was answered for the difference of the last two |
| `cause`, `ended_by`, `ended_by_task` | why, by whom (`caller`, `callee`, `api`, `task`, `plan`, `edge`), and by which task |
| `sip_call_id_a`, `sip_call_id_b` | Call-IDs of the legs that it had in the end |
";
