//! Files that use each other in a circle: to understand one of them, a reader must understand all of them.
//!
//! A module file may be used by the files in the folder of its name: that does not count as a circle.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use syn::{Attribute, Item, UseTree, visit::Visit};

use crate::tree::{files, is_test, sources};

/// The permitted circle: the core of the memory manager, whose objects and spaces refer to each other.
const MOST: usize = 1;

/// The path of a module from the root of its crate; the root itself has an empty path.
type Module = Vec<String>;
/// From each file to those that it uses.
type Uses = BTreeMap<Module, BTreeSet<Module>>;

/// The references of a file to others: paths, and names that it re-exports.
#[derive(Default)]
struct Mentions {
    paths: Vec<Vec<String>>,
    /// A name that this file re-exports, and the path that it comes from.
    handed_on: BTreeMap<String, Vec<String>>,
}

impl Mentions {
    fn of(file: &syn::File) -> Self {
        let mut mentions = Self::default();
        mentions.visit_file(file);
        mentions
    }

    fn add_tree(&mut self, before: &[String], tree: &UseTree, public: bool) {
        let mut path = before.to_vec();
        let (last, shown) = match tree {
            UseTree::Path(part) => {
                path.push(part.ident.to_string());
                return self.add_tree(&path, &part.tree, public);
            }
            UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.add_tree(before, tree, public));
                return;
            }
            UseTree::Glob(_) => return self.paths.push(path),
            UseTree::Name(name) => (name.ident.to_string(), name.ident.to_string()),
            UseTree::Rename(name) => (name.ident.to_string(), name.rename.to_string()),
        };
        if last != "self" {
            path.push(last);
        }
        if public {
            self.handed_on.insert(shown, path);
        } else {
            self.paths.push(path);
        }
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let list = attribute.meta.require_list();
        attribute.path().is_ident("cfg")
            && list.is_ok_and(|list| {
                let text = list.tokens.to_string();
                ["test", "doctest", "loom"].contains(&text.as_str())
                    || text.starts_with("all (test")
            })
    })
}

impl<'ast> Visit<'ast> for Mentions {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes: &[Attribute] = match item {
            Item::Mod(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            _ => &[],
        };
        if is_for_tests(attributes) {
            return;
        }
        if let Item::Use(item) = item {
            let public = !matches!(item.vis, syn::Visibility::Inherited);
            self.add_tree(&[], &item.tree, public);
        }
        syn::visit::visit_item(self, item);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            self.paths.push(path.segments.iter().map(|part| part.ident.to_string()).collect());
        }
        syn::visit::visit_path(self, path);
    }
}

/// The files of one crate, with the references of each.
struct Crate(BTreeMap<Module, Mentions>);

impl Crate {
    fn read(source: &Path) -> Self {
        let mut modules = BTreeMap::new();
        for path in files(source, &["rs"]).into_iter().filter(|path| !is_test(path)) {
            let name = path.strip_prefix(source).unwrap().with_extension("");
            let parts: Module =
                name.iter().map(|part| part.to_string_lossy().into_owned()).collect();
            let parts = match parts[0].as_str() {
                "lib" | "main" => Module::new(),
                "bin" => continue,
                _ => parts,
            };
            let text = fs::read_to_string(&path).unwrap();
            let file = syn::parse_file(&text).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            modules.insert(parts, Mentions::of(&file));
        }
        Self(modules)
    }

    /// The file to which a path leads, if it belongs to this crate.
    fn resolve(&self, from: &Module, path: &[String], depth: usize) -> Option<Module> {
        let (mut at, rest) = match path.first()?.as_str() {
            "crate" => (Module::new(), &path[1..]),
            "self" => (from.clone(), &path[1..]),
            "super" => {
                let ups = path.iter().take_while(|part| *part == "super").count();
                (from[..from.len().saturating_sub(ups)].to_vec(), &path[ups..])
            }
            first => {
                let child = [from.as_slice(), &[first.to_owned()]].concat();
                if !self.0.contains_key(&child) {
                    return None;
                }
                (from.clone(), path)
            }
        };
        for part in rest {
            let child = [at.as_slice(), std::slice::from_ref(part)].concat();
            if self.0.contains_key(&child) {
                at = child;
                continue;
            }
            // A name that this file defines or re-exports.
            let handed_on = self.0.get(&at).and_then(|mentions| mentions.handed_on.get(part));
            return match handed_on {
                Some(path) if depth > 0 => self.resolve(&at, path, depth - 1).or(Some(at)),
                _ => Some(at),
            };
        }
        Some(at)
    }

    fn uses(&self) -> Uses {
        let mut uses = Uses::new();
        for (module, mentions) in &self.0 {
            let used = mentions.paths.iter().filter_map(|path| self.resolve(module, path, 6));
            // The module files above it do not count, nor does the root, which only re-exports.
            let used = used.filter(|used| !module.starts_with(used) && !used.is_empty());
            uses.insert(module.clone(), used.collect());
        }
        uses
    }
}

/// Whether `from` uses `to`, directly or through other files.
fn leads(uses: &Uses, from: &Module, to: &Module) -> bool {
    let mut seen = BTreeSet::new();
    let mut next: Vec<&Module> = uses.get(from).into_iter().flatten().collect();
    while let Some(module) = next.pop() {
        if module == to {
            return true;
        }
        if seen.insert(module) {
            next.extend(uses.get(module).into_iter().flatten());
        }
    }
    false
}

/// The circles: sets of files that all use each other, directly or not.
fn circles(uses: &Uses) -> BTreeSet<BTreeSet<Module>> {
    let in_circle = uses.keys().filter(|module| leads(uses, module, module));
    in_circle
        .map(|module| {
            let both = |other: &&Module| leads(uses, module, other) && leads(uses, other, module);
            uses.keys().filter(both).cloned().collect()
        })
        .collect()
}

fn uses_of(lines: &[(&str, &[&str])]) -> Uses {
    let module = |name: &&str| name.split('/').map(str::to_owned).collect::<Module>();
    lines.iter().map(|(from, to)| (module(from), to.iter().map(module).collect())).collect()
}

#[test]
fn a_circle_is_found_and_a_chain_is_none() {
    assert!(circles(&uses_of(&[("a", &["b"]), ("b", &["c"]), ("c", &[])])).is_empty());
    let found = circles(&uses_of(&[("a", &["b"]), ("b", &["c"]), ("c", &["b", "d"]), ("d", &[])]));
    assert_eq!(found.len(), 1);
    assert_eq!(found.first().map(BTreeSet::len), Some(2));
}

#[test]
fn there_is_at_most_one_circle_of_files() {
    let found: Vec<String> = sources()
        .into_iter()
        .flat_map(|(name, source)| {
            let circles = circles(&Crate::read(&source).uses());
            circles.into_iter().map(move |circle| {
                let files: Vec<_> = circle.iter().map(|module| module.join("/")).collect();
                format!("{name}: {}", files.join(", "))
            })
        })
        .collect();
    assert!(
        found.len() <= MOST,
        "{} circles of files; move what two of them share into a file below both:\n{}",
        found.len(),
        found.join("\n")
    );
}
