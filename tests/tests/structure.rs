//! The structure of the crates, read from their own imports: no circles, neither of
//! files nor of folders, and no module that is public for nobody.
//!
//! An import counts where the imported thing is defined, not where it is re-exported.
//! Tests, and what only tests compile, do not count.

#![allow(clippy::panic)]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use syn::{
    Attribute, Item, ItemMod, UseTree, Visibility,
    visit::{self, Visit},
};

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The crates whose structure is held: folder, and the name that others use. Their modules
/// are public only where another crate names them, or, in the verifier, where strangers
/// build on them.
const CRATES: [(&str, &str); 6] = [
    ("agent", "crn_agent"),
    ("agent/api-types", "crn_api_types"),
    ("disk", "disk"),
    ("net", "net"),
    ("qmp", "qmp"),
    ("sev-attest", "sev_attest"),
];

/// The crate that strangers build on. What its own documentation lists is its interface.
const LIBRARY: &str = "sev_attest";

/// A module: where it is written, what it declares, and what it names.
#[derive(Debug, Default)]
struct Module {
    /// Relative to the crate's `src`.
    file: PathBuf,
    /// Public by itself; whether it can be reached is another question.
    public: bool,
    /// Names of child modules.
    children: BTreeSet<String>,
    /// What `use` brings under a name: the path as written.
    aliases: BTreeMap<String, Vec<String>>,
    /// Paths of `use …::*`.
    globs: Vec<Vec<String>>,
    /// Names of items that are defined here.
    items: BTreeSet<String>,
    /// Every path that is named here, as written, but for re-exports.
    paths: Vec<Vec<String>>,
}

type ModulePath = Vec<String>;

/// A crate's modules by path; the empty path is the root.
#[derive(Debug, Default)]
struct Crate {
    modules: BTreeMap<ModulePath, Module>,
}

impl Crate {
    fn read(src: &Path) -> Self {
        let mut all = Self::default();
        let lib = if src.join("lib.rs").is_file() {
            "lib.rs"
        } else {
            "main.rs"
        };
        all.read_file(src, Path::new(lib), Vec::new(), true);
        all
    }

    fn read_file(&mut self, src: &Path, file: &Path, path: ModulePath, public: bool) {
        let text = std::fs::read_to_string(src.join(file))
            .unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let syntax = syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        self.read_items(src, file, path, public, &syntax.items);
    }

    fn read_items(
        &mut self,
        src: &Path,
        file: &Path,
        path: ModulePath,
        public: bool,
        items: &[Item],
    ) {
        let mut module = Module {
            file: file.to_owned(),
            public,
            ..Module::default()
        };
        for item in items {
            if is_only_for_tests(attributes(item)) {
                continue;
            }
            match item {
                Item::Mod(child) => {
                    module.children.insert(child.ident.to_string());
                    self.read_child(src, file, &path, child);
                }
                Item::Use(item) => {
                    let exported = !matches!(item.vis, Visibility::Inherited);
                    let mut leaves = Vec::new();
                    flatten(&item.tree, &mut Vec::new(), &mut leaves);
                    for (name, target) in leaves {
                        if !exported {
                            module.paths.push(target.clone());
                        }
                        match name {
                            Some(name) => drop(module.aliases.insert(name, target)),
                            None => module.globs.push(target),
                        }
                    }
                }
                other => {
                    if let Some(name) = name_of(other) {
                        module.items.insert(name);
                    }
                    let mut seen = Paths(Vec::new());
                    seen.visit_item(other);
                    module.paths.extend(seen.0);
                }
            }
        }
        self.modules.insert(path, module);
    }

    fn read_child(&mut self, src: &Path, file: &Path, parent: &ModulePath, child: &ItemMod) {
        let name = child.ident.to_string();
        let mut path = parent.clone();
        path.push(name.clone());
        // A module that a feature opens for tests and benchmarks is as private as it is
        // without it.
        let public =
            matches!(child.vis, Visibility::Public(_)) && !names_feature(&child.attrs, "testing");
        if let Some((_, items)) = &child.content {
            return self.read_items(src, file, path, public, items);
        }
        let folder = match file.file_stem().and_then(|s| s.to_str()) {
            Some("lib" | "main" | "mod") => file.parent().map(Path::to_owned).unwrap_or_default(),
            _ => file.with_extension(""),
        };
        let flat = folder.join(format!("{name}.rs"));
        let nested = folder.join(&name).join("mod.rs");
        let file = if src.join(&flat).is_file() {
            flat
        } else {
            nested
        };
        self.read_file(src, &file, path, public);
    }

