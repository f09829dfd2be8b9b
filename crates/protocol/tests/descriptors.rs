//! The messages, fields and services of every `.proto` file, compared with a golden file.

// Helpers of tests fail by panicking, too.
#![allow(clippy::unwrap_used)]

use std::{fmt::Write as _, fs, path::Path};

use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet, ServiceDescriptorProto,
    field_descriptor_proto::{Label, Type},
};
use test_support::{golden, workspace};

/// The descriptors from which the build script generated the code.
const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// `repeated string peers = 1`, with the oneof that the field is in.
fn field(field: &FieldDescriptorProto, message: &DescriptorProto) -> String {
    let label = match field.label() {
        _ if field.proto3_optional() => "optional ",
        Label::Repeated => "repeated ",
        Label::Required => "required ",
        Label::Optional => "",
    };
    let kind = match field.r#type() {
        Type::Message | Type::Enum | Type::Group => field.type_name().to_owned(),
        scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    };
    let mut text = format!("{label}{kind} {} = {}", field.name(), field.number());
    if let Some(index) = field.oneof_index.filter(|_| !field.proto3_optional()) {
        let _ = write!(text, ", oneof {}", message.oneof_decl[index as usize].name());
    }
    if let Some(options) = field.options.as_ref().filter(|options| options.deprecated()) {
        let _ = write!(text, ", deprecated = {}", options.deprecated());
    }
    text
}

fn message(prefix: &str, descriptor: &DescriptorProto, text: &mut String) {
    let name = format!("{prefix}.{}", descriptor.name());
    let is_map = descriptor.options.as_ref().is_some_and(|options| options.map_entry());
    let _ = writeln!(text, "message {name}{}", if is_map { " (entry of a map)" } else { "" });
    for one in &descriptor.field {
        let _ = writeln!(text, "  {}", field(one, descriptor));
    }
    for range in &descriptor.reserved_range {
        let _ = writeln!(text, "  reserved {} to {}", range.start(), range.end() - 1);
    }
    for reserved in &descriptor.reserved_name {
        let _ = writeln!(text, "  reserved {reserved}");
    }
    descriptor.nested_type.iter().for_each(|nested| message(&name, nested, text));
    descriptor.enum_type.iter().for_each(|nested| enumeration(&name, nested, text));
}

fn enumeration(prefix: &str, descriptor: &EnumDescriptorProto, text: &mut String) {
    let _ = writeln!(text, "enum {prefix}.{}", descriptor.name());
    for value in &descriptor.value {
        let _ = writeln!(text, "  {} = {}", value.name(), value.number());
    }
}

fn service(prefix: &str, descriptor: &ServiceDescriptorProto, text: &mut String) {
    let _ = writeln!(text, "service {prefix}.{}", descriptor.name());
    for method in &descriptor.method {
        let stream = |streams| if streams { "stream " } else { "" };
        let (takes, gives) = (stream(method.client_streaming()), stream(method.server_streaming()));
        let _ = writeln!(
            text,
            "  rpc {}({takes}{}) returns ({gives}{})",
            method.name(),
            method.input_type(),
            method.output_type()
        );
    }
}

#[test]
fn descriptors_are_those_of_the_golden_file() {
    let mut files = FileDescriptorSet::decode(DESCRIPTORS).unwrap().file;
    files.sort_by(|one, other| one.name().cmp(other.name()));
    let mut text = String::new();
    for file in &files {
        let syntax = file.syntax.as_deref().unwrap_or("proto2");
        let _ = writeln!(text, "# {}, {syntax}", file.name());
        file.dependency.iter().for_each(|path| text += &format!("import {path}\n"));
        let package = format!(".{}", file.package());
        file.message_type.iter().for_each(|one| message(&package, one, &mut text));
        file.enum_type.iter().for_each(|one| enumeration(&package, one, &mut text));
        file.service.iter().for_each(|one| service(&package, one, &mut text));
        text.push('\n');
    }
    golden::check("descriptors.txt", &text);
}

/// Adds the paths of all `.proto` files in a folder, relative to `root`.
fn find(root: &Path, folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            found.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
        }
    }
}

#[test]
fn descriptors_cover_every_proto_file() {
    let root = workspace::root().join("protocol");
    let mut found = Vec::new();
    find(&root, &root, &mut found);
    found.sort();
    let mut compiled: Vec<String> = FileDescriptorSet::decode(DESCRIPTORS)
        .unwrap()
        .file
        .iter()
        .map(|file| file.name().to_owned())
        .collect();
    compiled.retain(|name| !name.starts_with("google/protobuf/"));
    compiled.sort();
    assert_eq!(found, compiled, "files in protocol/, and files that build.rs compiles");
}
