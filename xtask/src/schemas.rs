//! JSON schemas of what the chart renders, made from the OpenAPI documents of Kubernetes and of the
//! Prometheus operator, strict: a field that the API does not know is an error.

use crate::tools;
use anyhow::Context as _;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

const KUBERNETES: &str = "k8s.io/kubernetes@v1.36.3";
const OPERATOR: &str = "github.com/prometheus-operator/prometheus-operator@v0.85.0";

/// Kinds of Kubernetes that the chart renders, by the names of their definitions.
const KINDS: [&str; 8] = [
    "io.k8s.api.apps.v1.StatefulSet",
    "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
    "io.k8s.api.core.v1.ConfigMap",
    "io.k8s.api.core.v1.Secret",
    "io.k8s.api.core.v1.Service",
    "io.k8s.api.core.v1.ServiceAccount",
    "io.k8s.api.networking.v1.NetworkPolicy",
    "io.k8s.api.policy.v1.PodDisruptionBudget",
];

/// Kinds of the operator, by the names of their files.
const CUSTOM_KINDS: [&str; 2] = ["prometheusrules", "servicemonitors"];

/// The folder with a file `KIND-GROUP-VERSION.json` for each kind, made if it is not there yet.
pub(crate) fn make(tools: &Path) -> anyhow::Result<PathBuf> {
    let name = |module: &str| module.rsplit('/').next().unwrap_or(module).to_owned();
    let folder = tools.join("schemas").join(format!("{}+{}", name(KUBERNETES), name(OPERATOR)));
    if folder.is_dir() {
        return Ok(folder);
    }
    eprintln!("making schemas of {KUBERNETES} and {OPERATOR}");
    let unfinished = folder.with_extension("unfinished");
    std::fs::create_dir_all(&unfinished).context("make a folder for schemas")?;
    let definitions = read(&tools::module(KUBERNETES)?.join("api/openapi-spec/swagger.json"))?;
    for kind in KINDS {
        let (file, schema) = of_kubernetes(&definitions["definitions"], kind)?;
        write(&unfinished.join(file), &schema)?;
    }
    let operator = tools::module(OPERATOR)?.join("jsonnet/prometheus-operator");
    for kind in CUSTOM_KINDS {
        let (file, schema) = of_custom(&read(&operator.join(format!("{kind}-crd.json")))?)?;
        write(&unfinished.join(file), &schema)?;
    }
    std::fs::rename(&unfinished, &folder).context("put schemas in place")?;
    Ok(folder)
}

fn read(path: &Path) -> anyhow::Result<Value> {
    let text = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("read {}", path.display()))
}

fn write(path: &Path, schema: &Value) -> anyhow::Result<()> {
    std::fs::write(path, schema.to_string()).with_context(|| format!("write {}", path.display()))
}

/// The schema of one kind, with all that it refers to inside.
fn of_kubernetes(definitions: &Value, name: &str) -> anyhow::Result<(String, Value)> {
    let kind = &definitions[name]["x-kubernetes-group-version-kind"][0];
    let file = file_name(&kind["group"], &kind["version"], &kind["kind"])?;
    let mut reached = Map::new();
    let mut next = vec![name.to_owned()];
    while let Some(name) = next.pop() {
        if reached.contains_key(&name) {
            continue;
        }
        let mut definition = definitions[&name].clone();
        strict(&mut definition);
        references(&definition, &mut next);
        reached.insert(name, definition);
    }
    Ok((file, json!({"$ref": format!("#/definitions/{name}"), "definitions": reached})))
}

fn of_custom(definition: &Value) -> anyhow::Result<(String, Value)> {
    let spec = &definition["spec"];
    let version = &spec["versions"][0];
    let file = file_name(&spec["group"], &version["name"], &spec["names"]["kind"])?;
    let mut schema = version["schema"]["openAPIV3Schema"].clone();
    strict(&mut schema);
    Ok((file, schema))
}

/// As kubeconform names them: `statefulset-apps-v1.json`, and `service-v1.json` without a group.
fn file_name(group: &Value, version: &Value, kind: &Value) -> anyhow::Result<String> {
    let text = |it: &Value| it.as_str().map(str::to_lowercase).context("read a group and kind");
    let group = text(group)?;
    let group = group.split('.').next().filter(|it| !it.is_empty());
    let group = group.map(|it| format!("{it}-")).unwrap_or_default();
    Ok(format!("{}-{group}{}.json", text(kind)?, text(version)?))
}

/// Allows no property that is not named, and a number or text where the API takes both.
fn strict(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.values_mut().for_each(strict);
            let either = fields.get("format").is_some_and(|it| it == "int-or-string")
                || fields.get("x-kubernetes-int-or-string").is_some_and(|it| it == true);
            if either {
                fields.insert("type".to_owned(), json!(["integer", "string"]));
            }
            if fields.get("type").is_none_or(|it| it == "object")
                && fields.get("properties").is_some_and(Value::is_object)
                && !fields.contains_key("additionalProperties")
            {
                fields.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(strict),
        _ => (),
    }
}

/// The names of the definitions that `schema` refers to.
fn references(schema: &Value, found: &mut Vec<String>) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                found.extend(reference.strip_prefix("#/definitions/").map(str::to_owned));
            }
            fields.values().for_each(|it| references(it, found));
        }
        Value::Array(items) => items.iter().for_each(|it| references(it, found)),
        _ => (),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_has_what_it_refers_to_and_takes_no_other_property() {
        let definitions = json!({
            "a.Pod": {
                "x-kubernetes-group-version-kind": [{"group": "apps.k8s.io", "version": "v1", "kind": "Pod"}],
                "properties": {"spec": {"$ref": "#/definitions/a.Spec"}},
            },
            "a.Spec": {"type": "object", "properties": {
                "port": {"type": "string", "format": "int-or-string"},
                "again": {"$ref": "#/definitions/a.Spec"},
            }},
            "a.Other": {},
        });
        let (file, schema) = of_kubernetes(&definitions, "a.Pod").unwrap();
        assert_eq!(file, "pod-apps-v1.json");
        assert_eq!(schema["$ref"], "#/definitions/a.Pod");
        let spec = &schema["definitions"]["a.Spec"];
        assert_eq!(spec["additionalProperties"], false);
        assert_eq!(spec["properties"]["port"]["type"], json!(["integer", "string"]));
        assert_eq!(schema["definitions"].as_object().unwrap().len(), 2);
    }
}