    /// The module in which what `path`, written in `from`, names is defined.
    fn resolve(&self, from: &ModulePath, path: &[String], depth: usize) -> Option<ModulePath> {
        if depth > 16 {
            return None;
        }
        let mut at = from.clone();
        let mut rest = path;
        let mut first = true;
        loop {
            let Some((name, tail)) = rest.split_first() else {
                return Some(at);
            };
            match name.as_str() {
                "crate" if first => at = Vec::new(),
                "self" => {}
                "super" => drop(at.pop()),
                _ => {
                    let module = self.modules.get(&at)?;
                    if module.children.contains(name) {
                        at.push(name.clone());
                    } else if let Some(target) = module.aliases.get(name) {
                        // A name that was brought here: go on from where it comes from.
                        if target.as_slice() == path && at == *from {
                            return None;
                        }
                        let mut whole = target.clone();
                        whole.extend(tail.iter().cloned());
                        return self.resolve(&at, &whole, depth + 1);
                    } else if module.items.contains(name) {
                        return Some(at);
                    } else {
                        if first {
                            return None;
                        }
                        for glob in &module.globs {
                            let mut whole = glob.clone();
                            whole.push(name.clone());
                            if let Some(found) = self.resolve(&at, &whole, depth + 1) {
                                return Some(found);
                            }
                        }
                        return None;
                    }
                }
            }
            first = false;
            rest = tail;
        }
    }

    /// Which file names what of which file.
    fn arrows(&self) -> BTreeMap<(PathBuf, PathBuf), BTreeSet<String>> {
        let mut arrows: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
        for (path, module) in &self.modules {
            for named in &module.paths {
                let Some(target) = self.resolve(path, named, 0) else {
                    continue;
                };
                let target = &self.modules[&target].file;
                if *target != module.file {
                    let name = named.last().cloned().unwrap_or_default();
                    arrows
                        .entry((module.file.clone(), target.clone()))
                        .or_default()
                        .insert(name);
                }
            }
        }
        arrows
    }

    /// Paths of modules that others can name.
    fn public_modules(&self) -> Vec<&ModulePath> {
        let reachable = |path: &ModulePath| {
            (1..=path.len()).all(|n| self.modules.get(&path[..n]).is_some_and(|m| m.public))
        };
        self.modules
            .keys()
            .filter(|p| !p.is_empty() && reachable(p))
            .collect()
    }
}

/// Collects the paths that code names.
struct Paths(Vec<Vec<String>>);

impl<'a> Visit<'a> for Paths {
    fn visit_path(&mut self, path: &'a syn::Path) {
        if path.segments.len() > 1 || path.leading_colon.is_none() {
            self.0
                .push(path.segments.iter().map(|s| s.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }

    /// Arguments of macros are only tokens: every `a::b` among them counts.
    fn visit_macro(&mut self, mac: &'a syn::Macro) {
        let mut run: Vec<String> = Vec::new();
        let mut colons = 0;
        tokens(mac.tokens.clone(), &mut |token| match token {
            Some(proc_macro2::TokenTree::Ident(ident)) => {
                if colons != 2 && !run.is_empty() {
                    self.0.push(std::mem::take(&mut run));
                }
                colons = 0;
                run.push(ident.to_string());
            }
            Some(proc_macro2::TokenTree::Punct(p)) if p.as_char() == ':' => colons += 1,
            _ => {
                colons = 0;
                if !run.is_empty() {
                    self.0.push(std::mem::take(&mut run));
                }
            }
        });
        visit::visit_macro(self, mac);
    }

    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        let mut leaves = Vec::new();
        flatten(&item.tree, &mut Vec::new(), &mut leaves);
        self.0.extend(leaves.into_iter().map(|(_, path)| path));
    }

    fn visit_item_mod(&mut self, item: &'a ItemMod) {
        if !is_only_for_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }
}

fn tokens(stream: proc_macro2::TokenStream, tell: &mut dyn FnMut(Option<proc_macro2::TokenTree>)) {
    for token in stream {
        match token {
            proc_macro2::TokenTree::Group(group) => {
                tell(None);
                tokens(group.stream(), tell);
                tell(None);
            }
            other => tell(Some(other)),
        }
    }
    tell(None);
}

fn flatten(
    tree: &UseTree,
    prefix: &mut Vec<String>,
    leaves: &mut Vec<(Option<String>, Vec<String>)>,
) {
    match tree {
        UseTree::Path(path) => {
            prefix.push(path.ident.to_string());
            flatten(&path.tree, prefix, leaves);
            prefix.pop();
        }
        UseTree::Name(name) => {
            let name = name.ident.to_string();
            let mut path = prefix.clone();
            if name != "self" {
                path.push(name);
            }
            leaves.push((path.last().cloned(), path));
        }
        UseTree::Rename(rename) => {
            let mut path = prefix.clone();
            if rename.ident != "self" {
                path.push(rename.ident.to_string());
            }
            leaves.push((Some(rename.rename.to_string()), path));
        }
        UseTree::Glob(_) => leaves.push((None, prefix.clone())),
        UseTree::Group(group) => {
            for tree in &group.items {
                flatten(tree, prefix, leaves);
            }
        }
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(i) => &i.attrs,
        Item::Enum(i) => &i.attrs,
        Item::Fn(i) => &i.attrs,
        Item::Impl(i) => &i.attrs,
        Item::Macro(i) => &i.attrs,
        Item::Mod(i) => &i.attrs,
        Item::Static(i) => &i.attrs,
        Item::Struct(i) => &i.attrs,
        Item::Trait(i) => &i.attrs,
        Item::Type(i) => &i.attrs,
        Item::Use(i) => &i.attrs,
        _ => &[],
    }
}

fn name_of(item: &Item) -> Option<String> {
    Some(
        match item {
            Item::Const(i) => &i.ident,
            Item::Enum(i) => &i.ident,
            Item::Fn(i) => &i.sig.ident,
            Item::Macro(i) => i.ident.as_ref()?,
            Item::Static(i) => &i.ident,
            Item::Struct(i) => &i.ident,
            Item::Trait(i) => &i.ident,
            Item::Type(i) => &i.ident,
            Item::Union(i) => &i.ident,
            _ => return None,
        }
        .to_string(),
    )
}

fn cfg_text(attributes: &[Attribute]) -> impl Iterator<Item = String> {
    attributes
        .iter()
        .filter(|a| a.path().is_ident("cfg"))
        .filter_map(|a| a.meta.require_list().ok())
        .map(|list| list.tokens.to_string())
}

fn is_only_for_tests(attributes: &[Attribute]) -> bool {
    cfg_text(attributes).any(|cfg| cfg == "test")
}

fn names_feature(attributes: &[Attribute], feature: &str) -> bool {
    cfg_text(attributes).any(|cfg| cfg.contains(&format!("\"{feature}\"")))
}

/// Whether the documentation at the head of `file` names this module of the crate's root.
fn documents(file: &Path, module: &ModulePath) -> bool {
    let text = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let name = format!("`{}`", module.join("::"));
    text.lines()
        .take_while(|line| line.starts_with("//!"))
        .any(|line| line.starts_with("//! |") && line.contains(&name))
}

/// Groups of nodes that reach each other, each of two or more.
fn circles(arrows: &BTreeSet<(PathBuf, PathBuf)>) -> Vec<BTreeSet<PathBuf>> {
    let mut next: BTreeMap<&Path, BTreeSet<&Path>> = BTreeMap::new();
    for (from, to) in arrows {
        next.entry(from).or_default().insert(to);
    }
    let reach: BTreeMap<&Path, BTreeSet<&Path>> = next
        .keys()
        .map(|start| {
            let mut seen = BTreeSet::new();
            let mut todo = vec![*start];
            while let Some(at) = todo.pop() {
                for to in next.get(at).into_iter().flatten() {
                    if seen.insert(*to) {
                        todo.push(to);
                    }
                }
            }
            (*start, seen)
        })
        .collect();
    let mut found: Vec<BTreeSet<PathBuf>> = Vec::new();
    for (start, seen) in &reach {
        if !seen.contains(start) || found.iter().any(|c| c.contains(*start)) {
            continue;
        }
        let circle = seen
            .iter()
            .filter(|to| reach.get(*to).is_some_and(|back| back.contains(start)))
            .map(|to| (*to).to_owned())
            .collect();
        found.push(circle);
    }
    found
}

/// Whether `front` is the file of a module that `file` is a part of: the two are one
/// subject, and a child may take what its parent holds.
fn is_front_of(front: &Path, file: &Path) -> bool {
    let folder = match front.file_stem().and_then(|s| s.to_str()) {
        Some("lib" | "main" | "mod") => front.parent().map(Path::to_owned).unwrap_or_default(),
        _ => front.with_extension(""),
    };
    front != file && file.starts_with(folder)
}

/// What a file or folder is called among its neighbours in `folder`: the first part of
/// its path below it. A module's own file (`a.rs` beside `a/`, `a/mod.rs`) belongs to
/// the folder `a`.
fn unit(file: &Path, folder: &Path) -> Option<PathBuf> {
    let below = file.strip_prefix(folder).ok()?;
    let mut parts = below.components();
    let first = Path::new(parts.next()?.as_os_str());
    Some(first.with_extension(""))
}

#[test]
fn no_circles_of_files_or_folders() {
    let mut told = Vec::new();
    for (folder, name) in CRATES {
        let src = root().join(folder).join("src");
        let arrows = Crate::read(&src).arrows();
        let why = |circle: &BTreeSet<PathBuf>, of: &dyn Fn(&Path) -> Option<PathBuf>| {
            let mut lines = Vec::new();
            for ((from, to), names) in &arrows {
                let (Some(a), Some(b)) = (of(from), of(to)) else {
                    continue;
                };
                if a != b && circle.contains(&a) && circle.contains(&b) {
                    let names: Vec<_> = names.iter().cloned().collect();
                    lines.push(format!(
                        "    {} -> {}: {}",
                        from.display(),
                        to.display(),
                        names.join(", ")
                    ));
                }
            }
            lines.join("\n")
        };
        let files: BTreeSet<_> = arrows.keys().cloned().collect();
        let between = files
            .iter()
            .filter(|(a, b)| !is_front_of(a, b) && !is_front_of(b, a));
        for circle in circles(&between.cloned().collect()) {
            told.push(format!(
                "{name}: files {circle:?}\n{}",
                why(&circle, &|f| Some(f.to_owned()))
            ));
        }
        let mut folders: BTreeSet<PathBuf> = BTreeSet::from([PathBuf::new()]);
        for (from, to) in &files {
            for file in [from, to] {
                folders.extend(file.ancestors().skip(1).map(Path::to_owned));
            }
        }
        for folder in folders {
            let of = |f: &Path| {
                unit(f, &folder)
                    .filter(|u| !["lib", "main", "mod"].iter().any(|n| u == Path::new(n)))
            };
            let units: BTreeSet<_> = files
                .iter()
                .filter_map(|(a, b)| Some((of(a)?, of(b)?)))
                .filter(|(a, b)| a != b)
                .collect();
            for circle in circles(&units) {
                told.push(format!(
                    "{name}: in {folder:?} {circle:?}\n{}",
                    why(&circle, &of)
                ));
            }
        }
    }
    assert!(told.is_empty(), "circles of imports:\n{}", told.join("\n"));
}

#[test]
fn no_module_is_public_for_nobody() {
    // What each crate's product code names of another.
    let mut named: BTreeSet<Vec<String>> = BTreeSet::new();
    for (folder, name) in CRATES.into_iter().chain([("sev-attest/web", "web")]) {
        let src = root().join(folder).join("src");
        let mut roots = vec![Crate::read(&src)];
        if src.join("lib.rs").is_file() && src.join("main.rs").is_file() {
            let mut main = Crate::default();
            main.read_file(&src, Path::new("main.rs"), Vec::new(), true);
            roots.push(main);
        }
        for one in roots {
            for module in one.modules.values() {
                for path in module
                    .paths
                    .iter()
                    .chain(module.aliases.values())
                    .chain(&module.globs)
                {
                    if path
                        .first()
                        .is_some_and(|p| p != name || module.file == Path::new("main.rs"))
                    {
                        named.insert(path.clone());
                    }
                }
            }
        }
    }
    let mut told = Vec::new();
    for (folder, name) in CRATES {
        let src = root().join(folder).join("src");
        for module in Crate::read(&src).public_modules() {
            let mut path = vec![name.to_owned()];
            path.extend(module.iter().cloned());
            let documented = name == LIBRARY && documents(&src.join("lib.rs"), module);
            if !documented && !named.iter().any(|n| n.starts_with(&path)) {
                told.push(path.join("::"));
            }
        }
    }
    assert!(
        told.is_empty(),
        "public, and only their own crate uses them:\n{}",
        told.join("\n")
    );
}
